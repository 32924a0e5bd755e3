// Layer: train, tests of recorded steps: the real model trains to the same bits whether its steps are launched or replayed.
import { memoryFiles } from "@diffmamba/files/memory";
import type { BuildOptions } from "@diffmamba/nn";
import { AdamW, decayGroups } from "@diffmamba/nn";
import { reference } from "@diffmamba/tensor";
import { afterAll, expect, it } from "vitest";
import { bigramData, bigramRun, mambaRun } from "./bigram.testing.js";
import type { TrainEvent } from "./events.js";
import { settle } from "./launched.js";
import type { TrainerOptions } from "./options.js";
import { Stepper } from "./replayed.js";
import { contentOf } from "./runs.testing.js";
import { Trainer } from "./trainer.js";

const device = reference({ poison: true });
afterAll(() => device.dispose());

async function run(
  change: Partial<TrainerOptions>,
  build: BuildOptions = {},
  files = memoryFiles(),
  signal?: AbortSignal,
) {
  const options = mambaRun(device, files, { resume: true, ...change }, build);
  using _model = options.model;
  const before = device.memory().tensors;
  await new Trainer(options).run(signal && { signal });
  expect(device.memory().tensors).toBe(before);
  return files;
}

it.each([
  ["f32", {}],
  ["bf16", { compute: "bf16" }],
  ["f16", { compute: "f16" }],
] as const)(
  "in %s a recorded run has the bits of one that is not, with dropout, clipping and micro-batches",
  async (_name, build) => {
    const plain = await contentOf(await run({ record: false }, build));
    expect(await contentOf(await run({ record: true }, build))).toEqual(plain);
  },
);

it("a run that was stopped while steps were replayed goes on to the same bits", async () => {
  const whole = await contentOf(await run({ record: true }));
  const files = memoryFiles();
  const stop = new AbortController();
  const onEvent = (event: TrainEvent) => void (event.type === "step" && event.step === 3 && stop.abort());
  await run({ record: true, onEvent }, {}, files, stop.signal);
  await run({ record: true }, {}, files);
  expect(await contentOf(files)).toEqual(whole);
});

it("activations that are computed again give the same bits, recorded or not, in less memory", async () => {
  const trained = async (recomputes: boolean, record: boolean) => {
    const files = memoryFiles();
    const options = mambaRun(device, files, { record }, {});
    using model = options.model;
    model.backbone.recomputes = recomputes;
    device.resetPeak();
    const { bytes } = device.memory();
    await new Trainer(options).run();
    return { content: await contentOf(files), peak: device.memory().peakBytes - bytes };
  };
  const plain = await trained(false, false);
  const again = await trained(true, false);
  expect(again.content).toEqual(plain.content);
  expect(again.peak).toBeLessThan(plain.peak);
  expect((await trained(true, true)).content).toEqual(plain.content);
});

it("replays from the third step of one shape on, plainly where the shape changes", async () => {
  const { model } = bigramRun(device, memoryFiles());
  using _owned = model;
  const optimizer = new AdamW(decayGroups(model, 0.1));
  const stepper = new Stepper(model, optimizer, true);
  let recordings = 0;
  const record = device.record.bind(device);
  device.record = (fn) => {
    recordings++;
    return record(fn);
  };
  try {
    const data = bigramData();
    const seen: number[] = [];
    for (const [i, parts] of [1, 1, 1, 2, 1, 1].entries()) {
      const batches = [];
      while (batches.length < parts)
        batches.push((await data.nextBatch()) as NonNullable<Awaited<ReturnType<typeof data.nextBatch>>>);
      const launched = stepper.launch(batches, { step: i + 1, lr: 0.1, maxNorm: 1, withLambdas: true });
      expect((await settle(launched)).lambda?.length).toBe(1);
      seen.push(recordings);
    }
    expect(seen).toEqual([0, 1, 1, 1, 1, 1]);
  } finally {
    device.record = record;
    stepper.dispose();
    optimizer.dispose();
  }
});
