// Layer: apps/bench, suites. `train`: one training step of a vanilla and of a differential model, timed in turns.
// Knows models and the training step. Knows no data set.
import { AdamW, decayGroups, trainStep } from "@diffmamba/nn";
import { type Device, scope } from "@diffmamba/tensor";
import { integers, onDevice } from "../data.js";
import { multiplyAddLoop } from "../peers/machine.js";
import { type Case, type Entry, type RowPart, rowsOf, type Settings, type Suite, type Times } from "../race.js";
import { createModel, describeModel, modelSettings, quickModelSettings, type Variant } from "./languageModel.js";
import { ownMatmul } from "./ops/matmul.js";

/** Loss, gradients, clipping and AdamW on one batch. The work is 6 operations for each parameter and token. */
function stepOn(device: Device, variant: Variant, settings: Settings): Entry {
  const { batch, length, vocabSize } = settings;
  const model = createModel(device, variant, settings);
  const optimizer = new AdamW(decayGroups(model, 0.1));
  const rows = (name: string) => device.from(integers(name, batch * length, vocabSize), [batch, length], "i32");
  const [tokens, targets] = [rows("tokens"), rows("targets")];
  const loss = () => model.loss(tokens, targets);
  const count = batch * length;
  const entry = onDevice(device, {
    work: { "tokens/s": count, "GFLOP/s": 6 * model.parameterCount() * count },
    holds: [model, optimizer, tokens, targets],
    run: () => scope(() => void trainStep(optimizer, [loss], { lr: 1e-4, maxNorm: 1 })),
    outputs: () => [loss()],
  });
  return {
    ...entry,
    // A step whose gradients are not finite is skipped, and would be quicker than a real one.
    async verify() {
      const last = (await entry.result?.())?.[0][0];
      if (!Number.isFinite(last)) throw new Error(`${variant}: the loss became ${last} while its step was timed`);
    },
  };
}

/** How much longer the differential step takes, beside how much more it computes. */
function costRow(shape: string, vanilla: Entry, differential: Entry, times: Times): RowPart[] {
  const [base, other] = [times(vanilla), times(differential)];
  const [baseWork, otherWork] = [vanilla.work["GFLOP/s"], differential.work["GFLOP/s"]];
  if (base === undefined || other === undefined || baseWork === undefined || otherWork === undefined) return [];
  const [value, expected] = [other.median / base.median, otherWork / baseWork];
  return [
    {
      name: "diffmamba2 step over mamba2 step",
      shape,
      value,
      unit: "times",
      peer: "6 x parameters x tokens of both",
      ratio: expected / value,
      peerValue: expected,
      peerBest: expected,
      backend: differential.backend,
      best: other.min / base.min,
      spread: base.spread + other.spread,
      samples: Math.min(base.samples, other.samples),
    },
  ];
}

function trainCase(settings: Settings): Case {
  const shape = `${describeModel(settings)}, ${settings.batch}x${settings.length} tokens`;
  return {
    name: "mamba2 step beside diffmamba2 step",
    shape,
    async prepare({ devices: [device, ...others], enter }) {
      const variants: readonly Variant[] = ["mamba2", "diffmamba2"];
      const steps = variants.map((variant) => {
        const ours = enter(stepOn(device, variant, settings));
        const rivals = others.map((other) =>
          enter({ ...stepOn(other, variant, settings), name: `${other.name} backend` }),
        );
        return { name: `${variant} step`, ours, rivals };
      });
      const limits = [multiplyAddLoop(), ownMatmul(device, settings.square)].map(enter);
      const [vanilla, differential] = steps.map(({ ours }) => ours);
      return {
        entries: [...steps.flatMap(({ ours, rivals }) => [ours, ...rivals]), ...limits],
        checks: steps.flatMap(({ ours, rivals }) => rivals.map((peer) => ({ ours, peer, tolerance: 1e-4 }))),
        rows: (times) => [
          ...steps.flatMap(({ name, ours, rivals }) => [
            ...rowsOf({ name, shape, unit: "tokens/s" }, ours, rivals, times),
            ...rowsOf({ name: `${name}, 6 x parameters x tokens`, shape, unit: "GFLOP/s" }, ours, limits, times),
          ]),
          ...costRow(shape, vanilla, differential, times),
        ],
      };
    },
  };
}

export const train: Suite = {
  name: "train",
  summary:
    "a training step of Mamba-2 and of Diff-Mamba-2, equal in width and state: tokens/s, share of the machine's rate",
  settings: {
    ...modelSettings,
    batch: 4,
    length: 64,
    /** Size of the matrix product whose rate is the limit. */
    square: 256,
  },
  quick: { ...quickModelSettings, batch: 2, length: 8, square: 16 },
  patience: 6,
  cases: (settings) => [trainCase(settings)],
};
