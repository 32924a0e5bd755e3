// Layer: train, tests of going on: a run stopped at any step ends as one that was never stopped, bit for bit; what may change, and what not.
import type { FileSystem } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { cosine, schedules, wsd } from "@diffmamba/nn";
import { reference } from "@diffmamba/tensor";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bigramData, bigramRun } from "./bigram.testing.js";
import { RunError } from "./errors.js";
import type { RunResult, TrainEvent } from "./events.js";
import type { TrainerOptions } from "./options.js";
import { readRunRecord } from "./record.js";
import { contentOf, copyOf, errorOf, namesIn, put, type RunContent } from "./runs.testing.js";
import { Trainer } from "./trainer.js";

const device = reference();
afterAll(() => device.dispose());

async function run(files: FileSystem, change: Partial<TrainerOptions> = {}, signal?: AbortSignal): Promise<RunResult> {
  const options = bigramRun(device, files, { resume: true, ...change });
  using _ = options.model;
  return await new Trainer(options).run(signal && { signal });
}

/** Runs until an event of choice has come, and asks to stop there. */
async function stoppedAt(
  files: FileSystem,
  when: (event: TrainEvent) => boolean,
  change: Partial<TrainerOptions> = {},
): Promise<RunResult> {
  const stop = new AbortController();
  const onEvent = (event: TrainEvent) => {
    if (when(event)) stop.abort();
  };
  return run(files, { onEvent, ...change }, stop.signal);
}

let whole: RunContent;
beforeAll(async () => {
  const files = memoryFiles();
  await run(files);
  whole = await contentOf(files);
});

describe("a run that is stopped and goes on", () => {
  it.each([1, 2, 3, 4])("after step %i ends as if it had never stopped", async (step) => {
    const files = memoryFiles();
    const first = await stoppedAt(files, (event) => event.type === "step" && event.step === step);
    expect(first.stopped).toBe("signal");
    expect(first.checkpoint).toBe(`run/step-${first.step}`);
    // A step is read after the next one was launched, and that one is finished too.
    expect([step, step + 1]).toContain(first.step);
    const second = await run(files);
    expect(second).toMatchObject({ stopped: "finished", step: 6 });
    expect(await contentOf(files)).toEqual(whole);
  });

  it.each(["start", "evaluation", "checkpoint", "sample"])("in the middle of a %s ends so too", async (type) => {
    const files = memoryFiles();
    await stoppedAt(files, (event) => event.type === type);
    expect(await run(files)).toMatchObject({ stopped: "finished", step: 6 });
    expect(await contentOf(files)).toEqual(whole);
  });

  it("again and again ends so too", async () => {
    const files = memoryFiles();
    let result: RunResult;
    let parts = 0;
    do {
      result = await stoppedAt(files, (event) => event.type === "step");
      parts++;
    } while (result.stopped === "signal");
    expect(parts).toBeGreaterThan(2);
    expect((await readRunRecord(files, "run")).parts.map(({ step }) => step)).toHaveLength(parts);
    expect(await contentOf(files)).toEqual(whole);
  });

  it("by a task between two looks at the signal loses no line", async () => {
    for (let delay = 1; delay < 40; delay += 3) {
      const files = memoryFiles();
      const stop = new AbortController();
      const onEvent = async (event: TrainEvent) => {
        if (event.type !== "step" || event.step !== 1) return;
        for (let i = 0; i < delay; i++) await undefined;
        stop.abort();
      };
      await run(files, { onEvent: (event) => void onEvent(event), evaluateEvery: 5 }, stop.signal);
      const { checkpoint, metrics } = await contentOf(files);
      expect(metrics.map(({ step }) => step)).toEqual(
        [1, 2, 3, 4, 5, 6].slice(0, Number(checkpoint.slice("run/step-".length))),
      );
    }
  });

  it("stops before its first step where it is asked to at once", async () => {
    const files = memoryFiles();
    expect(await run(files, {}, AbortSignal.abort())).toEqual({ stopped: "signal", step: 0 });
    await run(files);
    expect(await contentOf(files)).toEqual(whole);
  });

  it("cuts what was written after its checkpoint, half-written lines too", async () => {
    const files = memoryFiles();
    await stoppedAt(files, (event) => event.type === "step" && event.step === 3);
    const at = Number((await contentOf(files)).checkpoint.slice("run/step-".length));
    for (const [name, line] of [
      ["metrics.jsonl", `{"step":${at + 1},"loss":1,"lr":0.05}\n{"step":${at + 2},"lo`],
      ["samples.jsonl", `{"step":${at + 1},"text":"x"}\n`],
    ] as const) {
      const writer = await files.writer(`run/${name}`, { append: true });
      await writer.write(new TextEncoder().encode(line));
      await writer.close();
    }
    await run(files);
    expect(await contentOf(files)).toEqual(whole);
  });

  it("has nothing to do where it is done", async () => {
    const files = memoryFiles();
    await run(files);
    expect(await run(files)).toMatchObject({ stopped: "finished", step: 6, checkpoint: "run/step-6" });
    expect(await contentOf(files)).toEqual(whole);
  });

  it("points `best` to the best again where the end came between `last` and `best`", async () => {
    const files = memoryFiles();
    const evaluate = async ({ step }: { step: number }) => ({ loss: 10 - step, tokens: 1 });
    await stoppedAt(files, (event) => event.type === "checkpoint" && event.step === 3, { evaluate });
    await put(files, "run/best", "step-2\n");
    await run(files, { evaluate, steps: 4 });
    expect((await contentOf(files)).state).toMatchObject({ best: { step: 4 } });
    await put(files, "run/best", "step-1\n");
    await run(files, { evaluate, steps: 5, evaluateEvery: 50, checkpointEvery: 50 }, AbortSignal.abort());
    expect(new TextDecoder().decode(await files.read("run/best"))).toBe("step-4\n");
  });
});

describe("what may change", () => {
  it("is the number of steps, with a schedule that agrees with the steps taken", async () => {
    const files = memoryFiles();
    await run(files, { steps: 4 });
    await run(files, { steps: 6 });
    const { weights, metrics } = await contentOf(files);
    expect(weights).toEqual(whole.weights);
    expect(metrics.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("is the decay of warm-up, stable, decay, while the rate is stable", async () => {
    const stable = (steps: number) => ({ steps, schedule: wsd(0.05, { warmup: 1, steps, decay: 2 }) });
    const files = memoryFiles();
    await stoppedAt(files, (event) => event.type === "step" && event.step === 2, stable(8));
    expect(await run(files, stable(12))).toMatchObject({ step: 12 });
    const late = memoryFiles();
    await stoppedAt(late, (event) => event.type === "step" && event.step === 7, stable(8));
    await expect(run(late, stable(12))).rejects.toThrow(
      "cannot go on with this schedule: step 8 was taken at a learning rate of 0.025, and it gives 0.05",
    );
  });

  it("is neither the end of a cosine nor the rate", async () => {
    const files = memoryFiles();
    await run(files, { steps: 4, schedule: cosine(0.05, { steps: 4 }) });
    const before = await copyOf(files, "run");
    await expect(run(files, { schedule: cosine(0.05, { steps: 6 }) })).rejects.toThrow(
      "run: cannot go on with this schedule: step 2 ",
    );
    await expect(run(files, { schedule: schedules.constant(0.01) })).rejects.toThrow(
      "cannot go on with this schedule: step 1 ",
    );
    expect(await contentOf(files)).toEqual(await contentOf(before));
  });

  it("is no fewer steps than are done", async () => {
    const files = memoryFiles();
    await run(files);
    await expect(run(files, { steps: 5 })).rejects.toThrow("run: has 6 steps done, more than the 5 asked for");
  });

  it.each<[string, Partial<TrainerOptions>, string]>([
    ["the model", { settings: { model: { width: 7 }, seed: 7 } }, "model.width was 6 and is 7"],
    ["the seed", { settings: { model: { width: 6 }, seed: 8 } }, "seed was 7 and is 8"],
    ["a new setting", { settings: { model: { width: 6 }, seed: 7, variant: "x" } }, 'variant was not set and is "x"'],
    ["micro-batches", { microBatches: 1 }, "microBatches was 2 and is 1"],
    ["clipping", { maxNorm: 2 }, "maxNorm was 1 and is 2"],
    ["the optimizer", { adamw: { beta2: 0.95 } }, "adamw.beta2 was 0.999 and is 0.95"],
    ["the data", { data: bigramData(5) }, 'the saved data position has "seed" 3, but this run has 5'],
  ])("is not %s", async (_, change, message) => {
    const files = memoryFiles();
    await run(files, { steps: 2 });
    const before = await namesIn(files, "run");
    const error = await errorOf(run(files, change));
    expect(error.message).toContain(message);
    expect(await namesIn(files, "run")).toEqual(before);
  });

  it("is what is named as free, and versions with a warning", async () => {
    const files = memoryFiles();
    const settings = (batch: number) => ({ model: { width: 6 }, data: { path: `/${batch}`, size: 1 } });
    await run(files, { steps: 2, settings: settings(1), versions: { train: "1.0.0" } });
    const events: TrainEvent[] = [];
    await run(files, {
      settings: settings(2),
      freeSettings: ["data.path"],
      versions: { train: "1.1.0" },
      onEvent: (event) => events.push(event),
    });
    expect(events.filter(({ type }) => type === "warning")).toMatchObject([
      { message: expect.stringContaining("other versions") },
    ]);
    expect((await readRunRecord(files, "run")).parts).toMatchObject([{ versions: { train: "1.0.0" } }, { step: 2 }]);
  });
});

describe("a folder that cannot be used", () => {
  it("holds a run that nobody asked to resume", async () => {
    const files = memoryFiles();
    await run(files, { steps: 2 });
    const error = await errorOf(run(files, { resume: false }));
    expect(error).toBeInstanceOf(RunError);
    expect(error.message).toBe("run: holds a run already; resume it, or choose another folder");
    expect(await namesIn(files, "run")).not.toContain("lock");
  });

  it.each([
    ["names a checkpoint that is gone", "run/last", "step-5\n", "run/last: it names run/step-5, which does not exist"],
    ["has no record of a run", "run/run.json", "[]", 'run/run.json: it does not describe a run: expected "format"'],
    [
      "has a record of another version",
      "run/run.json",
      '{"format":"diffmamba-run","version":2,"parts":[{"settings":{},"training":{},"versions":{}}]}',
      'its "version" is 2',
    ],
    [
      "has a state that is none",
      "run/step-2/training/state.json",
      "{}",
      "run/step-2/training/state.json: not a training state",
    ],
    [
      "has a state that is no JSON",
      "run/step-2/training/state.json",
      "",
      "cannot read run/step-2/training/state.json: it does not hold JSON",
    ],
    [
      "has moments cut short",
      "run/step-2/training/optimizer.safetensors",
      "short",
      "run/step-2/training/optimizer.safetensors: 5 bytes",
    ],
    ["has weights cut short", "run/step-2/model.safetensors", "short", "run/step-2/model.safetensors: 5 bytes"],
  ])("%s", async (_, path, content, message) => {
    const files = memoryFiles();
    await run(files, { steps: 2 });
    await put(files, path, content);
    expect((await errorOf(run(files))).message).toContain(message);
    expect(await namesIn(files, "run")).not.toContain("lock");
  });

  it("has a checkpoint without the training state", async () => {
    const files = memoryFiles();
    await run(files, { steps: 2 });
    await files.remove("run/step-2/training");
    await expect(run(files)).rejects.toThrow(
      "run/step-2: has no training/state.json: a model that can be used, but no run",
    );
  });
});
