// Layer: train, tests with the real model: a differential Mamba-2 trains, stops and goes on to the same bits, and its checkpoint is a model folder.
import { memoryFiles } from "@diffmamba/files/memory";
import { MambaLM } from "@diffmamba/models";
import { decayGroups } from "@diffmamba/nn";
import { reference } from "@diffmamba/tensor";
import { afterAll, expect, it } from "vitest";
import { bigramData, mambaRun } from "./bigram.testing.js";
import type { TrainEvent } from "./events.js";
import { probe } from "./launched.js";
import { estimateMemory } from "./memory.js";
import type { TrainerOptions } from "./options.js";
import { resolveCheckpoint } from "./runFolder.js";
import { contentOf } from "./runs.testing.js";
import { Trainer } from "./trainer.js";

const device = reference();
afterAll(() => device.dispose());

async function run(files = memoryFiles(), change: Partial<TrainerOptions> = {}, signal?: AbortSignal) {
  const options = mambaRun(device, files, { resume: true, ...change });
  using model = options.model;
  const before = device.memory().tensors;
  const result = await new Trainer(options).run(signal && { signal });
  expect(device.memory().tensors).toBe(before);
  const batch = await bigramData(5).nextBatch();
  return { files, result, loss: batch && (await probe(model, batch)) };
}

it("trains, the same bits each time, with the lambda of each layer", async () => {
  const first = await contentOf((await run()).files);
  expect(await contentOf((await run()).files)).toEqual(first);
  expect(first.metrics[5]?.loss).toBeLessThan((first.metrics[0]?.loss as number) - 0.1);
  expect(first.metrics[5]?.lambda?.map(({ layer }) => layer)).toEqual([0, 1]);
});

it("stopped and resumed gives the same bits as one that never stopped", async () => {
  const whole = await contentOf((await run()).files);
  for (const at of [1, 3, 4]) {
    const files = memoryFiles();
    const stop = new AbortController();
    const onEvent = (event: TrainEvent) => void (event.type === "step" && event.step === at && stop.abort());
    expect((await run(files, { onEvent }, stop.signal)).result.stopped).toBe("signal");
    expect((await run(files)).result.stopped).toBe("finished");
    expect(await contentOf(files)).toEqual(whole);
  }
});

it("leaves a model folder, which gives the loss that the model had", async () => {
  const { files, loss } = await run();
  using model = await MambaLM.load(files, await resolveCheckpoint(files, "run"), { device });
  const batch = await bigramData(5).nextBatch();
  expect(batch && (await probe(model, batch))).toBe(loss);
});

it("has its memory told before the first step", async () => {
  await using own = reference();
  const options = mambaRun(own, memoryFiles(), { steps: 1 });
  const { config } = options.model;
  const { total } = await estimateMemory({
    build: (on) => MambaLM.create(config, { device: on }),
    batchSize: 4,
    length: 8,
    microBatches: 2,
    groups: (model) => decayGroups(model, 0.1),
  });
  own.resetPeak();
  await new Trainer(options).run();
  // The lambdas of a step are read beside it.
  expect(own.memory().peakBytes).toBeGreaterThanOrEqual(total);
  expect(own.memory().peakBytes).toBeLessThan(1.02 * total);
});
