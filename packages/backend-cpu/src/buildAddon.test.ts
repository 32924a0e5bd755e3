// scripts/build-addon.mjs in a small copy of this package, with a stand-in for the compiler: what is compiled when, and
// what stays where it cannot be.

import { execFile } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

const packageFolder = path.join(import.meta.dirname, "..");
let folder = "";
const at = (...parts: string[]) => path.join(folder, ...parts);

function put(file: string, text: string): void {
  mkdirSync(path.dirname(at(file)), { recursive: true });
  writeFileSync(at(file), text);
}

/** A compiler for another machine, so that nobody tries to load what it makes; it notes each call. */
function putCompiler(refuses = "nothing"): void {
  put(
    "bin/compiler",
    `#!/bin/sh
case "$*" in
  -dumpmachine) echo riscv64-linux-gnu; exit ;;
  --version) echo "stand-in 1"; exit ;;
  *-dM*) exit ;;
  *${refuses}*) echo "error: refused" >&2; exit 1 ;;
esac
while [ "$1" != -o ]; do [ "$1" = -c ] && echo "$2" >> ${at("calls")}; shift; done
[ "\${2%.node}" = "$2" ] || echo link >> ${at("calls")}
echo made > "$2"
`,
  );
  chmodSync(at("bin/compiler"), 0o755);
}

/** The files that were compiled since the last look, and the links. */
function calls(): string[] {
  if (!existsSync(at("calls"))) return [];
  const lines = readFileSync(at("calls"), "utf8").trim().split("\n");
  rmSync(at("calls"));
  return lines.map((line) => path.basename(line)).sort();
}

function build(args: readonly string[] = [], compiler = at("bin/compiler")) {
  const env = { ...process.env, CXX: compiler };
  return new Promise<{ code: number; lines: string[] }>((resolve) => {
    execFile(process.execPath, [at("scripts/build-addon.mjs"), ...args], { env }, (error, _, stderr) =>
      resolve({ code: Number(error?.code ?? 0), lines: stderr.trim() === "" ? [] : stderr.trim().split("\n") }),
    );
  });
}

const addon = () => at("build/diffmamba-cpu.node");

beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), "diffmamba-addon-"));
  cpSync(path.join(packageFolder, "scripts"), at("scripts"), { recursive: true });
  symlinkSync(path.join(packageFolder, "node_modules"), at("node_modules"));
  put("package.json", '{ "type": "module" }');
  for (const file of ["addon.cc", "kernels.h", "kernels/one.cc", "kernels/two.cc", "kernels/two.h"]) {
    put(`native/${file}`, `// ${file}\n`);
  }
  for (const file of ["pack.ts", "kernels.ts"]) put(`src/${file}`, `// ${file}\n`);
  putCompiler();
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe.skipIf(process.platform === "win32")("build-addon.mjs", () => {
  it("compiles everything once, then what has changed, then nothing", async () => {
    expect((await build()).lines).toEqual([
      expect.stringContaining("compiling 3 files"),
      expect.stringContaining("built for base"),
    ]);
    expect(calls()).toEqual(["addon.cc", "link", "one.cc", "two.cc"]);
    expect(existsSync(addon())).toBe(true);
    expect(await build()).toEqual({ code: 0, lines: [] });
    expect(calls()).toEqual([]);
    appendFileSync(at("native/kernels/one.cc"), "// more\n");
    await build();
    expect(calls()).toEqual(["link", "one.cc"]);
    appendFileSync(at("native/kernels/two.h"), "// more\n");
    await build();
    expect(calls()).toEqual(["addon.cc", "link", "one.cc", "two.cc"]);
  });

  it("does not need the compiler to see that nothing has changed", async () => {
    await build();
    rmSync(at("bin/compiler"));
    expect(await build()).toEqual({ code: 0, lines: [] });
  });

  it("makes an addon that is not whole again", async () => {
    await build();
    writeFileSync(addon(), "");
    await build();
    expect(readFileSync(addon(), "utf8")).toBe("made\n");
  });

  it("gives one line and no failure without a compiler, but with --required", async () => {
    const message =
      /^backend-cpu: CXX is nothing-here, which is no compiler; the reference backend is used, which is much slower\. For the fast one, install g\+\+ or clang\+\+ and run `node .*build-addon\.mjs`\.$/;
    for (const [args, code] of [
      [[], 0],
      [["--required"], 1],
    ] as const) {
      const outcome = await build(args, "nothing-here");
      expect(outcome.code).toBe(code);
      expect(outcome.lines).toEqual([expect.stringMatching(message)]);
    }
    expect(existsSync(addon())).toBe(false);
  });

  it("names the file that does not compile, keeps the addon that is there, and tries again", async () => {
    await build();
    appendFileSync(at("native/kernels/two.cc"), "// broken\n");
    putCompiler("two.cc");
    const broken = await build();
    expect(broken.code).toBe(0);
    expect(broken.lines.at(-1)).toContain("could not be built: native/kernels/two.cc does not compile; ");
    expect(readFileSync(addon(), "utf8")).toBe("made\n");
    putCompiler();
    calls();
    await build();
    expect(calls()).toEqual(["link", "two.cc"]);
  });

  it("does not keep an addon that would be called wrongly", async () => {
    await build();
    appendFileSync(at("src/kernels.ts"), "// another argument\n");
    appendFileSync(at("native/kernels/two.cc"), "// broken\n");
    putCompiler("two.cc");
    await build();
    expect(existsSync(addon())).toBe(false);
  });

  it("leaves a whole addon where two run at once", async () => {
    const both = await Promise.all([build(), build()]);
    expect(both.map(({ code }) => code)).toEqual([0, 0]);
    expect(readFileSync(addon(), "utf8")).toBe("made\n");
    expect(await build()).toEqual({ code: 0, lines: [] });
  });

  it("ends with 2 and the usage for an option that it does not know", async () => {
    const { code, lines } = await build(["--al"]);
    expect(code).toBe(2);
    expect(lines[0]).toContain("--al");
    expect(lines.join("\n")).toContain("usage: build-addon.mjs");
  });
});
