// Layer: apps/bench. The bench's own native addon (native/peers.cc): compiled for this machine when first asked for, kept until its
// source changes. Knows a compiler. Knows no peer and no suite.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** The functions of native/peers.cc. */
export interface Native {
  /** Floats of a vector register. */
  readonly lanes: number;
  /** Chains of multiply-adds in each lane. */
  readonly chains: number;
  /** Zeros from the start of a page on. */
  aligned(bytes: number): ArrayBuffer;
  multiplyAdd(rounds: number, threads: number): number;
  /** @returns the sum of the elements, each of which is loaded `times` times */
  read(from: Float32Array, times: number, threads: number): number;
  /** By the C library, or with stores that go past the caches. Both arrays are as {@link alignedFloats} gives them. */
  copy(to: Float32Array, from: Float32Array, times: number, threads: number, pastCaches: boolean): void;
  /** @returns what the library says of itself. @throws where it cannot be opened */
  openBlas(path: string): string;
  /** c = a b after {@link openBlas}, all in rows; a transposed operand lies as its transpose. */
  sgemm(
    transA: boolean,
    transB: boolean,
    m: number,
    n: number,
    k: number,
    a: Float32Array,
    b: Float32Array,
    c: Float32Array,
    threads: number,
  ): void;
}

const nodeRequire = createRequire(import.meta.url);
const root = fileURLToPath(new URL("..", import.meta.url));

const flags = ["-std=c++17", "-O3", "-fPIC", "-pthread", process.arch === "arm64" ? "-mcpu=native" : "-march=native"];
const link = process.platform === "darwin" ? ["-bundle", "-undefined", "dynamic_lookup"] : ["-shared", "-ldl"];

function findCompiler(): string {
  const names = process.env.CXX ? [process.env.CXX] : ["g++", "c++", "clang++"];
  const found = names.find((name) => spawnSync(name, ["--version"]).status === 0);
  if (found === undefined) throw new Error("no C++ compiler was found (install g++, or set CXX)");
  return found;
}

/** The addon's file, which is built where it is not there. */
function build(): string {
  const source = path.join(root, "native", "peers.cc");
  // A machine's flags are part of the name: the folder may be shared by several.
  const machine = existsSync("/proc/cpuinfo") ? /^flags.*$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[0] : "";
  const print = createHash("sha256")
    .update(readFileSync(source))
    .update(JSON.stringify([flags, link, machine]));
  const target = path.join(root, "build", `peers-${print.digest("hex").slice(0, 12)}.node`);
  if (existsSync(target)) return target;
  const { include_dir: headers } = nodeRequire("node-api-headers") as { include_dir: string };
  mkdirSync(path.dirname(target), { recursive: true });
  const fresh = `${target}.${process.pid}`;
  const args = [...flags, `-I${headers}`, source, "-o", fresh, ...link];
  const { status, stderr } = spawnSync(findCompiler(), args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`the bench's native addon does not compile: ${stderr.trim().split("\n")[0]}`);
  renameSync(fresh, target);
  return target;
}

let loaded: { native: Native } | { error: unknown } | undefined;

function load(): { native: Native } | { error: unknown } {
  try {
    return { native: nodeRequire(build()) as Native };
  } catch (error) {
    return { error };
  }
}

/** The addon, built and loaded once. @throws where it cannot be had, with the reason */
export function native(): Native {
  loaded ??= load();
  if ("error" in loaded) throw loaded.error;
  return loaded.native;
}

/** A copy of `values`, as {@link alignedFloats} places it. */
export function alignedCopy(values: Float32Array): Float32Array {
  const copy = alignedFloats(values.length);
  copy.set(values);
  return copy;
}

/** Zeros from the start of a page on; anywhere, where there is no addon. */
export function alignedFloats(size: number): Float32Array {
  loaded ??= load();
  return "native" in loaded ? new Float32Array(loaded.native.aligned(4 * size), 0, size) : new Float32Array(size);
}
