// Layer: apps/bench, peers. What a peer of the matrix product is, and which there are: one line each.
// Knows peers by name. Knows no tensor.
import type { Entry } from "../race.js";
import { jaxMatmul } from "./jax.js";
import { onnxMatmul } from "./onnx.js";
import { openBlasMatmul } from "./openblas.js";
import { tfjsMatmul } from "./tfjs.js";

/** How the operands lie in memory: n as they are multiplied, t transposed. */
export type Form = "nn" | "nt" | "tn" | "tt";

export const forms: readonly Form[] = ["nn", "nt", "tn", "tt"];

/** (M, K) x (K, N) -> (M, N), f32. */
export interface MatmulProblem {
  readonly m: number;
  readonly k: number;
  readonly n: number;
  readonly form: Form;
  /** (M, K) rows or, where the form begins with t, (K, M). */
  readonly a: Float32Array;
  /** (K, N) rows or, where the form ends with t, (N, K). */
  readonly b: Float32Array;
}

export interface MatmulPeer {
  readonly name: string;
  /**
   * The problem, ready to be timed on so many threads, or on one where the peer has no more; its result is the product in
   * rows. @throws where the peer does not run here
   */
  open(problem: MatmulProblem, threads: number): Promise<Entry>;
}

/** Those that are WebAssembly: one thread in Node, and there wherever the bench is installed. */
export const wasmPeers: readonly MatmulPeer[] = [tfjsMatmul, jaxMatmul];

/** Those that are native: as many threads as asked for. */
export const nativePeers: readonly MatmulPeer[] = [openBlasMatmul, onnxMatmul];
