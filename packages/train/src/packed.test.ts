// Layer: train, tests of packed documents: none sees another, launched or replayed, and a stopped run goes on to the same bits.
import { arraySource, packedBatches, type TokenSource } from "@diffmamba/datasets";
import { memoryFiles } from "@diffmamba/files/memory";
import { reference } from "@diffmamba/tensor";
import { afterAll, expect, it } from "vitest";
import { mambaRun } from "./bigram.testing.js";
import type { TrainEvent } from "./events.js";
import { probe } from "./launched.js";
import type { TrainerOptions } from "./options.js";
import { contentOf } from "./runs.testing.js";
import { Trainer } from "./trainer.js";

const device = reference();
afterAll(() => device.dispose());

const starts = [0, 5, 11, 14, 30, 47, 52];

/** Documents of a few tokens behind one another. */
function documents(ids: Int32Array): TokenSource {
  return {
    ...arraySource(ids),
    documents: { startsBetween: async (from, to) => starts.filter((at) => at > from && at < to) },
  };
}

const ids = Int32Array.from({ length: 65 }, (_, i) => (i * i + (i >> 2)) % 5);
const packed = () => packedBatches(documents(ids), { batchSize: 4, length: 8, seed: 3 });

it("the loss of a document does not depend on the one before it in its row", async () => {
  const { model } = mambaRun(device, memoryFiles());
  using _model = model;
  const lossOf = async (tokens: Int32Array, withIndex: boolean) => {
    const batch = await packedBatches(documents(tokens), {
      batchSize: 1,
      length: 16,
      seed: 0,
      ordered: true,
    }).nextBatch();
    if (batch === undefined) throw new Error("there is a batch");
    // Only the second document's own targets count: tokens 5 to 9.
    const targets = batch.targets.map((target, i) => (i >= 5 && i < 10 ? target : -100));
    const { seqIdx: _, ...plain } = batch;
    return probe(model, withIndex ? { ...batch, targets } : { ...plain, targets });
  };
  const changed = ids.map((id, i) => (i < 5 ? (id + 1) % 5 : id));
  expect(await lossOf(changed, true)).toBe(await lossOf(ids, true));
  expect(await lossOf(changed, false)).not.toBe(await lossOf(ids, false));
});

async function run(change: Partial<TrainerOptions>, files = memoryFiles(), signal?: AbortSignal) {
  const options = mambaRun(device, files, { resume: true, data: packed(), ...change });
  using _model = options.model;
  const before = device.memory().tensors;
  await new Trainer(options).run(signal && { signal });
  expect(device.memory().tensors).toBe(before);
  return contentOf(files);
}

it("is the same run launched, replayed, and stopped on the way", async () => {
  const whole = await run({ record: false });
  expect(await run({ record: true })).toEqual(whole);
  const files = memoryFiles();
  const stop = new AbortController();
  const onEvent = (event: TrainEvent) => void (event.type === "step" && event.step === 3 && stop.abort());
  await run({ record: true, onEvent }, files, stop.signal);
  expect(await run({ record: true }, files)).toEqual(whole);
});
