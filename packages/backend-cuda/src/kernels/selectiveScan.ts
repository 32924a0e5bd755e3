// Layer: CUDA kernels. The selective scan and its gradient: which kernels run, in which order, and over which memory.
// Knows native/kernels/selective_scan*. Knows no formula.

import {
  BackendError,
  bytesPerElement,
  type Kernels,
  rowPitch,
  type SelectiveScanInputs,
  type SelectiveScanOptions,
  type View,
} from "@diffmamba/tensor";
import { type Argument, i32, ints, isAligned, type KernelContext, pointer } from "../context.js";
import { typesOf } from "./rows.js";

/** kScanChannels and kScanThreads. */
const CHANNELS = 32;
const THREADS = 128;
/** Tokens of a tile of the forward pass: kTokens. */
const TOKENS = 32;
/** Floats of dB, and of dC, in a tile of the backward pass. */
const SHARED_FLOATS = 256;
/** Up to so many tokens are taken one after the other, without tiles. */
const STEP_TOKENS = 8;
/** Rows of which a token's scan gives each a warp of its own for eight channels. */
const FEW_ROWS = 8;
/** kScanRows of native/kernels/selective_scan_rows.cu. */
const STEP_ROWS = 4;
/** The state sizes that there are kernels for, filled up. */
const STATES = [16, 64, 256];

export interface ScanPlan {
  /** N, filled up. */
  readonly padded: number;
  /** Tokens of a tile of the backward pass, kScanBack, and such tiles in a chunk and in all. */
  readonly back: number;
  readonly perChunk: number;
  readonly tiles: number;
  readonly chunks: number;
  readonly blocks: number;
  readonly forwardShared: number;
  readonly backwardShared: number;
  /** The structure ScanSizes. */
  readonly sizes: readonly number[];
}

/** @throws BackendError where a state is larger than the kernels are made for */
export function scanPlan({ u, A, B }: Pick<SelectiveScanInputs, "u" | "A" | "B">, chunkSize: number): ScanPlan {
  const [, length, channels] = u.shape;
  const dState = A.shape[1];
  const groups = B.shape[2];
  const padded = STATES.find((size) => size >= dState);
  if (padded === undefined) {
    throw new BackendError(
      `cuda: selectiveScan: A has ${dState} states a channel; there are kernels for up to ${STATES[STATES.length - 1]}.`,
    );
  }
  const back = SHARED_FLOATS / padded;
  const chunks = Math.ceil(length / chunkSize);
  const perChunk = Math.ceil(Math.min(chunkSize, length) / back);
  const blocksPerGroup = Math.ceil(channels / groups / CHANNELS);
  return {
    padded,
    back,
    perChunk,
    tiles: chunks * perChunk,
    chunks,
    blocks: blocksPerGroup * groups,
    // sizeof(ScanForwardShared) and sizeof(ScanBackwardShared)
    forwardShared: 4 * TOKENS * (2 * (CHANNELS + 2) + 2 * padded + CHANNELS + 4),
    backwardShared:
      4 * back * (padded * CHANNELS + 2 * (2 * (CHANNELS + 2) + 2 * (CHANNELS + 4) + 2 * padded) + 3 * (CHANNELS + 4)) +
      4 * (8 * SHARED_FLOATS + 2 * CHANNELS),
    sizes: [length, channels, dState, groups, blocksPerGroup, chunkSize, chunks],
  };
}

/** Elements from a token's row to the next one's; 0 for a view that is absent. */
function pitchOf(name: string, view: View | undefined, inner = 1): Argument {
  if (view === undefined) return i32(0);
  const pitch = rowPitch(view, inner);
  if (pitch === undefined) {
    throw new BackendError(`cuda: selectiveScan: ${name} has no rows of one pitch; make it contiguous.`);
  }
  return i32(pitch);
}

/** Whether all rows of these views, and all groups in them, begin at multiples of 16 bytes. */
function isVectorized({ u, A, B, C }: SelectiveScanInputs, views: readonly (View | undefined)[]): boolean {
  const size = bytesPerElement[u.dtype];
  const groups = B.shape[2];
  const parts = groups === 1 || (((u.shape[2] / groups) * size) % 16 === 0 && (A.shape[1] * size) % 16 === 0);
  const rows = [u, ...views].every((view) => view === undefined || isAligned(view, 16, rowPitch(view, 1) ?? 1));
  return parts && rows && [B, C].every((view) => isAligned(view, 16, rowPitch(view, 2) ?? 1));
}

/** Whether it is a token of so many rows that a warp takes several: a state of 16, whole vectors, and nothing out of the ordinary. */
function takesRows(inputs: SelectiveScanInputs, { y, finalState, states }: ForwardViews): boolean {
  const { u, delta, A, z, initialState, seqIdx, lengths } = inputs;
  const [batch, length] = u.shape;
  const plain = length === 1 && A.shape[1] === 16 && batch > FEW_ROWS && !seqIdx && !lengths && !states;
  const aligned = [A, initialState, finalState].every((view) => view === undefined || isAligned(view, 16));
  return plain && aligned && isVectorized(inputs, [delta, z, y]);
}

interface ForwardViews {
  readonly z?: View;
  readonly initialState?: View;
  /** States that enter the chunks: each chunk is then a block of its own. */
  readonly start?: View;
  readonly y?: View;
  readonly states?: View;
  readonly fine?: View;
  readonly finalState?: View;
}

function launchForward(
  context: KernelContext,
  kernel: "selective_scan" | "selective_scan_step" | "selective_scan_rows",
  plan: ScanPlan,
  inputs: SelectiveScanInputs,
  { deltaSoftplus }: SelectiveScanOptions,
  { z, initialState, start, y, states, fine, finalState }: ForwardViews,
): void {
  const { u, delta, A, B, C, D, deltaBias, seqIdx, lengths } = inputs;
  const step = kernel !== "selective_scan";
  const types = step && finalState ? typesOf(u, finalState) : u.dtype;
  const [batch] = u.shape;
  const several = kernel === "selective_scan_rows";
  context.launch({
    kernel: several ? `${kernel}_${types}` : `${kernel}_${types}_${plan.padded}`,
    grid: [plan.blocks, several ? Math.ceil(batch / STEP_ROWS) : batch, start ? plan.chunks : 1],
    block: THREADS,
    shared: step ? 0 : plan.forwardShared,
    overlap: step,
    args: [
      ...[u, delta, A, B, C, z, D, deltaBias, initialState, seqIdx, lengths, start].map(pointer),
      ...[y, states, fine, finalState].map(pointer),
      ...[pitchOf("u", u), pitchOf("delta", delta), pitchOf("B", B, 2), pitchOf("C", C, 2)],
      ...[pitchOf("z", z), pitchOf("y", y), ints(plan.sizes), i32(deltaSoftplus)],
      ...[i32(isVectorized(inputs, [delta, z, y])), i32(plan.perChunk)],
      ...(several ? [i32(batch)] : []),
    ],
  });
}

export const selectiveScanKernels = (
  context: KernelContext,
): Pick<Kernels, "selectiveScan" | "selectiveScanBackward"> => ({
  selectiveScan: (inputs, { y, finalState, states }, options) => {
    const { u, z, initialState } = inputs;
    const plan = scanPlan(inputs, options.chunkSize);
    const length = u.shape[1];
    if (length > 0 && length <= STEP_TOKENS) {
      const kernel = takesRows(inputs, { y, finalState, states }) ? "selective_scan_rows" : "selective_scan_step";
      launchForward(context, kernel, plan, inputs, options, { z, initialState, y, states, finalState });
    } else if (states && options.chunkSize === plan.back) {
      // All chunks as one, and its states as often as the backward pass wants them: larger tiles.
      const whole = scanPlan(inputs, Math.max(1, plan.chunks) * plan.back);
      launchForward(context, "selective_scan", whole, inputs, options, {
        z,
        initialState,
        y,
        fine: states,
        finalState,
      });
    } else {
      launchForward(context, "selective_scan", plan, inputs, options, { z, initialState, y, states, finalState });
    }
  },

  selectiveScanBackward: (inputs, outputs, options) => {
    const { u, delta, A, B, C, D, z, deltaBias, seqIdx, lengths, states, dy, dfinalState } = inputs;
    const { du, ddelta, dA, dB, dC, dD, dz, ddeltaBias, dinitialState } = outputs;
    const plan = scanPlan(inputs, options.chunkSize);
    const [batch, , channels] = u.shape;
    const dState = A.shape[1];
    const several = plan.perChunk > 1;
    const fine = several ? context.temporary([batch, plan.tiles, channels, dState], "f32") : undefined;
    if (fine) launchForward(context, "selective_scan", plan, inputs, options, { start: states, fine });

    const partial = dB || dC ? context.temporary([batch, plan.tiles, plan.blocks, 2, SHARED_FLOATS], "f32") : undefined;
    const dARows = dA && context.temporary([batch, channels, dState], "f32");
    const byRow = dD || ddeltaBias ? context.temporary([2, batch, channels], "f32") : undefined;
    context.launch({
      kernel: `selective_scan_backward_${u.dtype}_${plan.padded}`,
      grid: [plan.blocks, batch],
      block: THREADS,
      shared: plan.backwardShared,
      args: [
        ...[u, delta, A, B, C, z, D, deltaBias, seqIdx, lengths, fine ?? states, dy, dfinalState].map(pointer),
        ...[du, ddelta, dz, partial, dinitialState, dARows, byRow].map(pointer),
        ...[pitchOf("u", u), pitchOf("delta", delta), pitchOf("B", B, 2), pitchOf("C", C, 2), pitchOf("z", z)],
        ...[pitchOf("dy", dy), pitchOf("du", du), pitchOf("ddelta", ddelta), pitchOf("dz", dz)],
        ...[ints(plan.sizes), i32(options.deltaSoftplus)],
        ...[i32(isVectorized(inputs, [delta, z, dy, du, ddelta, dz])), i32(plan.perChunk)],
        // The structure's size is a multiple of 8 bytes.
        i32(0),
      ],
    });
    if (partial) {
      context.launch({
        kernel: `selective_scan_shared_${u.dtype}_${plan.padded}`,
        grid: [plan.tiles, B.shape[2], batch],
        block: 128,
        args: [
          ...[partial, dB, dC, lengths].map(pointer),
          ...[pitchOf("dB", dB, 2), pitchOf("dC", dC, 2), ints(plan.sizes), i32(plan.perChunk)],
        ],
      });
    }
    if (!dARows && !byRow) return;
    context.launch({
      kernel: "selective_scan_rows",
      grid: Math.ceil((channels * dState) / 256),
      block: 256,
      args: [...[dARows, byRow, dA, dD, ddeltaBias].map(pointer), ...[i32(batch), i32(channels), i32(dState)]],
    });
  },
});
