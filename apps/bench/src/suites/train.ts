// Layer: apps/bench, suites. `train`: one training step of a vanilla and of a differential model, timed in turns.
// Knows models and the training step. Knows no data set.
import { AdamW, decayGroups, trainStep } from "@diffmamba/nn";
import { type Device, scope } from "@diffmamba/tensor";
import { integers, onDevice } from "../data.js";
import { multiplyAddLoop } from "../peers/machine.js";
import {
  type Case,
  type Entry,
  openPeers,
  type Peer,
  type RowPart,
  rowsOf,
  type Settings,
  type Suite,
  type Times,
} from "../race.js";
import { createModel, describeModel, modelSettings, quickModelSettings, type Variant } from "./languageModel.js";
import { ownMatmul } from "./ops/matmul.js";

/**
 * Loss, gradients, clipping and AdamW on one batch, or on its first `sequences`. The work is 6 operations for each parameter
 * and token; the result is the loss of the first sequence. It takes over the model.
 */
export function stepOn(
  device: Device,
  variant: Variant,
  settings: Settings,
  sequences = settings.batch,
  model = createModel(device, variant, settings),
): Entry {
  const { batch, length, vocabSize } = settings;
  const optimizer = new AdamW(decayGroups(model, 0.1));
  const count = sequences * length;
  const rows = (name: string) =>
    device.from(integers(name, batch * length, vocabSize).subarray(0, count), [sequences, length], "i32");
  const [tokens, targets] = [rows("tokens"), rows("targets")];
  const entry = onDevice(device, {
    work: { "tokens/s": count, ms: sequences / batch, "GFLOP/s": 6 * model.parameterCount() * count },
    holds: [model, optimizer, tokens, targets],
    run: () => scope(() => void trainStep(optimizer, [() => model.loss(tokens, targets)], { lr: 1e-4, maxNorm: 1 })),
    outputs: () => [scope(() => model.loss(tokens.slice(0, 0, 1), targets.slice(0, 0, 1)))],
  });
  return {
    ...entry,
    name: sequences < batch ? `${entry.name}, from ${sequences} of ${batch} sequences` : entry.name,
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

interface TrainChoice {
  /** What a step is counted in beside the other devices. */
  readonly unit: "tokens/s" | "ms";
  /** How many of the batch's sequences a device is given; all by default. */
  readonly sequences?: (device: Device) => number;
  readonly limits?: readonly Peer[];
  readonly patience?: number;
}

const variants: readonly Variant[] = ["mamba2", "diffmamba2"];

/** A step of both models, each beside the other devices and the limits, and one beside the other. */
export function trainCase(settings: Settings, { unit, sequences, limits = [], patience }: TrainChoice): Case {
  const shape = `${describeModel(settings)}, ${settings.batch}x${settings.length} tokens`;
  return {
    name: "mamba2 step beside diffmamba2 step",
    shape,
    ...(patience !== undefined && { patience }),
    async prepare({ devices: [device, ...others], enter, absent }) {
      const steps = variants.map((variant) => {
        const ours = enter(stepOn(device, variant, settings, sequences?.(device)));
        const rivals = others.map((other) => {
          const step = stepOn(other, variant, settings, sequences?.(other));
          return enter({ ...step, name: step.name.replace(other.name, `${other.name} backend`) });
        });
        return { name: `${variant} step`, ours, rivals };
      });
      const rates = [...(await openPeers(limits, { enter, absent })), enter(ownMatmul(device, settings.square))];
      const [vanilla, differential] = steps.map(({ ours }) => ours);
      return {
        entries: [...steps.flatMap(({ ours, rivals }) => [ours, ...rivals]), ...rates],
        checks: steps.flatMap(({ ours, rivals }) => rivals.map((peer) => ({ ours, peer, tolerance: 1e-4 }))),
        rows: (times) => [
          ...steps.flatMap(({ name, ours, rivals }) => [
            ...rowsOf({ name, shape, unit }, ours, rivals, times),
            ...rowsOf({ name: `${name}, 6 x parameters x tokens`, shape, unit: "GFLOP/s" }, ours, rates, times),
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
  cases: (settings) => [
    trainCase(settings, {
      unit: "tokens/s",
      limits: [{ name: "js multiply-add loop", open: async () => multiplyAddLoop() }],
    }),
  ],
};
