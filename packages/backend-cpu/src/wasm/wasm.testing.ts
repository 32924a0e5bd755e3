// Layer: tests of the CPU backend's WebAssembly build. Whether it was made, and what a device of it needs: the script of its
// workers is bundled for Node first, which cannot run a worker's TypeScript.
// Knows Node's files and esbuild. Knows no test.

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import v8 from "node:v8";
import { build } from "esbuild";
import { hasRelaxedSimd } from "./features.js";
import { type WasmFile, wasmAvailability } from "./index.js";

const fileOf = (name: WasmFile) => fileURLToPath(new URL(`../../wasm/${name}`, import.meta.url));

/** Why nothing can be tested, if so. */
export function reasonToSkip(): string | undefined {
  const found = wasmAvailability();
  if (!found.available) return found.reason;
  return existsSync(fileOf(found.file))
    ? undefined
    : "it was not built (scripts/build-wasm.mjs; it needs clang-19 and lld-19)";
}

export const bytesOf = (name: WasmFile): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(fileOf(name)));

/** Engines of 2023 take relaxed SIMD only when they are told to. */
export function allowRelaxedSimd(): void {
  if (!hasRelaxedSimd()) v8.setFlagsFromString("--experimental-wasm-relaxed-simd");
}

/** The worker's script in a folder of its own, which `remove` takes away. */
export async function bundleWorker(): Promise<{ readonly url: URL; remove(): void }> {
  const folder = mkdtempSync(path.join(os.tmpdir(), "diffmamba-wasm-"));
  const outfile = path.join(folder, "worker.mjs");
  await build({
    entryPoints: [path.join(import.meta.dirname, "worker.ts")],
    outfile,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    logLevel: "silent",
  });
  return { url: pathToFileURL(outfile), remove: () => rmSync(folder, { recursive: true, force: true }) };
}
