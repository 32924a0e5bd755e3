// Layer: train. Events as text: what a progress bar or a log shows of a run.
// Knows events. Knows no terminal.

import type { RunResult, StepEvent, TrainEvent } from "./events.js";

const count = (n: number): string => n.toLocaleString("en-US");

/** 1,234 -> "1.2k", for rates. */
export function shortRate(n: number): string {
  if (n >= 1e6) return `${(n / 1e6).toFixed(1)}M`;
  if (n >= 1e4) return `${Math.round(n / 1e3)}k`;
  if (n >= 1e3) return `${(n / 1e3).toFixed(1)}k`;
  return n.toFixed(0);
}

/** Seconds as "42 s", "3 min 10 s", "2 h 5 min" or "3 d 4 h". */
export function shortTime(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** The numbers of a step: `loss 1.234  lr 5.0e-4  norm 0.52  12k tok/s  3 min 2 s left`. */
export function stepText({ loss, lr, norm, tokensPerSecond, secondsLeft }: StepEvent): string {
  return [
    `loss ${loss.toFixed(3)}`,
    `lr ${lr.toExponential(1)}`,
    `norm ${norm.toFixed(2)}`,
    `${shortRate(tokensPerSecond)} tok/s`,
    `${shortTime(secondsLeft)} left`,
  ].join("  ");
}

function endText({ stopped, step, checkpoint, best }: RunResult): string {
  const saved = checkpoint === undefined ? "nothing was saved" : `saved ${checkpoint}`;
  if (stopped === "signal") return `stopped after step ${count(step)}; ${saved}`;
  const bestText = best === undefined ? "" : `, best loss ${best.loss.toFixed(4)} at step ${count(best.step)}`;
  return `done: ${count(step)} steps, ${saved}${bestText}`;
}

/** The line that an event leaves in a log; undefined for one that leaves none. Steps are the caller's to thin out. */
export function eventText(event: TrainEvent): string | undefined {
  switch (event.type) {
    case "start": {
      const from = event.resumedFrom === undefined ? "" : `, going on from ${event.resumedFrom}`;
      return `${event.folder}: ${count(event.parameters)} parameters, ${count(event.steps)} steps${from}`;
    }
    case "step":
      return `step ${count(event.step)}/${count(event.steps)}  ${stepText(event)}`;
    case "evaluation": {
      const { loss, bpb } = event.evaluation;
      const bits = bpb === undefined ? "" : ` (${bpb.toFixed(4)} bits per byte)`;
      return `step ${count(event.step)}: evaluation loss ${loss.toFixed(4)}${bits}${event.best ? ", the best so far" : ""}`;
    }
    case "sample":
      return `step ${count(event.step)}: sample ${JSON.stringify(event.sample.text)}`;
    case "warning":
      return `step ${count(event.step)}: warning: ${event.message}`;
    case "checkpoint":
      return undefined;
    case "end":
      return event.result === undefined ? undefined : endText(event.result);
  }
}
