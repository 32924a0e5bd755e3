// Layer: apps/cli, demo. The progress of runs side by side: bars on a terminal, a line now and then elsewhere.
// Knows runs as children. Knows no model.
import process from "node:process";
import cliProgress from "cli-progress";
import { count } from "../text.js";
import type { TrainChild } from "./child.js";

/** Milliseconds between two looks, and between two lines where stderr is no terminal. */
const lookEvery = 500;
const lineEvery = 10_000;

const bits = (nats: number): string => (nats / Math.LN2).toFixed(3);

async function describe(run: TrainChild): Promise<{ step: number; text: string }> {
  const { line, evaluation } = await run.latest();
  if (line === undefined) return { step: 0, text: "starting" };
  const heldOut = evaluation === undefined ? "" : `   held out ${bits(evaluation.loss)}`;
  return { step: line.step, text: `loss ${line.loss === null ? "?" : bits(line.loss)} bits${heldOut}` };
}

/** Shows how far the runs are until `until` is settled. */
export async function watch(runs: readonly TrainChild[], steps: number, until: Promise<unknown>): Promise<void> {
  let done = false;
  const ended = until.then(
    () => undefined,
    () => undefined,
  );
  void ended.then(() => {
    done = true;
  });
  const width = Math.max(...runs.map(({ name }) => name.length));
  const title = (run: TrainChild) => run.name.padEnd(width);
  const bars = process.stderr.isTTY
    ? new cliProgress.MultiBar({
        format: " {title} {bar} {value}/{total}   {text}",
        barsize: 24,
        barCompleteChar: "\u2588",
        barIncompleteChar: "\u2591",
        hideCursor: true,
        stream: process.stderr,
      })
    : undefined;
  const own = runs.map((run) => bars?.create(steps, 0, { title: title(run), text: "starting" }));
  let nextLine = Date.now() + lineEvery;
  const look = async () => {
    const states = await Promise.all(runs.map(describe));
    for (const [i, { step, text }] of states.entries()) own[i]?.update(step, { title: title(runs[i]), text });
    if (bars !== undefined || Date.now() < nextLine) return;
    nextLine = Date.now() + lineEvery;
    for (const [i, { step, text }] of states.entries()) {
      process.stderr.write(` ${title(runs[i])}  ${count(step)}/${count(steps)}   ${text}\n`);
    }
  };
  while (!done) {
    await look();
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, lookEvery))]);
  }
  nextLine = 0;
  await look();
  bars?.stop();
}
