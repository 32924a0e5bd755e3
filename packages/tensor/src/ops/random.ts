// Random ops on the device: masks for dropout, and raw words. Counter-based, so a mask is the same on every backend.
// Knows keys and thresholds. Knows no generator: that is the kernel's.

import { streamKey } from "@diffmamba/random";
import type { Device } from "../device.js";
import { ShapeError, ValueError } from "../errors.js";
import { needsFloat, needsI32, type OpSpec } from "../op.js";
import type { Tensor } from "../tensor.js";

/** Which random numbers: a seed, the name of their use, and the step, a () i32 tensor, so that a replay can change it. */
export interface RandomSource {
  readonly seed: number;
  readonly stream: string;
  readonly step: Tensor;
}

function checkStep(step: Tensor): void {
  needsI32("random", step, "the step");
  if (step.size !== 1) throw new ShapeError("random: the step must be a single number.");
}

/** u8, 1 with probability `probability`: where the random u32 is at least (1 - probability) 2^32. */
export function randomMask(shape: readonly number[], probability: number, source: RandomSource): Tensor {
  if (!(probability >= 0 && probability <= 1)) throw new ValueError(`randomMask: ${probability} is no probability.`);
  checkStep(source.step);
  const out = source.step.device.empty(shape, "u8");
  const threshold = Math.round((1 - probability) * 2 ** 32);
  if (threshold === 2 ** 32) out.fillInPlace(0);
  else if (out.size > 0) {
    const key = streamKey(source.seed, source.stream);
    out.device.backend.kernels.random(out.view(), source.step.view(), { kind: "keep", key, threshold });
  }
  return out;
}

/** i32 random words. */
export function randomBits(device: Device, shape: readonly number[], source: RandomSource): Tensor {
  checkStep(source.step);
  const out = device.empty(shape, "i32");
  const key = streamKey(source.seed, source.stream);
  if (out.size > 0) device.backend.kernels.random(out.view(), source.step.view(), { kind: "bits", key });
  return out;
}

/** Each element is 0 with probability `p`, else multiplied by 1 / (1 - p) (Srivastava et al. 2014). */
export function dropout(x: Tensor, p: number, source: RandomSource): Tensor {
  needsFloat("dropout", x);
  if (!(p >= 0 && p < 1)) throw new ValueError(`dropout: ${p} is no rate; it must be at least 0 and below 1.`);
  if (p === 0) return x;
  const mask = randomMask(x.shape, 1 - p, source);
  return mask.where(x.mul(1 / (1 - p)), x.device.zeros([], x.dtype));
}

export const specs: readonly OpSpec[] = [
  { name: "random", kind: "primitive", dtypes: ["i32", "u8"], accumulates: "none", gradients: [], saves: "nothing" },
];
