// Layer: apps/bench, peers. onnxruntime-node on the CPU as a peer of the matrix product: a model of one node, MatMul or, for transposed
// operands, Gemm. Both operands are inputs, so neither is packed beforehand. Knows nothing of ours.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { alignedCopy, alignedFloats } from "../native.js";
import type { MatmulPeer } from "./matmul.js";
import { singleNodeModel } from "./onnxModel.js";

/** After a run its threads spin for about a million turns before they sleep. */
const SPIN_MS = 40;

/** The package re-exports the common one, which has the types; it is installed apart, for its size. */
type OnnxRuntime = typeof import("onnxruntime-common");

let loaded: Promise<OnnxRuntime> | undefined;

async function load(): Promise<OnnxRuntime> {
  const installed = createRequire(new URL("../../peers/package.json", import.meta.url));
  return (await import(pathToFileURL(installed.resolve("onnxruntime-node")).href)) as OnnxRuntime;
}

export const onnxMatmul: MatmulPeer = {
  name: "onnxruntime-node",
  async open({ m, k, n, form, a, b }, threads) {
    loaded ??= load();
    const { InferenceSession, Tensor, env } = await loaded;
    const [transA, transB] = [form[0] === "t", form[1] === "t"];
    const left = transA ? [k, m] : [m, k];
    const right = transB ? [n, k] : [k, n];
    const model = singleNodeModel(
      form === "nn" ? "MatMul" : "Gemm",
      form === "nn" ? {} : { transA: Number(transA), transB: Number(transB) },
      [
        ["a", left[0], left[1]],
        ["b", right[0], right[1]],
      ],
      ["c", m, n],
    );
    const session = await InferenceSession.create(model, { intraOpNumThreads: threads, interOpNumThreads: 1 });
    const out = alignedFloats(m * n);
    const feeds = { a: new Tensor("float32", alignedCopy(a), left), b: new Tensor("float32", alignedCopy(b), right) };
    const fetches = { c: new Tensor("float32", out, [m, n]) };
    const run = () => session.run(feeds, fetches);
    return {
      name: `onnxruntime-node ${env.versions.node}`,
      backend: null,
      work: { "GFLOP/s": 2 * m * k * n },
      run,
      async result() {
        await run();
        return [out.slice()];
      },
      dispose: () => void session.release(),
      ...(threads > 1 && { restMs: SPIN_MS }),
    };
  },
};
