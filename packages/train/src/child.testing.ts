// Layer: train, for tests. A program that trains a small model in a process of its own, to be stopped, killed, starved and measured:
// `train FOLDER STEPS [slow]` or `measure`. Bundled by bundle.testing.ts.

import type { FileSystem } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { nodeFiles } from "@diffmamba/files/node";
import { reference } from "@diffmamba/tensor";
import { bigramRun, mambaRun } from "./bigram.testing.js";
import type { TrainEvent } from "./events.js";
import { nodeHost, stopSignals } from "./node.js";
import type { TrainerOptions } from "./options.js";
import { Trainer } from "./trainer.js";

const device = reference();

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

const atNoInterval = { evaluateEvery: undefined, sampleEvery: undefined } as unknown as Partial<TrainerOptions>;

async function train(folder: string, steps: number, slow: boolean): Promise<void> {
  using stop = stopSignals({ onStop: (signal) => say(`asked by ${signal}`) });
  const options = bigramRun(device, nodeFiles(), {
    ...atNoInterval,
    folder,
    steps,
    resume: true,
    checkpointEvery: 5,
    host: nodeHost(),
    now: () => performance.now(),
    onEvent: (event) => say(JSON.stringify(event)),
    // A file system of a busy day, so that a signal finds the run anywhere.
    ...(slow && { files: slowFiles(nodeFiles()) }),
  });
  try {
    await new Trainer(options).run({ signal: stop.signal });
    process.exitCode = stop.exitCode ?? 0;
  } catch (error) {
    say(`failed: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}

function slowFiles(files: FileSystem): FileSystem {
  const pause = () => new Promise((resolve) => setTimeout(resolve, 20));
  return { ...files, writer: (path, how) => pause().then(() => files.writer(path, how)) };
}

interface Memory {
  readonly step: number;
  readonly tensors: number;
  readonly bytes: number;
  readonly arrayBuffers: number;
  readonly rss: number;
}

/**
 * Memory at steps 2 and 200 of a run of 210, where the next step is under way both times. A first run is not looked at: in it
 * the engine compiles what it runs, which costs it several megabytes.
 */
async function measure(): Promise<void> {
  const found: Memory[] = [];
  const look = (event: TrainEvent) => {
    if (event.type !== "step" || (event.step !== 2 && event.step !== 200)) return;
    for (let i = 0; i < 4; i++) globalThis.gc?.();
    const { tensors, bytes } = device.memory();
    const { arrayBuffers, rss } = process.memoryUsage();
    found.push({ step: event.step, tensors, bytes, arrayBuffers, rss });
  };
  const runs = [
    { steps: 100, onEvent: () => undefined },
    { steps: 210, onEvent: look },
  ];
  for (const change of runs) {
    const options = mambaRun(device, memoryFiles(), { ...atNoInterval, ...change });
    await new Trainer(options).run();
    options.model.dispose();
  }
  say(JSON.stringify(found));
}

const [command, folder = "", steps = "0", slow] = process.argv.slice(2);
if (command === "train") await train(folder, Number(steps), slow === "slow");
else await measure();
