// Layer: CUDA kernels. Tokens of the Mamba-2 scan that are kept beside the state: how a row's channels are cut into blocks, and the launches.
// Knows native/kernels/ssd_deferred.cuh and ssd_kept.cuh. Knows no formula.

import {
  type Backend,
  BackendError,
  type DType,
  isHalf,
  type Kernels,
  rowPitch,
  type SsdKept,
  type SsdShape,
  type View,
} from "@diffmamba/tensor";
import { type Argument, f32, i32, isAligned, type KernelContext, pointer } from "../context.js";
import { elementwiseKernels } from "./elementwise.js";
import { typesOf } from "./rows.js";

/** Tokens that are kept: kMostKept of native/kernels/ssd_deferred.cuh. */
const KEPT = 16;
/** Rows from which on tokens are kept: up to 8 the weights are most of what a token moves. */
const LEAST_ROWS = 9;
/** Sizes of the state that there are kernels for. */
const STATES = [64, 128];
/** Channels of a block at most; each eight of its lanes have two. */
export const DEFERRED_CHANNELS = 64;
const THREADS_PER_CHANNEL = 4;
/** Threads of such a block. */
export const DEFERRED_THREADS = DEFERRED_CHANNELS * THREADS_PER_CHANNEL;
/** Threads that a multiprocessor has at once, about. */
const RESIDENT_THREADS = 1024;

/** Channels of a block, and of each of its warps, that takes its products to tensor cores: native/kernels/ssd_kept.cuh. */
const KEPT_CHANNELS = 128;
const WARP_CHANNELS = 32;
/** Such blocks to a multiprocessor that begin long before the product before them has ended, about: more find room, but begin late. */
const BESIDE = 2;

/** Channels that a block takes: heads of one group, or a part of one head. Undefined where the kernel does not take the sizes. */
function channelsOf({ heads, headDim, groups, dState }: SsdShape): number | undefined {
  const ofGroup = (heads / groups) * headDim;
  for (let channels = STATES.includes(dState) ? DEFERRED_CHANNELS : 0; channels > 0; channels -= 8) {
    const fits = headDim % channels === 0 || (channels % headDim === 0 && headDim % 8 === 0);
    if (fits && ofGroup % channels === 0) return channels;
  }
  return undefined;
}

/** Whether tensor cores make the products: tokens and states of one type of 16 bits, and whole blocks of a group. */
function hasProducts({ heads, headDim, groups, dState }: SsdShape, dtype: DType, stateDType: DType): boolean {
  const whole = headDim % WARP_CHANNELS === 0 && ((heads / groups) * headDim) % KEPT_CHANNELS === 0;
  return whole && STATES.includes(dState) && isHalf(dtype) && dtype === stateDType;
}

/**
 * How many tokens are kept beside states of these sizes; 0 where each is taken in at once. Without tensor cores what is kept takes as long as
 * the bytes that it saves.
 */
export const keepsTokens: NonNullable<Backend["keepsTokens"]> = (shape, { dtype, stateDType }) =>
  shape.batch >= LEAST_ROWS && hasProducts(shape, dtype, stateDType) ? KEPT : 0;

/** @throws BackendError where the kernel does not take the sizes */
function launchOf(context: KernelContext, op: "ssd_deferred" | "ssd_settle", { initialState, keptX, keptB }: SsdKept) {
  const [batch, heads, headDim, dState] = initialState.shape;
  const [, kept, groups] = keptB.shape;
  const channels = channelsOf({ batch, heads, headDim, groups, dState });
  const isAnywhere = ![initialState, keptX, keptB].every((view) => isAligned(view, 16));
  if (channels === undefined || kept > KEPT || isAnywhere) {
    const found = `${kept} tokens beside states of ${heads} heads of ${headDim}, ${groups} groups and N ${dState}`;
    throw new BackendError(
      `cuda: ssdDeferred has no kernel for ${found}; it takes up to ${KEPT}, N of ${STATES.join(" or ")}, heads of multiples of 8, and ` +
        "memory that begins at a multiple of 16 bytes.",
    );
  }
  const block = channels * THREADS_PER_CHANNEL;
  const ahead = context.device.multiprocessors * Math.floor(RESIDENT_THREADS / block);
  return {
    kernel: `${op}_${typesOf(keptX, initialState)}_${dState}`,
    grid: [(heads * headDim) / channels, batch] as const,
    block,
    overlap: true,
    sizes: [heads, headDim, groups, kept].map(i32),
    last: [ahead, dState].map(i32),
  };
}

const keptArguments = ({ initialState, keptX, keptB, keptSteps, count }: SsdKept): Argument[] =>
  [initialState, keptX, keptB, keptSteps, count].map(pointer);

const pitch = (view: View | undefined, inner: number): Argument =>
  i32(view === undefined ? 0 : (rowPitch(view, inner) ?? 0));

export const ssdDeferredKernels = (context: KernelContext): Pick<Kernels, "ssdDeferred" | "ssdSettle"> => {
  /** Rows that are read in vectors, copied where they do not begin at multiples of 16 bytes. */
  const aligned = (view: View): View => {
    if (isAligned(view, 16, rowPitch(view, 2) ?? 1)) return view;
    const whole = context.temporary(view.shape, view.dtype);
    elementwiseKernels(context).copy(view, whole);
    return whole;
  };
  return {
    ssdDeferred: (inputs, { y }, { dtSoftplus, dtLimit }) => {
      const { x, dt, A, D, z, dtBias } = inputs;
      const { sizes, last, ...launch } = launchOf(context, "ssd_deferred", inputs);
      const [B, C] = [aligned(inputs.B), aligned(inputs.C)];
      const { dtype, shape } = inputs.initialState;
      const [batch, heads, headDim, dState] = shape;
      const [, , groups] = inputs.keptB.shape;
      const products = hasProducts({ batch, heads, headDim, groups, dState }, x.dtype, dtype) && {
        kernel: `ssd_kept_${dtype}_${dState}`,
        grid: [(heads * headDim) / KEPT_CHANNELS, batch] as const,
        block: (32 * KEPT_CHANNELS) / WARP_CHANNELS,
        beside: true,
      };
      const read = [inputs.initialState, inputs.keptX, inputs.keptB, inputs.keptSteps, A, D, dtBias];
      const untouched = read.every((view) => view === undefined || context.isUntouched(view));
      context.launch({
        ...launch,
        ...products,
        args: [
          ...[x, dt, A, B, C, z, D, dtBias].map(pointer),
          ...keptArguments(inputs),
          pointer(y),
          ...[pitch(x, 2), pitch(dt, 1), pitch(B, 2), pitch(C, 2), pitch(z, 2), pitch(y, 2)],
          ...sizes,
          i32(D?.shape.length === 2),
          i32(dtSoftplus),
          f32(dtLimit[0]),
          f32(dtLimit[1]),
          ...last,
          i32(untouched ? BESIDE * context.device.multiprocessors : 0),
          i32(0),
        ],
      });
    },

    ssdSettle: (inputs) => {
      const { sizes, last, ...launch } = launchOf(context, "ssd_settle", inputs);
      const absent = (count: number) => Array.from({ length: count }, () => pointer(undefined));
      const zeros = (count: number) => Array.from({ length: count }, () => i32(0));
      context.launch({
        ...launch,
        args: [
          ...absent(2),
          pointer(inputs.A),
          ...absent(5),
          ...keptArguments(inputs),
          ...absent(1),
          ...zeros(6),
          ...sizes,
          ...zeros(4),
          ...last,
          ...zeros(2),
        ],
      });
    },
  };
};
