// Layer: apps/bench, suites of the GPU. A whole training step in bf16 with f32 masters, AdamW and clipping, recorded where the backend can:
// tokens a second and memory, beside PyTorch and beside 6 x parameters x tokens at the device's rate of products.
// Knows the training step. Knows no data set.
import { AdamW, decayGroups, trainStep } from "@diffmamba/nn";
import { type Device, type Recorded, scope, type Tensor } from "@diffmamba/tensor";
import { integers, onDevice } from "../../data.js";
import { pytorchPeers } from "../../peers/pytorch.js";
import { type Case, type Entry, openPeers, type RowPart, rowsOf, type Settings } from "../../race.js";
import { deviceProduct } from "./ceilings.js";
import { type BenchModel, benchModel, benchModels, describeBench } from "./models.js";

function stepEntry(device: Device, which: BenchModel, { batch, length, vocabSize }: Settings): Entry {
  const model = benchModel(which, { device, compute: "bf16" });
  const optimizer = new AdamW(decayGroups(model, 0.1));
  const count = batch * length;
  const rows = (name: string) => device.from(integers(name, count, vocabSize), [batch, length], "i32");
  const [tokens, targets] = [rows("tokens"), rows("targets")];
  optimizer.setRate(1e-5);
  const step = (): Tensor => trainStep(optimizer, [() => model.loss(tokens, targets)], { maxNorm: 1 }).loss;
  let last: Tensor | undefined;
  let recorded: Recorded<Tensor> | undefined;
  let steps = 0;
  const entry = onDevice(device, {
    work: { "tokens/s": count, ms: 1, "GFLOP/s": 6 * model.parameterCount() * count },
    holds: [tokens, targets],
    run() {
      if (steps++ === 0 || !device.canRecord) {
        last?.dispose();
        last = scope(step);
      } else {
        recorded ??= device.record(step);
        recorded.replay();
      }
    },
  });
  return {
    ...entry,
    async verify() {
      const loss = await (recorded?.result ?? last)?.item();
      if (!Number.isFinite(loss)) throw new Error(`${which.name}: the loss became ${loss} while its step was timed`);
    },
    dispose() {
      recorded?.dispose();
      last?.dispose();
      optimizer.dispose();
      model.dispose();
      entry.dispose?.();
    },
  };
}

function memoryRow(name: string, shape: string, device: Device): RowPart {
  const megabytes = device.backend.heldBytes() / 1e6;
  return {
    ...{ name: `train ${name}, memory held`, shape, unit: "MB", value: megabytes, best: megabytes },
    ...{ peer: null, peerValue: null, peerBest: null, ratio: null, backend: device.name, spread: 0, samples: 1 },
  };
}

function trainingCase(which: BenchModel, settings: Settings): Case {
  const name = `train ${which.name}`;
  const shape = `${describeBench(which)}, ${settings.batch}x${settings.length} tokens, bf16`;
  return {
    name,
    shape,
    patience: 5,
    async prepare({ devices: [device], open, enter, absent }) {
      const peers = await openPeers(pytorchPeers(name, shape), { enter, absent });
      // Memory that nothing else has used, so that what is held is what a step takes.
      const fresh = await open(device.name);
      const step = enter(stepEntry(fresh, which, settings));
      for (let i = 0; i < 3; i++) step.run();
      await step.finish?.();
      const memory = memoryRow(which.name, shape, fresh);
      const rate = enter(deviceProduct(fresh, settings.square));
      return {
        entries: [step, ...peers, rate],
        checks: [],
        rows: (times) => [
          ...rowsOf({ name, shape, unit: "tokens/s" }, step, peers, times),
          ...rowsOf({ name: `${name}, 6 x parameters x tokens`, shape, unit: "GFLOP/s" }, step, [rate], times),
          memory,
        ],
      };
    },
  };
}

export function trainingCases(settings: Settings): Case[] {
  return Object.values(benchModels(settings)).map((which) => trainingCase(which, settings));
}
