// For tests: which tests of the conformance suite run on a driver that computes on the processor, where each shader takes long to
// compile. Every op, every case and every property in f32 and in whole numbers; in half precision, where most kernels widen their
// arguments and do the same, one case an op, and all cases of those that take it as it is. On a GPU, and by
// `bench check --backend webgpu`, all run.

import type { ConformanceTest } from "@diffmamba/conformance";

/** Ops whose kernels read or write half precision themselves. */
const native = new Set(["copy", "where", "gather", "adamw", "addRmsNorm"]);

/** A filter for one run of the suite: it remembers what it has seen. */
export function chosen(fallback: boolean): (test: ConformanceTest) => boolean {
  const seen = new Set<string>();
  return ({ suite, name, op = "" }) => {
    const half = /, (bf16|f16)$/.exec(name)?.[1];
    if (!fallback || half === undefined || native.has(op)) return true;
    if (suite === "properties") return false;
    const kind = `${op} ${half}`;
    if (seen.has(kind)) return false;
    seen.add(kind);
    return true;
  };
}
