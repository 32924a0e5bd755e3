// Layer: apps/bench, peers. @jax-js/jax on its WebAssembly backend, one thread in Node, as a peer of the matrix product.
// Its arrays are counted by reference: a call consumes its arguments, `.ref` keeps one alive. Knows nothing of ours.
import { readFile } from "node:fs/promises";
import type { MatmulPeer } from "./matmul.js";

type Jax = typeof import("@jax-js/jax");

const DEVICE = "wasm";

let loaded: Promise<{ jax: Jax; version: string }> | undefined;

async function load(): Promise<{ jax: Jax; version: string }> {
  const jax = await import("@jax-js/jax");
  const available = await jax.init(DEVICE);
  if (!available.includes(DEVICE)) {
    throw new Error(
      `its ${DEVICE} backend does not start in Node ${process.versions.node}; it has ${available.join(", ")}`,
    );
  }
  jax.defaultDevice(DEVICE);
  const manifest = new URL("../package.json", import.meta.resolve("@jax-js/jax"));
  const { version } = JSON.parse(await readFile(manifest, "utf8")) as { version: string };
  return { jax, version };
}

export const jaxMatmul: MatmulPeer = {
  name: "@jax-js/jax",
  async open({ m, k, n, form, a, b }) {
    loaded ??= load();
    const { jax, version } = await loaded;
    const { jit, numpy } = jax;
    const [aTransposed, bTransposed] = [form[0] === "t", form[1] === "t"];
    const left = numpy.array(a.slice()).reshape(aTransposed ? [k, m] : [m, k]);
    const right = numpy.array(b.slice()).reshape(bTransposed ? [n, k] : [k, n]);
    await jax.blockUntilReady([left, right]);
    type Matrix = typeof left;
    const product = jit((x: Matrix, y: Matrix) => {
      // With both transposed its kernel is twenty times slower than by (y x)^T, which whoever times it would find.
      if (aTransposed && bTransposed) return numpy.matmul(y, x).transpose();
      return numpy.matmul(aTransposed ? x.transpose() : x, bTransposed ? y.transpose() : y);
    });
    return {
      name: `@jax-js/jax ${version} ${DEVICE}`,
      backend: null,
      work: { "GFLOP/s": 2 * m * k * n },
      async run() {
        const out = product(left.ref, right.ref);
        await out.blockUntilReady();
        out.dispose();
      },
      async result() {
        return [(await product(left.ref, right.ref).data()) as Float32Array];
      },
      dispose() {
        product.dispose();
        left.dispose();
        right.dispose();
      },
    };
  },
};
