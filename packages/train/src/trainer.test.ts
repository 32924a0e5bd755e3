// Layer: train, tests of the loop: what a run writes and tells, that it repeats, and how it ends when it cannot go on.
import { arraySource, rowBatches } from "@diffmamba/datasets";
import { memoryFiles } from "@diffmamba/files/memory";
import { schedules } from "@diffmamba/nn";
import { reference, type Tensor } from "@diffmamba/tensor";
import { afterAll, describe, expect, it, vi } from "vitest";
import { type Bigram, bigramData, bigramRun, VOCABULARY } from "./bigram.testing.js";
import { TrainingError } from "./errors.js";
import type { TrainEvent } from "./events.js";
import type { TrainerOptions } from "./options.js";
import { readRunRecord } from "./record.js";
import { contentOf, errorOf, namesIn } from "./runs.testing.js";
import { Trainer } from "./trainer.js";

const device = reference();
afterAll(() => device.dispose());

/** A whole small run: what it gave, what it told, what it left. */
async function trained(change: Partial<TrainerOptions> = {}, spoil: (model: Bigram) => void = () => undefined) {
  const files = memoryFiles();
  const events: TrainEvent[] = [];
  const options = bigramRun(device, files, { onEvent: (event) => events.push(event), ...change });
  using model = options.model;
  spoil(model);
  const before = device.memory().tensors;
  const outcome = await new Trainer(options).run().then(
    (result) => ({ result, error: undefined }),
    (error: Error) => ({ result: undefined, error }),
  );
  expect(device.memory().tensors).toBe(before);
  expect(model.training).toBe(true);
  expect(await namesIn(files, "run")).not.toContain("lock");
  return { files, events, ...outcome };
}

/** Makes a model's loss something else from a step on. */
function fromStep(step: number, change: (loss: Tensor) => Tensor) {
  return (model: Bigram) => {
    const { loss } = model;
    let calls = 0;
    model.loss = (tokens, targets) => {
      const value = loss.call(model, tokens, targets);
      // The probes before checkpoints and the evaluations do not count.
      return model.training && calls++ >= 2 * (step - 1) ? change(value) : value;
    };
  };
}

describe("a run", () => {
  it("asks for a step's numbers before it launches the next, which they are not to wait for", async () => {
    const reads = vi.spyOn(device.backend, "read");
    const updates = vi.spyOn(device.backend.kernels, "adamw");
    try {
      await trained({ steps: 2, record: false, lambdaEvery: 100 });
      // Of its two groups of parameters the first begins a step's update.
      const [first, , second] = updates.mock.invocationCallOrder;
      const between = reads.mock.invocationCallOrder.filter((at) => at > first && at < second);
      // Loss and norm.
      expect(between).toHaveLength(2);
    } finally {
      reads.mockRestore();
      updates.mockRestore();
    }
  });

  it("writes its record, metrics, samples and checkpoints, and keeps the last two and the best", async () => {
    const { files, result, events } = await trained({
      evaluate: async ({ step }) => ({ loss: step === 3 ? 1 : 2, tokens: 5 }),
    });
    expect(await namesIn(files, "run")).toEqual([
      "best",
      "last",
      "metrics.jsonl",
      "run.json",
      "samples.jsonl",
      "step-3",
      "step-4",
      "step-6",
    ]);
    expect(await namesIn(files, "run/step-6")).toEqual(["config.json", "model.safetensors", "training"]);
    expect(await namesIn(files, "run/step-6/training")).toEqual(["optimizer.safetensors", "state.json"]);
    expect(result).toEqual({
      stopped: "finished",
      step: 6,
      checkpoint: "run/step-6",
      evaluation: { loss: 2, tokens: 5 },
      best: { step: 3, loss: 1 },
    });
    const { metrics, samples } = await contentOf(files);
    expect(metrics.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(metrics.map(({ tokens }) => tokens)).toEqual([64, 128, 192, 256, 320, 384]);
    expect(metrics.map(({ lr }) => lr)).toEqual([0, 0.05 / 3, (0.05 * 2) / 3, 0.05, 0.05, 0.05]);
    expect(metrics.flatMap((line) => (line.eval ? [line.step] : []))).toEqual([3, 6]);
    expect(metrics.flatMap((line) => (line.lambda ? [line.step] : []))).toEqual([2, 4, 6]);
    expect(metrics[1]?.lambda?.[0]?.value).not.toBe(metrics[3]?.lambda?.[0]?.value);
    expect(metrics[5]?.loss).toBeLessThan(metrics[0]?.loss as number);
    expect(samples).toEqual([4, 6].map((step) => ({ step, text: `text of step ${step}` })));
    expect(events.map(({ type }) => type).join(" ")).toBe(
      "start step step checkpoint step evaluation checkpoint step sample checkpoint step step evaluation sample checkpoint end",
    );
    expect((await readRunRecord(files, "run")).parts).toMatchObject([
      { step: 0, settings: { seed: 7 }, training: { steps: 6 } },
    ]);
  });

  it("reads a step's numbers only after the next one was launched, unless something is due", async () => {
    const order: string[] = [];
    await trained(
      {
        evaluate: undefined as never,
        evaluateEvery: undefined as never,
        sample: undefined as never,
        sampleEvery: undefined as never,
        checkpointEvery: 3,
        onEvent: (event) => event.type === "step" && order.push(`read ${event.step}`),
      },
      (model) => {
        const { loss } = model;
        let calls = 0;
        model.loss = (...args) => {
          if (model.training && calls++ % 2 === 0) order.push("launch");
          return loss.apply(model, args);
        };
      },
    );
    expect(order.join(", ")).toBe(
      "launch, launch, read 1, launch, read 2, read 3, launch, launch, read 4, launch, read 5, read 6",
    );
  });

  it("sets dropout's clock before each micro-batch, and evaluates in evaluation mode", async () => {
    const seen: Promise<number>[] = [];
    const modes: boolean[] = [];
    const run = trained({ steps: 3, sample: async () => ({ text: "" }) }, (model) => {
      const { loss } = model;
      model.loss = (...args) => {
        if (model.training) seen.push(model.clock.step.clone().item());
        else modes.push(model.training);
        return loss.apply(model, args);
      };
    });
    await run.catch(() => undefined); // it counts tensors, and finds the clones
    expect(await Promise.all(seen)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(modes.length).toBeGreaterThan(0);
  });

  it("gives the same bits twice, and others with another seed", async () => {
    const content = async (change: Partial<TrainerOptions> = {}) => contentOf((await trained(change)).files);
    const first = await content();
    expect(await content()).toEqual(first);
    expect((await content({ data: bigramData(4) })).weights).not.toEqual(first.weights);
  });

  it("does not change the numbers by where it saves or logs", async () => {
    const first = await contentOf((await trained()).files);
    const { files } = await trained({ checkpointEvery: 1, keepLast: 9, logEvery: 2, keepBest: false });
    const second = await contentOf(files);
    expect(second.weights).toEqual(first.weights);
    expect(second.metrics).toEqual(first.metrics.filter(({ step }) => step % 2 === 0 || step === 3));
    expect((await namesIn(files, "run")).filter((name) => name.startsWith("step-"))).toHaveLength(6);
    expect(await namesIn(files, "run")).not.toContain("best");
  });

  it("adds files to each checkpoint", async () => {
    const { files } = await trained({
      saveExtra: async (to, folder) => void (await to.createExclusive(`${folder}/tokenizer.json`, new Uint8Array(1))),
    });
    expect(await namesIn(files, "run/step-4")).toContain("tokenizer.json");
  });

  it("lets the event loop turn at every step", async () => {
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    await trained({ onEvent: () => undefined, steps: 60, now: () => performance.now() });
    clearInterval(timer);
    expect(turns).toBeGreaterThan(2);
  });
});

describe("a run that cannot go on", () => {
  it("stops at a loss that is not finite, naming step, learning rate and the last good checkpoint", async () => {
    const { error, files, events } = await trained(
      {},
      fromStep(4, (loss) => loss.mul(Number.NaN)),
    );
    expect(error).toBeInstanceOf(TrainingError);
    expect(error).toMatchObject({ step: 4, learningRate: 0.05, checkpoint: "run/step-3" });
    expect(error?.message).toMatch(
      /^step 4: the loss is NaN at a learning rate of 0\.05; .* The last good checkpoint is run\/step-3\.$/,
    );
    expect(events.at(-1)).toMatchObject({ type: "end", error });
    const { metrics, checkpoint } = await contentOf(files);
    expect(checkpoint).toBe("run/step-3");
    expect(metrics.at(-1)).toMatchObject({ step: 4, loss: null, norm: null });
  });

  it("says so where there is no checkpoint yet", async () => {
    const { error } = await trained(
      {},
      fromStep(1, (loss) => loss.mul(Number.POSITIVE_INFINITY)),
    );
    expect(error?.message).toMatch(/^step 1: the loss is Infinity .* No checkpoint was saved yet\.$/);
  });

  it("never publishes weights whose own loss is not finite", async () => {
    const { error, files } = await trained({ evaluateEvery: 5 }, (model) => {
      const { loss } = model;
      let calls = 0;
      model.loss = (...args) => {
        const value = loss.apply(model, args);
        return !model.training && ++calls === 2 ? value.mul(Number.NaN) : value;
      };
    });
    expect(error?.message).toMatch(
      /^step 4: the loss is NaN after this step\. The last good checkpoint is run\/step-2\.$/,
    );
    expect(await namesIn(files, "run")).not.toContain("step-4");
  });

  it("stops at an evaluation that is not finite, and at one that fails", async () => {
    const nan = await trained({ evaluate: async () => ({ loss: Number.NaN, tokens: 1 }) });
    expect(nan.error?.message).toMatch(/^step 3: the evaluation's loss is NaN\. .*run\/step-2\.$/);
    const failed = await trained({ evaluate: () => Promise.reject(new Error("valid.txt: it is empty")) });
    expect(failed.error?.message).toBe("step 3: valid.txt: it is empty. The last good checkpoint is run/step-2.");
    expect(failed.error?.cause).toMatchObject({ message: "valid.txt: it is empty" });
  });

  it("goes on after a step whose gradients are not finite, and says so", async () => {
    let calls = 0;
    const { result, events, files } = await trained({ steps: 4 }, (model) => {
      const { loss } = model;
      model.loss = (tokens, targets) => {
        const value = loss.call(model, tokens, targets);
        // sqrt has an infinite slope at 0: a finite loss with gradients that are not
        const spoilt = model.training && [2, 3].includes(calls++);
        return spoilt ? value.add(model.gate.weight.sub(model.gate.weight).sqrt()) : value;
      };
    });
    expect(result?.stopped).toBe("finished");
    expect(events.filter(({ type }) => type === "warning")).toMatchObject([
      { step: 2, message: expect.stringMatching(/^the norm of the gradients is (NaN|Infinity); the step was skipped/) },
    ]);
    const { metrics, state } = await contentOf(files);
    expect(metrics[1]).toMatchObject({ step: 2, norm: null });
    expect(Number.isFinite(metrics[1]?.loss)).toBe(true);
    expect(state).toMatchObject({ step: 4, skipped: 0, optimizerSteps: [3, 3] });
  });

  it("stops after several of them in a row", async () => {
    const { error, events } = await trained({ maxSkipped: 3 }, (model) => {
      const { loss } = model;
      model.loss = (...args) => loss.apply(model, args).add(model.gate.weight.sub(model.gate.weight).sqrt());
    });
    expect(error?.message).toMatch(
      /^step 3: 3 steps in a row had gradients of norm \S+ at a learning rate of 0\.0333.* run\/step-2\.$/,
    );
    expect(events.filter(({ type }) => type === "warning")).toHaveLength(3);
  });

  it("stops where the data ends", async () => {
    const ids = Int32Array.from({ length: 80 }, (_, i) => i % VOCABULARY);
    const { error } = await trained({ data: rowBatches(arraySource(ids), { batchSize: 2, length: 8, epochs: 1 }) });
    expect(error?.message).toMatch(/^step 3: the data has come to its end; .*run\/step-2\.$/);
  });

  it("names the step and the checkpoint where the device fails", async () => {
    const { error } = await trained(
      {},
      fromStep(5, () => {
        throw new Error("out of memory");
      }),
    );
    expect(error?.message).toBe("step 5: out of memory. The last good checkpoint is run/step-4.");
  });
});

describe("the options", () => {
  it.each([
    ["steps", { steps: 0 }, "Trainer: steps is 0; it must be a whole number from 1 on."],
    ["microBatches", { microBatches: 1.5 }, "Trainer: microBatches is 1.5"],
    ["checkpointEvery", { checkpointEvery: -1 }, "Trainer: checkpointEvery is -1"],
    ["maxNorm", { maxNorm: 0 }, "Trainer: maxNorm is 0; it must be above 0."],
  ] as const)("are checked: %s", (_, change, message) => {
    const options = bigramRun(device, memoryFiles(), change);
    expect(() => new Trainer(options)).toThrow(message);
    options.model.dispose();
  });

  it("want an evaluate where there is an interval for it", () => {
    const { evaluate, ...options } = bigramRun(device, memoryFiles());
    expect(() => new Trainer(options)).toThrow("evaluateEvery is 3, but there is no evaluate.");
    options.model.dispose();
  });

  it("leave intervals out: then all is done at the end", async () => {
    const nothing = { evaluateEvery: undefined, sampleEvery: undefined, checkpointEvery: undefined } as never;
    const { files } = await trained({ ...(nothing as object), schedule: schedules.constant(0.01) });
    expect((await namesIn(files, "run")).filter((name) => name.startsWith("step-"))).toEqual(["step-6"]);
    expect((await contentOf(files)).metrics.flatMap((line) => (line.eval ? [line.step] : []))).toEqual([6]);
  });
});

it("reports errors of the folder as they are", async () => {
  const files = memoryFiles();
  await files.createExclusive("run", new Uint8Array(1));
  const options = bigramRun(device, files);
  const error = await errorOf(new Trainer(options).run());
  expect(error.message).toMatch(/^cannot make directory run: /);
  options.model.dispose();
});
