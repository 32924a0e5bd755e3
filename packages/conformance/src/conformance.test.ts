import { reference } from "@diffmamba/tensor";
import { afterAll, describe, it } from "vitest";
import { describeConformance } from "./suite.js";

const runner = { describe, it, afterAll };

// Memory is handed out full of NaN, so that nothing unwritten passes for a zero.
const poisoned = () => reference({ poison: true });

// In f64 the reference is compared with itself: what is left are bits, leaks, unwritten memory, properties and gradients.
describeConformance(runner, "the reference in f64", poisoned(), { dtypes: ["f64"] });
describeConformance(runner, "the reference in f32, bf16, f16 and integers", poisoned(), {
  dtypes: ["f32", "bf16", "f16", "i32", "u8"],
  filter: ({ suite }) => suite !== "coverage",
});
