// Layer: train, tests of crashes: whatever file operation fails, kills or tears, a checkpoint can be loaded and the run goes on from it
// to the same bits.
import { FileError, type FileSystem } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { type FaultOptions, faultyFiles } from "@diffmamba/files/testing";
import { AdamW, decayGroups } from "@diffmamba/nn";
import { reference } from "@diffmamba/tensor";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Bigram, bigramRun, testHost } from "./bigram.testing.js";
import { readCheckpoint } from "./checkpoint.js";
import { TrainingError } from "./errors.js";
import type { TrainerOptions } from "./options.js";
import { resolveCheckpoint } from "./runFolder.js";
import { contentOf, copyOf, namesIn, type RunContent } from "./runs.testing.js";
import { Trainer } from "./trainer.js";

const device = reference();
afterAll(() => device.dispose());

/** Lines are flushed now and then between the saves too. */
const slowClock = () => {
  let time = 0;
  return () => {
    time += 350;
    return time;
  };
};

async function run(files: FileSystem, name: string, change: Partial<TrainerOptions> = {}): Promise<Error | undefined> {
  // Each run is a process of its own; those before are dead.
  const options = bigramRun(device, files, {
    resume: true,
    host: testHost(name),
    now: slowClock(),
    keepLast: 1,
    steps: 4,
    ...change,
  });
  using _ = options.model;
  return await new Trainer(options).run().then(
    () => undefined,
    (error: Error) => error,
  );
}

/** Step of the checkpoint that a run's folder means, loaded whole. */
async function loaded(files: FileSystem): Promise<number> {
  using model = new Bigram({ device });
  const groups = decayGroups(model, 0.1);
  const optimizer = new AdamW(groups);
  try {
    const checkpoint = await resolveCheckpoint(files, "run");
    return (await readCheckpoint(files, checkpoint, { model, optimizer, groups: groups.length })).step;
  } finally {
    optimizer.dispose();
  }
}

async function bytesIn(files: FileSystem, path: string): Promise<number> {
  const found = await files.stat(path);
  if (found?.kind === "file") return found.size;
  let sum = 0;
  for (const name of await namesIn(files, path)) sum += await bytesIn(files, `${path}/${name}`);
  return sum;
}

let begun: FileSystem;
let whole: RunContent;
let operations: number;

beforeAll(async () => {
  begun = memoryFiles();
  expect(await run(begun, "first", { steps: 2 })).toBeUndefined();
  const files = faultyFiles(await copyOf(begun, "run"));
  expect(await run(files, "second")).toBeUndefined();
  operations = files.operations;
  whole = await contentOf(files);
  // Two saves, each of weights, moments and state, beside the lock, the record and the lines.
  expect(operations).toBeGreaterThan(60);
});

async function struck(fault: FaultOptions, label: string): Promise<void> {
  const inner = await copyOf(begun, "run");
  const files = faultyFiles(inner, fault);
  const events: string[] = [];
  const error = await run(files, "struck", {
    onEvent: (event) => event.type === "warning" && events.push(event.message),
  });
  expect(files.failed, label).toBe(true);
  // Nothing goes wrong in silence: an error, a warning, or a lock that was not given up.
  if (error === undefined && events.length === 0)
    expect(files.log[(fault.failAt ?? 0) - 1], label).toBe("remove run/lock");
  const step = await loaded(inner);
  expect([2, 3, 4], label).toContain(step);
  if (error instanceof TrainingError) expect(error.message, label).toContain(`The last good checkpoint is run/step-`);
  if (error instanceof TrainingError && fault.mode === "error")
    expect(error.checkpoint, label).toBe(`run/step-${step}`);
  expect(await run(inner, "last"), label).toBeUndefined();
  expect(await contentOf(inner), label).toEqual(whole);
  expect(
    (await namesIn(inner, "run")).filter((name) => /tmp|lock/.test(name)),
    label,
  ).toEqual([]);
}

describe("a run whose files fail", () => {
  it.each(["error", "kill", "partial"] as const)(
    "at any operation (%s) has a checkpoint and goes on to the same bits",
    { timeout: 300_000 },
    async (mode) => {
      for (let failAt = 1; failAt <= operations; failAt++)
        await struck({ failAt, mode }, `operation ${failAt}, ${mode}`);
    },
  );

  it("at any operation of its beginning can be started again", async () => {
    const start = { steps: 2 } as const;
    const counted = faultyFiles(memoryFiles());
    await run(counted, "count", start);
    for (const mode of ["error", "kill", "partial"] as const) {
      for (let failAt = 1; failAt <= counted.operations; failAt++) {
        const inner = memoryFiles();
        await run(faultyFiles(inner, { failAt, mode }), "struck", start);
        expect(await run(inner, "last"), `operation ${failAt}, ${mode}`).toBeUndefined();
        const { weights, metrics } = await contentOf(inner);
        expect(weights).toEqual(whole.weights);
        expect(metrics.map(({ step }) => step)).toEqual([1, 2, 3, 4]);
      }
    }
  });

  it("for want of space names the file and the last good checkpoint, and gives its space back", async () => {
    const used = await bytesIn(begun, "run");
    // Room for the record, some lines and half of a checkpoint.
    const room = 1.7 * (await bytesIn(begun, "run/run.json")) + 600 + (await bytesIn(begun, "run/step-2")) / 2;
    const files = memoryFiles({ capacity: used + Math.round(room) });
    await copyOf(begun, "run", files);
    const error = await run(files, "full");
    expect(error).toBeInstanceOf(TrainingError);
    expect(error?.cause).toBeInstanceOf(FileError);
    expect(error?.cause).toMatchObject({ code: "full", path: expect.stringMatching(/^run\/step-3\.tmp\//) });
    expect(error?.message).toMatch(
      /^step 3: cannot write run\/step-3\.tmp\/.*no space left.* The last good checkpoint is run\/step-2\.$/,
    );
    expect(await namesIn(files, "run")).toEqual([
      ...["best", "last", "metrics.jsonl", "run.json", "samples.jsonl", "step-2"],
    ]);
    const roomy = await copyOf(files, "run");
    expect(await run(roomy, "again")).toBeUndefined();
    expect((await contentOf(roomy)).weights).toEqual(whole.weights);
  });
});
