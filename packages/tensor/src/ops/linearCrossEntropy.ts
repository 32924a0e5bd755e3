// Cross-entropy of a linear layer's softmax, in chunks of rows, so that the logits of a whole batch never exist. Built of the
// matrix product and the cross-entropy kernels: every backend that has those has it.
// Gradients of the sum are made in the forward pass, while a chunk's logits are there: three products of R V D, where making the
// logits again in backward would take four; backward only scales them. The weight's are summed over chunks in f32.
// Knows shapes, types and what is saved. Knows no loop over elements, no backend and no model.

import { BackendError, ShapeError } from "../errors.js";
import { sizeOf } from "../layout.js";
import { floats, needsFloat, needsI32, type OpSpec, sameDevice, sameType, statisticsType } from "../op.js";
import { expectShape } from "../routine.js";
import { keep, scope } from "../scope.js";
import { noGrad, record, records } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { linear, multiplyInto } from "./matmul.js";
import { type CrossEntropyOptions, IGNORE_INDEX, softmaxCrossEntropy } from "./softmaxCrossEntropy.js";

const op = "linearCrossEntropy";

/**
 * Logits that exist at a time. The fewer the chunks, the less often the weight's gradient is gone through: 2^27 are seven chunks of
 * 8 x 2048 rows over 50,288 classes.
 */
const MOST_LOGITS = 2 ** 27;

/** Chunks are multiples of so many rows, which suits the tiles of every matrix product. */
const ROWS = 128;

export interface LinearCrossEntropyOptions extends CrossEntropyOptions {
  /** Rows of hidden values whose logits exist at a time; by the size of the vocabulary by default. */
  readonly chunkRows?: number;
}

function defaultChunk(rows: number, classes: number): number {
  const chunks = Math.ceil((rows * classes) / MOST_LOGITS);
  return chunks <= 1 ? rows : Math.ceil(rows / chunks / ROWS) * ROWS;
}

function kernels(x: Tensor) {
  const { kernels, name } = x.device.backend;
  const { softmaxCrossEntropy: forward, softmaxCrossEntropyBackward: backward } = kernels;
  if (forward === undefined || backward === undefined) {
    throw new BackendError(`${op}: the backend ${name} has no kernel softmaxCrossEntropy.`);
  }
  return { forward: forward.bind(kernels), backward: backward.bind(kernels) };
}

/** What one pass over the rows gives: their losses, and, where they are wanted, the gradients of the sum of them. */
interface Pass {
  /** (R,) */
  readonly losses: Tensor;
  /** (R, D) */
  readonly dhidden: Tensor | undefined;
  /** (V, D), of the type of statistics. */
  readonly dweight: Tensor | undefined;
}

interface Wanted {
  readonly hidden: boolean;
  readonly weight: boolean;
}

function pass(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  wanted: Wanted,
  { ignoreIndex, chunkRows }: { readonly ignoreIndex: number; readonly chunkRows: number },
): Pass {
  const { device, dtype } = hidden;
  const rows = hidden.dim(0);
  const [classes] = weight.shape;
  const statistic = statisticsType(dtype);
  const losses = device.empty([rows], statistic);
  // Made where they are first written, so that they may have the memory of the first logits.
  let dhidden: Tensor | undefined;
  let dweight: Tensor | undefined;
  const { forward, backward } = kernels(hidden);
  try {
    for (let start = 0; start < rows; start += chunkRows) {
      const end = Math.min(rows, start + chunkRows);
      const part = (tensor: Tensor) => tensor.slice(0, start, end);
      scope(() => {
        const x = part(hidden);
        const logits = linear(x, weight);
        const logSumExp = device.empty([end - start], statistic);
        const inputs = { logits: logits.view(), targets: part(targets).view() };
        forward(inputs, { losses: part(losses).view(), logSumExp: logSumExp.view() }, { ignoreIndex });
        if (!wanted.hidden && !wanted.weight) return;
        const dlogits = device.empty([end - start, classes], dtype);
        const dlosses = device.ones([end - start], statistic);
        backward(
          { ...inputs, logSumExp: logSumExp.view(), dlosses: dlosses.view() },
          { dlogits: dlogits.view() },
          { ignoreIndex },
        );
        logits.dispose();
        if (wanted.hidden) {
          dhidden ??= keep(device.empty(hidden.shape, dtype));
          multiplyInto(dlogits, weight, part(dhidden));
        }
        if (wanted.weight) {
          dweight ??= keep(device.empty(weight.shape, statistic));
          multiplyInto(dlogits.transpose(), x, dweight, { accumulate: start > 0 });
        }
      });
    }
  } catch (error) {
    dhidden?.dispose();
    dweight?.dispose();
    throw error;
  }
  if (wanted.hidden) dhidden ??= device.empty(hidden.shape, dtype);
  if (wanted.weight) dweight ??= device.zeros(weight.shape, statistic);
  return { losses, dhidden, dweight };
}

/** A gradient of the sum, scaled by a () tensor of the type of statistics, as a tensor of type `like`. Uses up `gradient`. */
function scaled(gradient: Tensor, factor: Tensor, like: Pick<Tensor, "dtype" | "shape">): Tensor {
  const wide = gradient.cast(factor.dtype);
  wide.mulInPlace(factor);
  return wide.cast(like.dtype).reshape(...like.shape);
}

/**
 * hidden (..., D), weight (V, D), targets (...) i32 -> nats, f32: the cross-entropy of hidden weight^T.
 * With "none" under a tape, where each row has a gradient of its own, the logits are made whole.
 * @throws ShapeError, DTypeError; a target outside [0, V) is a ValueError on the reference, NaN on a device
 */
export function linearCrossEntropy(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  options: LinearCrossEntropyOptions = {},
): Tensor {
  const { ignoreIndex = IGNORE_INDEX, reduction = "mean" } = options;
  sameDevice(op, hidden, weight, targets);
  needsFloat(op, hidden, "hidden");
  sameType(op, hidden, weight);
  needsI32(op, targets, "the targets");
  if (hidden.rank < 1) throw new ShapeError(`${op}: hidden is a single number; it needs an axis of channels.`);
  expectShape(op, "weight", weight, [undefined, hidden.dim(-1)]);
  expectShape(op, "targets", targets, hidden.shape.slice(0, -1));
  if (reduction === "none" && records([hidden, weight])) {
    return softmaxCrossEntropy(linear(hidden, weight), targets, { ignoreIndex, reduction });
  }
  const rows = sizeOf(targets.shape);
  const { chunkRows = defaultChunk(rows, weight.dim(0)) } = options;
  if (!(Number.isInteger(chunkRows) && (chunkRows >= 1 || rows === 0))) {
    throw new ShapeError(`${op}: chunkRows ${chunkRows} is no number of rows.`);
  }
  const wanted = { hidden: records([hidden]), weight: records([weight]) };
  const [flat, at] = noGrad(() => [hidden.reshape(rows, hidden.dim(-1)), targets.contiguous().reshape(rows)]);
  const { losses, dhidden, dweight } = noGrad(() => pass(flat, weight, at, wanted, { ignoreIndex, chunkRows }));
  if (reduction === "none") return losses.reshape(...targets.shape);
  const [loss, count] = noGrad(() => {
    const total = losses.sum();
    if (reduction === "sum") return [total, undefined];
    const counted = targets.equal(ignoreIndex).cast(losses.dtype).sum().neg().add(targets.size).maximum(1);
    return [total.div(counted), counted];
  });
  const gradients = [dhidden, dweight].filter((x) => x !== undefined);
  record({
    name: op,
    inputs: [hidden, weight],
    outputs: [loss],
    save: [...gradients, ...(count ? [count] : [])],
    backward: ([dloss], saved) => {
      if (dloss === undefined) return [];
      const factor = count ? dloss.div(saved[saved.length - 1]) : dloss;
      return [dhidden && scaled(saved[0], factor, hidden), dweight && scaled(saved[dhidden ? 1 : 0], factor, weight)];
    },
  });
  for (const gradient of gradients) gradient.dispose();
  losses.dispose();
  return loss;
}

export const specs: readonly OpSpec[] = [
  {
    name: op,
    kind: "routine",
    dtypes: floats,
    accumulates: "f32",
    gradients: ["hidden", "weight"],
    saves: "the gradients of the sum, made in forward; recomputes nothing",
  },
];
