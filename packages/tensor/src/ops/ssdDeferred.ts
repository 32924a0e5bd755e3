// A token of the Mamba-2 scan that does not write the state: the last tokens are kept beside a state of some tokens ago, y is made of
// both, and every K-th token takes them all into the state. With many rows a token then moves about half of the bytes, and a state of
// 16 bits is rounded once in K tokens. Another way to compute `ssdScan`, token by token.
// Knows shapes, types and options. Knows no loop, no backend and no layer.

import type { Device } from "../device.js";
import { type DType, isHalf } from "../dtype.js";
import { BackendError, DTypeError, LifetimeError, ShapeError } from "../errors.js";
import { rowPitch } from "../layout.js";
import { needsFloat, needsI32, sameDevice, sameType, statisticsType } from "../op.js";
import { expectShape } from "../routine.js";
import type { SsdShape } from "../routineKernels.js";
import { scope } from "../scope.js";
import { noGrad } from "../tape.js";
import type { Tensor } from "../tensor.js";
import type { SsdInputs, SsdOptions } from "./ssdScan.js";

/** Tokens that a state has not taken in. */
export interface KeptTokens {
  /** (B, K, H, P), of the type of the tokens. */
  readonly x: Tensor;
  /** (B, K, G, N), of the type of the tokens. */
  readonly B: Tensor;
  /** (B, K, H) f32 (f64 in f64): dt after bias, softplus and limits. */
  readonly steps: Tensor;
  /**
   * () i32: tokens since the state was whole last; of the K places the first `count` modulo K are filled. Whoever calls adds 1 after
   * each token, and sets it to 0 after {@link ssdSettle}. Several states may share it.
   */
  readonly count: Tensor;
}

/** Places for `kept` tokens of `dtype`, nothing in them, owned by the caller. `count` stays the caller's. */
export function keptTokens(
  { batch, heads, headDim, groups, dState }: SsdShape,
  kept: number,
  dtype: DType,
  count: Tensor,
): KeptTokens {
  const { device } = count;
  return {
    x: device.empty([batch, kept, heads, headDim], dtype),
    B: device.empty([batch, kept, groups, dState], dtype),
    steps: device.empty([batch, kept, heads], statisticsType(dtype)),
    count,
  };
}

function kernelsOf({ backend }: Device) {
  const { ssdDeferred, ssdSettle } = backend.kernels;
  if (ssdDeferred && ssdSettle) return { ssdDeferred, ssdSettle };
  throw new BackendError(`ssdDeferred: the backend ${backend.name} has no such kernel.`);
}

/** @throws ShapeError, DTypeError, LifetimeError */
function checkKept(op: string, state: Tensor, A: Tensor, kept: KeptTokens): void {
  const { x, B, steps, count } = kept;
  sameDevice(op, state, A, x, B, steps, count);
  expectShape(op, "the state", state, [undefined, undefined, undefined, undefined]);
  const [batch, heads, headDim, dState] = state.shape;
  const places = x.shape[1];
  expectShape(op, "the kept x", x, [batch, undefined, heads, headDim]);
  expectShape(op, "the kept B", B, [batch, places, undefined, dState]);
  expectShape(op, "the kept steps", steps, [batch, places, heads]);
  expectShape(op, "the count", count, []);
  expectShape(op, "A", A, [heads]);
  needsFloat(op, x, "the kept x");
  sameType(op, x, B);
  needsI32(op, count, "the count");
  const wanted = statisticsType(x.dtype);
  for (const [name, tensor] of Object.entries({ "the kept steps": steps, A, "the state": state })) {
    if (tensor.dtype === wanted || (tensor === state && isHalf(state.dtype))) continue;
    throw new DTypeError(`${op}: ${name} are of ${tensor.dtype}; with tokens of ${x.dtype} they must be of ${wanted}.`);
  }
  if (places === 0) throw new ShapeError(`${op}: there are no places to keep tokens in; give at least one.`);
  if ([state, A, x, B, steps].every((tensor) => tensor.isContiguous())) return;
  throw new LifetimeError(`${op}: the state, A and what is kept must be contiguous: they are changed in place.`);
}

/**
 * A single token: inputs as those of `ssdScan`, with L = 1 and a state, -> y (B, 1, H, P). The token is kept, or, where it is the K-th,
 * taken into the state with those that are kept. Outside a tape.
 * @throws ShapeError, DTypeError; BackendError where the backend has no such kernel, or none of this shape (`Backend.keepsTokens`)
 */
export function ssdDeferred(
  inputs: SsdInputs & { readonly initialState: Tensor },
  kept: KeptTokens,
  { dtSoftplus = true, dtLimit = [0, Number.POSITIVE_INFINITY], seqIdx, lengths }: Omit<SsdOptions, "chunkSize"> = {},
): Tensor {
  const op = "ssdDeferred";
  const { x, dt, A, B, C, D, z, dtBias, initialState } = inputs;
  const { device, dtype } = x;
  const { ssdDeferred: kernel } = kernelsOf(device);
  if (seqIdx !== undefined || lengths !== undefined) {
    throw new ShapeError(`${op}: every row has one token here; seqIdx and lengths are for ssdScan.`);
  }
  if (!(dtLimit[0] <= dtLimit[1])) throw new ShapeError(`${op}: dtLimit [${dtLimit.join(", ")}] is no range.`);
  checkKept(op, initialState, A, kept);
  const [batch, heads, headDim, dState] = initialState.shape;
  const groups = kept.B.shape[2];
  if (heads % groups !== 0) throw new ShapeError(`${op}: ${heads} heads do not divide into the ${groups} groups of B.`);
  expectShape(op, "x", x, [batch, 1, heads, headDim]);
  expectShape(op, "dt", dt, [batch, 1, heads]);
  expectShape(op, "B", B, [batch, 1, groups, dState]);
  expectShape(op, "C", C, B.shape);
  expectShape(op, "D", D, D?.rank === 2 ? [heads, headDim] : [heads]);
  expectShape(op, "z", z, x.shape);
  expectShape(op, "dtBias", dtBias, [heads]);
  sameDevice(op, x, kept.x, dt, B, C, D, z, dtBias);
  for (const other of [kept.x, dt, B, C, z]) if (other) sameType(op, x, other);
  for (const other of [D, dtBias]) if (other) sameType(op, A, other);
  const y = device.empty(x.shape, dtype);
  if (y.size === 0) return y;
  noGrad(() =>
    scope(() => {
      /** As the kernel takes it: rows of one pitch, or contiguous altogether where there are none. */
      const seen = (tensor: Tensor, inner = tensor.rank) =>
        (rowPitch(tensor, inner) === undefined ? tensor.contiguous() : tensor).view();
      const rows = { x: seen(x, 2), dt: seen(dt, 1), B: seen(B, 2), C: seen(C, 2), ...(z && { z: seen(z, 2) }) };
      const whole = { A: A.view(), ...(D && { D: seen(D) }), ...(dtBias && { dtBias: seen(dtBias) }) };
      kernel({ ...rows, ...whole, ...viewsOf(initialState, kept) }, { y: y.view() }, { dtSoftplus, dtLimit });
    }),
  );
  for (const tensor of [initialState, kept.x, kept.B, kept.steps]) tensor.storage.version++;
  return y;
}

/**
 * Takes the tokens that are kept beside it into the state (B, H, P, N), in place; A (H,) is the scan's. The count is then to be set to 0.
 * @throws ShapeError, DTypeError; BackendError as {@link ssdDeferred}
 */
export function ssdSettle(state: Tensor, A: Tensor, kept: KeptTokens): void {
  const { ssdSettle: kernel } = kernelsOf(state.device);
  checkKept("ssdSettle", state, A, kept);
  if (state.size === 0) return;
  kernel({ A: A.view(), ...viewsOf(state, kept) });
  state.storage.version++;
}

function viewsOf(state: Tensor, { x, B, steps, count }: KeptTokens) {
  return {
    initialState: state.view(),
    keptX: x.view(),
    keptB: B.view(),
    keptSteps: steps.view(),
    count: count.view(),
  };
}
