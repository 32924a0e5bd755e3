// Layer: reference backend. A token of the Mamba-2 scan beside a state of some tokens ago, and the end of that. Plain loops.
// Knows views; knows no Tensor.

import type { RoutineKernels, SsdKept } from "../routineKernels.js";
import type { View } from "../view.js";
import { addScaled, dot } from "./vector.js";
import { ints, optionalDoubles, optionalRows, Rows, silu, softplus, storeDoubles, toDoubles } from "./views.js";

/** A state and what is kept beside it, as doubles; one head of one row is looked at at a time. */
class Kept {
  readonly heads: number;
  readonly headDim: number;
  readonly groups: number;
  readonly dState: number;
  readonly places: number;
  /** Tokens that are kept. */
  readonly held: number;
  readonly state: Float64Array;
  readonly x: Rows;
  readonly B: Rows;
  readonly steps: Rows;
  readonly A: Float64Array;

  constructor(
    readonly views: SsdKept,
    A: View,
  ) {
    [, this.heads, this.headDim, this.dState] = views.initialState.shape;
    [, this.places, this.groups] = views.keptB.shape;
    this.held = ints("the count", views.count)[0] % this.places;
    this.state = toDoubles("the state", views.initialState);
    this.x = new Rows("the kept x", views.keptX, 2);
    this.B = new Rows("the kept B", views.keptB, 2);
    this.steps = new Rows("the kept steps", views.keptSteps, 1);
    this.A = toDoubles("A", A);
  }

  groupOf(h: number): number {
    return Math.floor((h * this.groups) / this.heads);
  }

  /** Of the first `count` tokens: e^(a_s) step_s each, and e^a. */
  weights(b: number, h: number, count: number): { readonly weights: Float64Array; readonly decay: number } {
    const weights = new Float64Array(count);
    let after = 0;
    for (let s = count - 1; s >= 0; s--) {
      const step = this.steps.get(b * this.places + s, h);
      weights[s] = Math.exp(after) * step;
      after += step * this.A[h];
    }
    return { weights, decay: Math.exp(after) };
  }

  /** Takes the first `count` tokens into the state. */
  fold(count: number): void {
    const { heads, headDim, dState, places, state } = this;
    const B = new Float64Array(dState);
    for (let b = 0; b < this.views.initialState.shape[0]; b++) {
      for (let h = 0; h < heads; h++) {
        const { weights, decay } = this.weights(b, h, count);
        const at = (b * heads + h) * headDim * dState;
        for (let i = at; i < at + headDim * dState; i++) state[i] *= decay;
        for (let s = 0; s < count; s++) {
          this.B.load(b * places + s, B, this.groupOf(h) * dState, 0, dState);
          for (let p = 0; p < headDim; p++) {
            const x = this.x.get(b * places + s, h * headDim + p);
            addScaled(state, at + p * dState, weights[s] * x, B, 0, dState);
          }
        }
      }
    }
    storeDoubles("the state", this.views.initialState, state);
  }
}

export const ssdDeferred: RoutineKernels["ssdDeferred"] = (inputs, outputs, { dtSoftplus, dtLimit }) => {
  const kept = new Kept(inputs, inputs.A);
  const { heads, headDim, groups, dState, places, held, state } = kept;
  const x = new Rows("ssdDeferred: x", inputs.x, 2);
  const dt = new Rows("ssdDeferred: dt", inputs.dt, 1);
  const B = new Rows("ssdDeferred: B", inputs.B, 2);
  const C = new Rows("ssdDeferred: C", inputs.C, 2);
  const z = optionalRows("ssdDeferred: z", inputs.z, 2);
  const y = new Rows("ssdDeferred: y", outputs.y, 2);
  const D = optionalDoubles("ssdDeferred: D", inputs.D);
  const dtBias = optionalDoubles("ssdDeferred: dtBias", inputs.dtBias);
  const row = new Float64Array(Math.max(heads * headDim, groups * dState));
  const [c, earlier] = [new Float64Array(groups * dState), new Float64Array(groups * dState)];
  for (let b = 0; b < x.count; b++) {
    const place = b * places + held;
    x.load(b, row);
    kept.x.store(place, row, 0, 0, heads * headDim);
    B.load(b, row);
    kept.B.store(place, row, 0, 0, groups * dState);
    C.load(b, c);
    for (let h = 0; h < heads; h++) {
      const raw = dt.get(b, h) + (dtBias === undefined ? 0 : dtBias[h]);
      kept.steps.set(place, h, Math.min(Math.max(dtSoftplus ? softplus(raw) : raw, dtLimit[0]), dtLimit[1]));
      const { weights, decay } = kept.weights(b, h, held + 1);
      const at = kept.groupOf(h) * dState;
      for (let s = 0; s <= held; s++) {
        kept.B.load(b * places + s, earlier);
        weights[s] *= dot(c, at, earlier, at, dState);
      }
      for (let p = 0; p < headDim; p++) {
        const channel = h * headDim + p;
        let sum = decay * dot(state, (b * heads * headDim + channel) * dState, c, at, dState);
        for (let s = 0; s <= held; s++) sum += weights[s] * kept.x.get(b * places + s, channel);
        if (D !== undefined) sum += D[D.length === heads ? h : channel] * x.get(b, channel);
        y.set(b, channel, z === undefined ? sum : sum * silu(z.get(b, channel)));
      }
    }
  }
  if (held + 1 === places) kept.fold(places);
};

export const ssdSettle: RoutineKernels["ssdSettle"] = ({ A, ...views }) => {
  const kept = new Kept(views, A);
  if (kept.held > 0) kept.fold(kept.held);
};
