// Layer: apps/bench, peers. @tensorflow/tfjs-backend-wasm (SIMD, one thread in Node) as a peer of the matrix product.
// Knows nothing of ours.
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { MatmulPeer } from "./matmul.js";

type Tfjs = typeof import("@tensorflow/tfjs-core");

let loaded: Promise<{ tf: Tfjs; version: string }> | undefined;

async function load(): Promise<{ tf: Tfjs; version: string }> {
  const tf = await import("@tensorflow/tfjs-core");
  const wasm = await import("@tensorflow/tfjs-backend-wasm");
  const folder = path.dirname(fileURLToPath(import.meta.resolve("@tensorflow/tfjs-backend-wasm")));
  wasm.setWasmPaths(`${folder}${path.sep}`);
  if (!(await tf.setBackend("wasm"))) throw new Error(`its backend does not start in Node ${process.versions.node}`);
  await tf.ready();
  return { tf, version: wasm.version_wasm };
}

export const tfjsMatmul: MatmulPeer = {
  name: "@tensorflow/tfjs-backend-wasm",
  async open({ m, k, n, form, a, b }) {
    loaded ??= load();
    const { tf, version } = await loaded;
    const [transA, transB] = [form[0] === "t", form[1] === "t"];
    const left = tf.tensor2d(a, transA ? [k, m] : [m, k]);
    const right = tf.tensor2d(b, transB ? [n, k] : [k, n]);
    // Its own transpose flags take a path that is fifty times slower than turning the operand first.
    const product = () =>
      tf.tidy(() => tf.matMul(transA ? tf.transpose(left) : left, transB ? tf.transpose(right) : right));
    return {
      name: `@tensorflow/tfjs-backend-wasm ${version}`,
      backend: null,
      work: { "GFLOP/s": 2 * m * k * n },
      run: () => product().dispose(),
      async result() {
        const out = product();
        const data = await out.data<"float32">();
        out.dispose();
        return [data];
      },
      dispose() {
        left.dispose();
        right.dispose();
      },
    };
  },
};
