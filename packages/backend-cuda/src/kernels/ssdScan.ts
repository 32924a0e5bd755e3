// Layer: CUDA kernels. The Mamba-2 scan and its gradient: what runs, in which order, and over which memory.
// Knows native/kernels/ssd*.cu and the plan (ssdPlan.ts). Knows no formula.

import {
  BackendError,
  bytesPerElement,
  type Kernels,
  rowPitch,
  type SsdInputs,
  type SsdOptions,
  type View,
} from "@diffmamba/tensor";
import { type Argument, f32, i32, ints, isAligned, type KernelContext, pointer } from "../context.js";
import { clearRows, typesOf } from "./rows.js";
import { type SsdPlan, STEP_TOKENS, ssdPlan } from "./ssdPlan.js";

/** Parts of a row that the gradients of A and dt's bias are summed over by themselves first. */
const FINISH_PARTS = 4;
/** Rows of the state that a block of the step has. */
const STEP_ROWS = 16;
/** Sizes of the state that `ssd_single` is made for. */
const SINGLE_STATES = [64, 128, 256];
/** Ends a structure that has an odd number of ints after its pointers: its size is a multiple of 8 bytes. */
const FILL = i32(0);

/** Elements from a token's row to the next one's; 0 for a view that is absent. */
function pitchOf(name: string, view: View | undefined, inner: number): Argument {
  if (view === undefined) return i32(0);
  const pitch = rowPitch(view, inner);
  if (pitch === undefined)
    throw new BackendError(`cuda: ssdScan: ${name} has no rows of one pitch; make it contiguous.`);
  return i32(pitch);
}

/** Whether all rows of these views, and all heads and groups in them, begin at multiples of 16 bytes. */
function isVectorized({ headDim, dState, groups }: SsdPlan, views: readonly (View | undefined)[]): boolean {
  const given = views.filter((view) => view !== undefined);
  const size = bytesPerElement[given[0].dtype];
  const parts = (headDim * size) % 16 === 0 && (groups === 1 || (dState * size) % 16 === 0);
  return parts && given.every((view) => isAligned(view, 16, rowPitch(view, 2) ?? 1));
}

interface Steps {
  readonly dt: View;
  readonly sums: View;
  readonly restarts: View | undefined;
}

/** dt after bias, softplus and limits, and its running sums times A in every tile. */
function makeSteps(context: KernelContext, plan: SsdPlan, inputs: SsdInputs, options: SsdOptions): Steps {
  const { batch, heads, tiles, tile } = plan;
  const { dt, A, dtBias, seqIdx, lengths } = inputs;
  const steps = context.temporary([batch, heads, tiles, tile], "f32");
  const sums = context.temporary([batch, heads, tiles, tile], "f32");
  const restarts = seqIdx && context.temporary([batch, tiles, tile], "i32");
  context.launch({
    kernel: `ssd_steps_${dt.dtype}_${tile}`,
    grid: [tiles, batch],
    block: 256,
    args: [
      ...[dt, A, dtBias, seqIdx, lengths, steps, sums, restarts].map(pointer),
      pitchOf("dt", dt, 1),
      ints(plan.sizes),
      ...dtArguments(options),
    ],
  });
  return { dt: steps, sums, restarts };
}

const dtArguments = ({ dtSoftplus, dtLimit }: SsdOptions): Argument[] => [
  i32(dtSoftplus),
  f32(dtLimit[0]),
  f32(dtLimit[1]),
];

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
  plan: SsdPlan,
  inputs: SsdInputs,
  steps: Steps,
  views: ForwardViews,
): void {
  const { x, B, C, D, lengths } = inputs;
  const { z, initialState, start, y, states, fine, finalState } = views;
  context.launch({
    kernel: `ssd_forward_${x.dtype}_${plan.padded}_${plan.tile}`,
    grid: [plan.blocks, plan.batch, start ? plan.chunks : 1],
    block: plan.threads,
    shared: plan.forwardShared,
    args: [
      ...[x, B, C, z, D, initialState, steps.dt, steps.sums, steps.restarts, lengths, start].map(pointer),
      ...[y, states, fine, finalState].map(pointer),
      ...[pitchOf("x", x, 2), pitchOf("B", B, 2), pitchOf("C", C, 2), pitchOf("z", z, 2), pitchOf("y", y, 2)],
      ints(plan.sizes),
      i32(D?.shape.length === 2),
      i32(isVectorized(plan, [x, B, C, y])),
      FILL,
    ],
  });
}

/** dy silu(z), and dz from y before the gate, which is made again. */
function gateBackward(context: KernelContext, plan: SsdPlan, inputs: SsdInputs, y: View, dy: View, dz?: View): View {
  const { batch, length, heads, headDim } = plan;
  const g = context.temporary([batch, length, heads, headDim], y.dtype);
  context.launch({
    kernel: `ssd_gate_${y.dtype}`,
    grid: [batch * length, Math.ceil((heads * headDim) / 256)],
    block: 256,
    args: [
      ...[dy, inputs.z, y, g, dz, inputs.lengths].map(pointer),
      ...[pitchOf("dy", dy, 2), pitchOf("z", inputs.z, 2), pitchOf("dz", dz, 2), i32(length), i32(heads * headDim)],
    ],
  });
  return g;
}

export const ssdKernels = (context: KernelContext): Pick<Kernels, "ssdScan" | "ssdScanBackward"> => ({
  ssdScan: (inputs, { y, finalState, states }, options) => {
    const { x, dt, A, B, C, D, z, dtBias, initialState, seqIdx, lengths } = inputs;
    const plan = ssdPlan(inputs, options, context.device);
    if (plan.length > STEP_TOKENS || plan.length === 0) {
      const steps = makeSteps(context, plan, inputs, options);
      launchForward(context, plan, inputs, steps, { z, initialState, y, states, finalState });
      return;
    }
    // A single token, and whole vectors everywhere, of the state 16 bytes: a form without branches.
    const rows = [initialState, finalState].every((view) => view === undefined || isAligned(view, 16));
    const vector = 16 / bytesPerElement[finalState.dtype];
    const whole = [B, C].every((view) =>
      isAligned(view, Math.min(16, vector * bytesPerElement[view.dtype]), rowPitch(view, 2) ?? 1),
    );
    const single =
      plan.length === 1 && !seqIdx && !lengths && !states && SINGLE_STATES.includes(plan.dState) && rows && whole;
    const channels = plan.heads * plan.headDim;
    const types = typesOf(x, finalState);
    context.launch({
      kernel: single && channels % STEP_ROWS === 0 ? `ssd_single_${types}_${plan.dState}` : `ssd_step_${types}`,
      grid: [Math.ceil(channels / STEP_ROWS), plan.batch],
      block: 128,
      overlap: true,
      args: [
        ...[x, dt, A, B, C, z, D, dtBias, initialState, seqIdx, lengths, y, states, finalState].map(pointer),
        ...[pitchOf("x", x, 2), pitchOf("dt", dt, 1), pitchOf("B", B, 2), pitchOf("C", C, 2)],
        ...[pitchOf("z", z, 2), pitchOf("y", y, 2)],
        ints(plan.sizes),
        i32(D?.shape.length === 2),
        ...dtArguments(options),
      ],
    });
  },

  ssdScanBackward: (inputs, outputs, options) => {
    const { x, dt, A, B, C, D, z, dtBias, lengths, states, dfinalState } = inputs;
    const { dx, ddt, dA, dB, dC, dD, dz, ddtBias, dinitialState } = outputs;
    const plan = ssdPlan(inputs, options, context.device);
    const { batch, heads, headDim, tiles, tile, padded, blocks } = plan;
    const steps = makeSteps(context, plan, inputs, options);

    // What the forward pass leaves out: the states within chunks, and y before the gate.
    const rows = [batch, plan.length, heads, headDim];
    const several = plan.tilesPerChunk > 1;
    const fine = several ? context.temporary([batch, tiles, heads, headDim, padded], x.dtype) : undefined;
    const y = z && inputs.dy ? context.temporary(rows, x.dtype) : undefined;
    if (fine || y) launchForward(context, plan, inputs, steps, { start: states, y, fine });
    if (dz && !inputs.dy) clearRows(context, dz);
    const dy = y && inputs.dy ? gateBackward(context, plan, inputs, y, inputs.dy, dz) : inputs.dy;

    const partial = dB || dC ? context.temporary([batch, tiles, blocks, 2, tile * padded], x.dtype) : undefined;
    const sums = context.temporary([2, batch, plan.blocksPerHead, heads, tiles, tile], "f32");
    const dDRows = dD && context.temporary([batch, heads, headDim], "f32");
    context.launch({
      kernel: `ssd_backward_${x.dtype}_${padded}_${tile}`,
      grid: [blocks, batch],
      block: plan.threads,
      shared: plan.backwardShared,
      args: [
        ...[x, B, C, dy, D, steps.dt, steps.sums, steps.restarts, lengths].map(pointer),
        ...[several ? undefined : states, fine, dfinalState, dx, partial, sums, dinitialState, dDRows].map(pointer),
        ...[pitchOf("x", x, 2), pitchOf("B", B, 2), pitchOf("C", C, 2), pitchOf("dy", dy, 2), pitchOf("dx", dx, 2)],
        ints(plan.sizes),
        i32(D?.shape.length === 2),
        i32(isVectorized(plan, [x, B, C, dy, dx])),
        FILL,
      ],
    });
    if (partial) {
      context.launch({
        kernel: `ssd_shared_${x.dtype}_${tile}`,
        grid: [tiles * plan.groups * 2, Math.ceil((tile * padded) / 8 / 256), batch],
        block: 256,
        args: [
          ...[partial, lengths, dB, dC].map(pointer),
          ...[pitchOf("dB", dB, 2), pitchOf("dC", dC, 2), ints(plan.sizes), i32(blocks), i32(padded)],
        ],
      });
    }
    const byRow = context.temporary([2, batch, FINISH_PARTS, heads], "f32");
    context.launch({
      kernel: `ssd_finish_${x.dtype}_${tile}`,
      grid: [heads, batch, FINISH_PARTS],
      block: 256,
      args: [
        ...[dt, A, dtBias, lengths, sums, ddt, byRow].map(pointer),
        ...[pitchOf("dt", dt, 1), pitchOf("ddt", ddt, 1), ints(plan.sizes), ...dtArguments(options)],
        FILL,
      ],
    });
    if (!dA && !ddtBias && !dD) return;
    context.launch({
      kernel: "ssd_rows",
      grid: heads,
      block: 128,
      args: [
        ...[byRow, dDRows, dA, ddtBias, dD].map(pointer),
        ...[i32(batch), i32(FINISH_PARTS), i32(heads), i32(headDim), i32(dD?.shape.length === 2)],
      ],
    });
  },
});
