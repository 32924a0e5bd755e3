// For tests: which tests of the conformance suite run on a driver that computes on the processor, where each shader takes long to
// compile. Every op in every type. In f32 and whole numbers every case and property but one, and but for functions of one and two arguments, which
// share all but a formula: one of each kind has all its layouts, the others their first case and those about numbers. In half
// precision, where most kernels widen their arguments and do the same, one case an op, and all cases of those that take it as it is.
// On a GPU, and by `bench check --backend webgpu`, all run.

import type { ConformanceTest } from "@diffmamba/conformance";

/** Ops whose kernels read or write half precision themselves. */
const native = new Set(["copy", "where", "gather", "adamw", "addRmsNorm"]);

/** Ops that have their layouts from the frame of add, exp and lt. */
const alike = new Set([
  ...[
    "neg",
    "abs",
    "sign",
    "log",
    "sqrt",
    "rsqrt",
    "square",
    "reciprocal",
    "sigmoid",
    "tanh",
    "softplus",
    "silu",
    "erf",
  ],
  ...["sub", "mul", "div", "max", "min", "pow", "eq", "le"],
]);

/** Cases that are about numbers, not layouts. */
const aboutNumbers = /far from 0|integers|fractions|infinit|NaN|zeros|ties|edges|negative/;

/** A filter for one run of the suite: it remembers what it has seen. */
export function chosen(fallback: boolean): (test: ConformanceTest) => boolean {
  const seen = new Set<string>();
  const first = (kind: string): boolean => {
    const isFirst = !seen.has(kind);
    seen.add(kind);
    return isFirst;
  };
  return ({ suite, name, op = "" }) => {
    if (!fallback) return true;
    // A minute, for several blocks of heads and of states.
    if (name.startsWith("ssdScan: large")) return false;
    const half = /, (bf16|f16)$/.exec(name)?.[1];
    if (half !== undefined && !native.has(op)) return suite !== "properties" && first(`${op} ${half}`);
    return !alike.has(op) || aboutNumbers.test(name) || first(op);
  };
}
