// Layer: apps/cli. How far a preparation or an evaluation is, on stderr: a bar where it is a terminal, a line now and then where not.
// Knows their progress. Knows no command; a run of training has a bar of its own.
import process from "node:process";
import type { DocumentProgress, DownloadProgress, PrepareProgress } from "@diffmamba/datasets";
import type { EvaluationProgress, TaskProgress } from "@diffmamba/eval";
import cliProgress from "cli-progress";
import type { Terminal } from "./terminal.js";
import { count } from "./text.js";

/** Milliseconds between two lines where stderr is no terminal, and before the first one unless told. */
const lineEvery = 10_000;
/** Before the first line of what prepares data. */
const firstLine = 2_000;

export interface Progress<T> {
  show(progress: T): void;
  end(): void;
}

/** A bar, or lines, of one thing that goes from 0 to a total. */
export function progressBar(terminal: Terminal, title: string, first = lineEvery) {
  let bar: cliProgress.SingleBar | undefined;
  let nextLine = Date.now() + first;
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

const megabytes = (bytes: number): string => `${count(Math.round(bytes / 1e6))} MB`;

/** The progress of a data preparation: downloads, and what is read. Where the end is not known the bar stays empty. */
export function showPreparation(terminal: Terminal): Progress<PrepareProgress | DocumentProgress | DownloadProgress> {
  let phase = "";
  let bar = progressBar(terminal, "preparing", firstLine);
  let next = 0;
  return {
    show(progress) {
      // It may be called for every one of millions of documents.
      if (progress.phase === phase && Date.now() < next) return;
      next = Date.now() + 50;
      if (progress.phase !== phase && terminal.interactive) {
        bar.end(); // another phase has another end
        bar = progressBar(terminal, "preparing", firstLine);
      }
      phase = progress.phase;
      if ("documents" in progress) {
        const { documents, characters } = progress;
        const done = `${count(documents)} documents, ${count(Math.round(characters / 1e6))} million characters`;
        bar.update(0, 1, `${done} ${phase === "measure" ? "measured" : "read"}`);
        return;
      }
      const { bytes, total } = progress;
      const done = { download: "fetched", check: "checked", measure: "measured", encode: "encoded" }[progress.phase];
      const of = total === undefined ? "" : ` of ${megabytes(total)}`;
      bar.update(total === undefined ? 0 : bytes, total ?? 1, `${megabytes(bytes)}${of} ${done}`);
    },
    end: () => bar.end(),
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
