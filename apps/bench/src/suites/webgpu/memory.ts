// Layer: apps/bench, suites of the WebGPU backend. What a long training run holds, on the device and in the process: early in it, and
// at its end. Knows the trainer. Knows no kernel.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";
import { setTimeout } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { arraySource, randomBatches } from "@diffmamba/datasets";
import { nodeFiles } from "@diffmamba/files/node";
import { cosine, decayGroups } from "@diffmamba/nn";
import type { Device } from "@diffmamba/tensor";
import { Trainer } from "@diffmamba/train";
import { integers } from "../../data.js";
import type { Case, RowPart, Settings } from "../../race.js";
import { createModel, describeModel, modelSettings } from "../languageModel.js";

/** Steps after which garbage is collected and what is held is counted, where a run has many. */
const EVERY = 100;

const BATCH = 4;

/** Bytes by what holds them. */
type Held = Readonly<Record<string, number>>;

/** A full collection: what nothing refers to is no part of what is held. */
function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
}

/** Has the engine make its room for young objects as large as it ever does: else it would at some step, once, by 16 MB. */
function growYoungGeneration(): void {
  for (let round = 0; round < 10; round++) {
    const pairs = Array.from({ length: 1e5 }, (_, i) => [i, i]);
    if (pairs.length > 0) collectGarbage();
  }
}

async function heldBy({ backend }: Device): Promise<Held> {
  // What the first one finds gives its native part back some turns of the event loop later.
  for (let round = 0; round < 2; round++) {
    collectGarbage();
    await setTimeout(10);
  }
  const { rss, heapUsed, external } = process.memoryUsage();
  return {
    "device memory": backend.heldBytes(),
    "resident memory": rss,
    "objects and array buffers": heapUsed + external,
  };
}

/** A run of `steps` as the trainer makes it, in a folder of its own. @returns what was held after some of its steps, the last included */
async function held(device: Device, sizes: Settings, steps: number, length: number): Promise<Map<number, Held>> {
  const every = Math.max(1, Math.min(EVERY, Math.floor(steps / 4)));
  const found = new Map<number, Held>();
  const folder = await mkdtemp(path.join(tmpdir(), "diffmamba-bench-"));
  try {
    growYoungGeneration();
    using model = createModel(device, "diffmamba2", sizes);
    const tokens = arraySource(integers("long run", 1 << 16, sizes.vocabSize));
    const trainer = new Trainer({
      ...{ model, groups: decayGroups(model, 0.1), schedule: cosine(1e-3, { warmup: 10, steps }), steps, maxNorm: 1 },
      data: randomBatches(tokens, { batchSize: BATCH, length, seed: 1 }),
      ...{ files: nodeFiles(), folder: path.join(folder, "run") },
      sampleEvery: every,
      async sample({ step }) {
        found.set(step, await heldBy(device));
        return { text: "" };
      },
    });
    await trainer.run();
  } finally {
    await rm(folder, { recursive: true });
  }
  return found;
}

export function memoryCases({ runSteps, runWidth, runLayers, runLength }: Settings): Case[] {
  const sizes = { ...modelSettings, dModel: runWidth, nLayers: runLayers };
  const name = "memory of a training run";
  const shape = `diffmamba2 ${describeModel(sizes)}, ${BATCH}x${runLength} tokens, ${runSteps} steps`;
  return [
    {
      ...{ name, shape },
      async prepare({ devices: [device] }) {
        const counted = [...(await held(device, sizes, runSteps, runLength))];
        const [, last] = counted[counted.length - 1];
        // Allocators take some hundred steps until they have what they ever need; a leak goes on in the second half.
        const earlier = [counted[0], counted[(counted.length - 1) >> 1]];
        const rows = Object.entries(last).flatMap(([what, bytes]) =>
          earlier.map(([step, { [what]: before }]): RowPart => {
            const [value, peerValue] = [bytes / 1e6, before / 1e6];
            return {
              ...{ name: `${name}, ${what}`, shape, unit: "MB", value, best: value, backend: device.name },
              ...{ peer: `after ${step} steps`, peerValue, peerBest: peerValue, ratio: peerValue / value },
              ...{ spread: 0, samples: 1 },
            };
          }),
        );
        return { entries: [], checks: [], rows: () => rows };
      },
    },
  ];
}
