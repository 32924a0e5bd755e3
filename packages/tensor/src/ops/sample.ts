// Drawing a token from each row of logits on the device, so that a step of decoding can be replayed without the host.
// Knows shapes, types and options. Knows no generator, no model and no text.

import { BackendError, ShapeError, ValueError } from "../errors.js";
import { floats, needsFloat, needsI32, type OpSpec, sameDevice, statisticsType } from "../op.js";
import { expectShape } from "../routine.js";
import type { SampleOptions as KernelOptions } from "../routineKernels.js";
import type { Tensor } from "../tensor.js";

export type SampleOptions = Partial<KernelOptions>;

/** @throws ValueError naming the option */
function checkOptions({ temperature, topK, topP, minP }: KernelOptions): void {
  const wrong = (name: string, value: number, wanted: string): never => {
    throw new ValueError(`sample: ${name} is ${value}; it must be ${wanted}.`);
  };
  if (!(temperature >= 0 && Number.isFinite(temperature))) wrong("temperature", temperature, "a number of at least 0");
  if (!(Number.isInteger(topK) && topK >= 0)) wrong("topK", topK, "a whole number of at least 0");
  if (!(topP > 0 && topP <= 1)) wrong("topP", topP, "above 0 and at most 1");
  if (!(minP >= 0 && minP <= 1)) wrong("minP", minP, "from 0 to 1");
}

/**
 * logits (R, V), keys (R, 2) i32 (a row's Philox key, of `streamKey`), positions (R,) i32 -> tokens (R,) i32 and the natural
 * logarithm of each one's probability, by the logits as they are. What a row draws depends on its key, its position and its
 * logits alone. A row that nothing can be drawn from gives -1. Defaults: temperature 1, topK 0, topP 1, minP 0 (all tokens).
 * @throws ShapeError, DTypeError, ValueError
 */
export function sample(
  logits: Tensor,
  keys: Tensor,
  positions: Tensor,
  options: SampleOptions = {},
): { readonly tokens: Tensor; readonly logprobs: Tensor } {
  sameDevice("sample", logits, keys, positions);
  needsFloat("sample", logits, "the logits");
  needsI32("sample", keys, "the keys");
  needsI32("sample", positions, "the positions");
  expectShape("sample", "logits", logits, [undefined, undefined]);
  const [rows, classes] = logits.shape;
  expectShape("sample", "keys", keys, [rows, 2]);
  expectShape("sample", "positions", positions, [rows]);
  if (classes === 0) throw new ShapeError("sample: the logits have no classes.");
  const all = { temperature: 1, topK: 0, topP: 1, minP: 0, ...options };
  checkOptions(all);
  const { device } = logits;
  const { kernels, name } = device.backend;
  if (kernels.sample === undefined) throw new BackendError(`sample: the backend ${name} has no such kernel.`);
  const tokens = device.empty([rows], "i32");
  const logprobs = device.empty([rows], statisticsType(logits.dtype));
  const whole = [logits, keys, positions].map((x) => x.contiguous());
  if (rows > 0) {
    kernels.sample(
      { logits: whole[0].view(), keys: whole[1].view(), positions: whole[2].view() },
      { tokens: tokens.view(), logprobs: logprobs.view() },
      all,
    );
  }
  for (const [i, x] of [logits, keys, positions].entries()) if (whole[i] !== x) whole[i].dispose();
  return { tokens, logprobs };
}

export const specs: readonly OpSpec[] = [
  { name: "sample", kind: "routine", dtypes: floats, accumulates: "f32", gradients: [], saves: "nothing" },
];
