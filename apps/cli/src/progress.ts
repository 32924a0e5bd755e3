// Layer: apps/cli. How far a preparation or an evaluation is, on stderr: a bar where it is a terminal, a line now and then where not.
// Knows their progress. Knows no command; a run of training has a bar of its own.
import process from "node:process";
import type { PrepareProgress } from "@diffmamba/datasets";
import type { EvaluationProgress, TaskProgress } from "@diffmamba/eval";
import cliProgress from "cli-progress";
import type { Terminal } from "./terminal.js";
import { count } from "./text.js";

/** Milliseconds between two lines where stderr is no terminal, and before the first one. */
const lineEvery = 10_000;

export interface Progress<T> {
  show(progress: T): void;
  end(): void;
}

/** A bar, or lines, of one thing that goes from 0 to a total. */
function progressBar(terminal: Terminal, title: string) {
  let bar: cliProgress.SingleBar | undefined;
  let nextLine = Date.now() + lineEvery;
  return {
    update(value: number, total: number, text: string): void {
      if (terminal.interactive) {
        if (bar === undefined) {
          const look = { barsize: 20, barCompleteChar: "\u2588", barIncompleteChar: "\u2591" };
          const format = ` ${title} {bar} {text}`;
          bar = new cliProgress.SingleBar({
            ...look,
            format,
            hideCursor: true,
            clearOnComplete: true,
            stream: process.stderr,
          });
          bar.start(total, value, { text });
        }
        bar.update(value, { text });
      } else if (Date.now() >= nextLine) {
        nextLine = Date.now() + lineEvery;
        terminal.note(` ${title} ${text}`);
      }
    },
    end: () => bar?.stop(),
  };
}

/** The progress of a data preparation. */
export function showPreparation(terminal: Terminal): Progress<PrepareProgress> {
  const bar = progressBar(terminal, "preparing");
  return {
    show({ phase, bytes, total }) {
      const read = `${count(Math.round(bytes / 1e6))} MB ${phase === "measure" ? "measured" : "encoded"}`;
      // The measuring pass does not know its end: the bar stays empty until the second one.
      bar.update(total === undefined ? 0 : bytes, total ?? 1, read);
    },
    end: bar.end,
  };
}

/** The progress of an evaluation. */
export function showEvaluation(terminal: Terminal, title = "scoring"): Progress<EvaluationProgress> {
  const bar = progressBar(terminal, title);
  return {
    show: ({ tokens, total, nll }) =>
      bar.update(tokens, total, `${count(tokens)}/${count(total)} tokens, loss ${nll.toFixed(4)}`),
    end: bar.end,
  };
}

/** The progress of a number of steps. */
export function showSteps(
  terminal: Terminal,
  title: string,
): Progress<{ readonly step: number; readonly steps: number }> {
  const bar = progressBar(terminal, title);
  return { show: ({ step, steps }) => bar.update(step, steps, `${count(step)}/${count(steps)} steps`), end: bar.end };
}

/** The progress of a task. */
export function showTask(terminal: Terminal): Progress<TaskProgress> {
  const bar = progressBar(terminal, "asking");
  return {
    show: ({ task, done, total }) => bar.update(done, total, `${task} ${count(done)}/${count(total)} requests`),
    end: bar.end,
  };
}

/** The progress of a reading of long documents. */
export function showPositions(
  terminal: Terminal,
  total: number,
): Progress<{ readonly documents: number; readonly tokens: number }> {
  const bar = progressBar(terminal, "reading");
  return {
    show: ({ documents, tokens }) =>
      bar.update(tokens, total, `${count(tokens)}/${count(total)} tokens, ${count(documents)} documents done`),
    end: bar.end,
  };
}
