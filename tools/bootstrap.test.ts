// Layer: tools. The bootstrap in a small workspace of its own, with a stand-in for npx and for the compiler.
import { execFile } from "node:child_process";
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { root } from "./layers.mjs";

let folder = "";

/** Writes a file of the small workspace. */
function put(file: string, text: string): void {
  mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
  writeFileSync(path.join(folder, file), text);
}

/** What the stand-ins did, a line each: `npx` for an installation, `tsc`, `addon` and `wasm` for a build. */
const calls = () => (existsSync(path.join(folder, "calls")) ? readFileSync(path.join(folder, "calls"), "utf8") : "");

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function run(...args: string[]): Promise<Outcome> {
  const env = { ...process.env, PATH: `${path.join(folder, "bin")}${path.delimiter}${process.env.PATH}` };
  return new Promise((resolve) => {
    execFile(process.execPath, ["tools/run.mjs", ...args], { cwd: folder, env }, (error, stdout, stderr) => {
      resolve({ code: Number(error?.code ?? 0), stdout, stderr });
    });
  });
}

/** Makes the stand-in for npx, which notes the call, prints, puts a compiler in place and ends with `code`. */
function putNpx(code: number): void {
  const compiler = "require('fs').appendFileSync('calls', 'tsc\\\\n'); console.log('compiled')";
  put(
    "bin/npx",
    `#!/usr/bin/env node
const fs = require("fs");
fs.appendFileSync("calls", "npx " + (process.env.CI === "true" ? "" : "without CI") + "\\n");
console.log("installed");
fs.mkdirSync("node_modules/typescript/bin", { recursive: true });
fs.writeFileSync("node_modules/typescript/bin/tsc", "${compiler}");
process.exit(${code});
`,
  );
  chmodSync(path.join(folder, "bin/npx"), 0o755);
}

beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), "diffmamba-bootstrap-"));
  for (const file of ["tools/run.mjs", "tools/bootstrap.mjs"]) cpSync(path.join(root, file), path.join(folder, file));
  put("package.json", "{}");
  put("packages/one/package.json", "{}");
  put("apps/two/package.json", "{}");
  put("pnpm-lock.yaml", "lock: 1\n");
  put("pnpm-workspace.yaml", "packages: []\n");
  for (const part of ["addon", "wasm"]) {
    put(
      `packages/backend-cpu/scripts/build-${part}.mjs`,
      `import fs from "node:fs"; fs.appendFileSync("calls", "${part}\\n"); console.log("compiled")`,
    );
  }
  put("apps/bench/package.json", "{}");
  put("apps/bench/dist/main.js", "console.log(JSON.stringify(process.argv.slice(2)));");
  putNpx(0);
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("the bootstrap", () => {
  it("installs once, builds every time, and says nothing on stdout", async () => {
    expect(await run("setup")).toMatchObject({ code: 0, stdout: "" });
    expect(await run("setup")).toMatchObject({ code: 0, stdout: "" });
    expect(calls()).toBe("npx \ntsc\naddon\nwasm\ntsc\naddon\nwasm\n");
  });

  it.each(["pnpm-lock.yaml", "packages/one/package.json"])("installs again when %s changes", async (file) => {
    await run("setup");
    put(file, "{ }\n");
    await run("setup");
    expect(calls()).toBe("npx \ntsc\naddon\nwasm\nnpx \ntsc\naddon\nwasm\n");
  });

  it("hands over to the program, whose stdout stays its own", async () => {
    const { code, stdout } = await run("bench", "ops", "--json");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual(["ops", "--json"]);
  });

  it("names the command that failed, ends with 1, and tries again the next time", async () => {
    putNpx(7);
    const failed = await run("test");
    expect(failed).toMatchObject({ code: 1, stdout: "" });
    expect(failed.stderr).toMatch(
      /setup failed: `npx -y pnpm@[\d.]+ install .*` ended with exit code 7\. The lines above/,
    );
    putNpx(0);
    expect((await run("setup")).code).toBe(0);
    expect(calls()).toBe("npx \nnpx \ntsc\naddon\nwasm\n");
  });

  it("names a build that fails and a program that is missing", async () => {
    rmSync(path.join(folder, "apps/bench/dist"), { recursive: true });
    const missing = await run("bench");
    expect(missing).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("apps/bench/dist/main.js does not exist"),
    });
    put("node_modules/typescript/bin/tsc", "process.exit(2)");
    const broken = await run("setup");
    expect(broken).toMatchObject({ code: 1, stderr: expect.stringContaining("do not compile") });
    put("node_modules/typescript/bin/tsc", "");
    put("packages/backend-cpu/scripts/build-addon.mjs", "process.exit(3)");
    expect((await run("setup")).stderr).toContain("build-addon.mjs` ended with exit code 3. The lines above");
  });

  it("ends with 2 and the usage for a command that it does not know", async () => {
    expect(await run("tset")).toMatchObject({ code: 2, stderr: expect.stringContaining('unknown command "tset"') });
  });

  it("installs once when several start together", async () => {
    const outcomes = await Promise.all([run("setup"), run("setup"), run("setup")]);
    expect(outcomes.map((one) => one.code)).toEqual([0, 0, 0]);
    expect(calls().match(/npx/g)).toHaveLength(1);
    expect(existsSync(path.join(folder, ".setup-lock"))).toBe(false);
  });

  it("takes over the lock of a process that is gone", async () => {
    // A process that has ended by the time its number is used.
    const pid = await new Promise<number>((resolve) => {
      const child = execFile(process.execPath, ["-e", ""], () => resolve(child.pid ?? 0));
    });
    put(".setup-lock", `${pid} ${os.hostname()} 0`);
    expect((await run("setup")).code).toBe(0);
    expect(existsSync(path.join(folder, ".setup-lock"))).toBe(false);
  });

  it("waits for a lock that is held", async () => {
    put(".setup-lock", `${process.pid} ${os.hostname()} 0`);
    const waiting = run("setup");
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(calls()).toBe("");
    rmSync(path.join(folder, ".setup-lock"));
    const { code, stderr } = await waiting;
    expect(code).toBe(0);
    expect(stderr).toContain(`waiting for another setup (process ${process.pid})`);
  });
});
