// Layer: apps/bench, peers. OpenBLAS, where the system has it, as a peer of the matrix product: on as many threads as asked.
// Knows where the library may lie. Knows nothing of ours.
import { alignedCopy, alignedFloats, native } from "../native.js";
import type { MatmulPeer } from "./matmul.js";

const libraries: Readonly<Partial<Record<NodeJS.Platform, readonly string[]>>> = {
  linux: ["libopenblas.so.0", "libopenblas.so"],
  darwin: ["/opt/homebrew/opt/openblas/lib/libopenblas.dylib", "/usr/local/opt/openblas/lib/libopenblas.dylib"],
};

/** After a product its threads spin for 2^26 ticks of the clock before they sleep. */
const SPIN_MS = 40;

/** "OpenBLAS 0.3.21" */
let loaded: string | undefined;

function load(): string {
  const { openBlas } = native();
  const reasons: unknown[] = [];
  for (const path of libraries[process.platform] ?? []) {
    try {
      return openBlas(path).split(" ").slice(0, 2).join(" ");
    } catch (error) {
      reasons.push(error);
    }
  }
  throw reasons[0] ?? new Error(`it is not looked for on ${process.platform}`);
}

export const openBlasMatmul: MatmulPeer = {
  name: "OpenBLAS",
  async open({ m, k, n, form, a, b }, threads) {
    loaded ??= load();
    const { sgemm } = native();
    const [left, right, out] = [alignedCopy(a), alignedCopy(b), alignedFloats(m * n)];
    const run = () => sgemm(form[0] === "t", form[1] === "t", m, n, k, left, right, out, threads);
    return {
      name: loaded,
      backend: null,
      work: { "GFLOP/s": 2 * m * k * n },
      run,
      async result() {
        run();
        return [out.slice()];
      },
      ...(threads > 1 && { restMs: SPIN_MS }),
    };
  },
};
