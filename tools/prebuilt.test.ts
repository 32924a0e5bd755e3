// Layer: tools. The release of the prebuilt addons in a small workspace of its own, with stand-ins for npm and npx.
import { execFile } from "node:child_process";
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { root } from "./layers.mjs";
import { backends, glibcOf, platforms, withPlatforms } from "./prebuilt.mjs";

let folder = "";
const at = (...parts: string[]) => path.join(folder, ...parts);

function put(file: string, text: string): void {
  mkdirSync(path.dirname(at(file)), { recursive: true });
  writeFileSync(at(file), text);
}

const names = Object.keys(platforms);
const manifestOf = (folder: string) => `{ "name": "@diffmamba/${folder}", "version": "1.2.3", "license": "X" }\n`;
const manifests = () => backends.map(({ folder: name }) => readFileSync(at("packages", name, "package.json"), "utf8"));
const untouched = backends.map(({ folder: name }) => manifestOf(name));

/** Stand-ins that note each call with what is published then; the registry has `known` and no more. */
function putRegistry(known: string, npxCode = 0): void {
  put(
    "bin/npm",
    `#!/usr/bin/env node
const fs = require("fs");
const [command, what] = process.argv.slice(2);
if (command === "view") {
  if (what === "${known}") console.log('"1.2.3"');
  else { console.log('{ "error": { "code": "E404" } }'); process.exitCode = 1; }
} else {
  const { name, version, os, cpu } = JSON.parse(fs.readFileSync(what + "/package.json"));
  const files = fs.readdirSync(what).sort().join();
  fs.appendFileSync("calls", [command, name, version, os, cpu, files].join(" ") + "\\n");
}
`,
  );
  put(
    "bin/npx",
    `#!/usr/bin/env node
const fs = require("fs");
const read = (name) => JSON.parse(fs.readFileSync("packages/" + name + "/package.json")).optionalDependencies;
const listed = Object.entries({ ...read("backend-cpu"), ...read("backend-cuda") });
fs.appendFileSync("calls", process.argv.slice(2).join(" ") + " " + listed.join(" ") + "\\n");
process.exitCode = ${npxCode};
`,
  );
  for (const name of ["npm", "npx"]) chmodSync(at("bin", name), 0o755);
}

function publish(...args: string[]) {
  const env = { ...process.env, PATH: `${at("bin")}${path.delimiter}${process.env.PATH}` };
  return new Promise<{ code: number; stderr: string }>((resolve) => {
    execFile(process.execPath, ["tools/prebuilt.mjs", ...args], { cwd: folder, env }, (error, _, stderr) =>
      resolve({ code: Number(error?.code ?? 0), stderr }),
    );
  });
}

const calls = () => (existsSync(at("calls")) ? readFileSync(at("calls"), "utf8").trim().split("\n") : []);

beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), "diffmamba-prebuilt-test-"));
  mkdirSync(at("tools"));
  cpSync(path.join(root, "tools/prebuilt.mjs"), at("tools/prebuilt.mjs"));
  put("LICENSE", "licence\n");
  for (const { folder: name } of backends) put(`packages/${name}/package.json`, manifestOf(name));
  for (const { addon, platforms: own } of backends) {
    for (const name of own) put(`built/${name}/${addon}`, "GLIBC_2.17 GLIBC_2.28 GLIBC_2.3");
  }
  put("built/kernels/diffmamba-cuda.fatbins", "kernels");
  putRegistry("@diffmamba/backend-cpu-linux-x64@1.2.3");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("the release of the prebuilt addons", () => {
  it("publishes what is new, then the rest with the platforms listed, and leaves the manifest as it was", async () => {
    expect(await publish("built")).toMatchObject({ code: 0 });
    const files = "LICENSE,README.md,diffmamba-cpu.node,package.json";
    const cudaFiles = "LICENSE,README.md,diffmamba-cuda.fatbins,diffmamba-cuda.node,package.json";
    const cudaNames = ["linux-x64", "linux-arm64", "win32-x64"];
    const listed = [
      ...names.map((name) => `@diffmamba/backend-cpu-${name},1.2.3`),
      ...cudaNames.map((name) => `@diffmamba/backend-cuda-${name},1.2.3`),
    ];
    expect(calls()).toEqual([
      `publish @diffmamba/backend-cpu-linux-arm64 1.2.3 linux arm64 ${files}`,
      `publish @diffmamba/backend-cpu-darwin-arm64 1.2.3 darwin arm64 ${files}`,
      `publish @diffmamba/backend-cpu-win32-x64 1.2.3 win32 x64 ${files}`,
      `publish @diffmamba/backend-cuda-linux-x64 1.2.3 linux x64 ${cudaFiles}`,
      `publish @diffmamba/backend-cuda-linux-arm64 1.2.3 linux arm64 ${cudaFiles}`,
      `publish @diffmamba/backend-cuda-win32-x64 1.2.3 win32 x64 ${cudaFiles}`,
      `changeset publish ${listed.join(" ")}`,
    ]);
    expect(manifests()).toEqual(untouched);
  });

  it("leaves the manifest as it was where publishing fails", async () => {
    putRegistry("", 1);
    expect((await publish("built")).code).toBe(1);
    expect(manifests()).toEqual(untouched);
  });

  it("publishes nothing without all platforms, or with one for a newer Linux than Node's", async () => {
    put("built/linux-arm64/diffmamba-cpu.node", "GLIBC_2.34");
    expect((await publish("built")).stderr).toMatch(/linux-arm64.*wants glibc 2\.34; at most 2\.28 is allowed/);
    rmSync(at("built/linux-arm64"), { recursive: true });
    expect((await publish("built")).stderr).toMatch(/linux-arm64.*is missing/);
    expect(calls()).toEqual([]);
  });

  it("publishes nothing without the kernels of CUDA", async () => {
    rmSync(at("built/kernels"), { recursive: true });
    expect((await publish("built")).stderr).toMatch(/diffmamba-cuda\.fatbins is missing/);
    expect(calls()).toEqual([]);
  });

  it("ends with 2 without a folder", async () => {
    expect(await publish()).toEqual({ code: 2, stderr: "usage: node tools/prebuilt.mjs FOLDER\n" });
  });

  it("reads the glibc that a binary wants", () => {
    expect(glibcOf(Buffer.from("\0GLIBC_2.2.5\0GLIBC_2.14\0GLIBCXX_3.4"))).toEqual([2, 14]);
    expect(glibcOf(Buffer.from("MZ"))).toBeUndefined();
  });

  it("lists each platform with the package's own version", () => {
    expect(withPlatforms({ name: "@a/x", version: "4.5.6" }, ["linux-x64"])).toEqual({
      name: "@a/x",
      version: "4.5.6",
      optionalDependencies: { "@a/x-linux-x64": "4.5.6" },
    });
  });
});
