// Layer: apps/playground, page. The loss curves of both models: thin while training (smoothed), thick on the held-out text.
// Knows uPlot and the page's colours. Knows no worker.

import uPlot from "uplot";
import { type Contender, contenders } from "../protocol.js";
import { byId, oncePerFrame } from "./elements.js";

const titles = { vanilla: "Mamba-2", differential: "Diff-Mamba-2" } as const;
/** What share a new step has in the thin curve. */
const newest = 0.14;

interface Curve {
  /** By place in the list of steps; null where there is nothing. */
  training: (number | null)[];
  heldOut: (number | null)[];
}

export class Curves {
  #steps: number[] = [];
  #curves: Record<Contender, Curve> = fresh();
  #last = 0;
  #plot: uPlot | undefined;
  #unit = "bits a character";
  readonly #element = byId("chart", HTMLDivElement);
  readonly #paint = oncePerFrame(() => this.#draw());

  constructor() {
    new ResizeObserver(() => this.#resize()).observe(this.#element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#rebuild());
  }

  /** Begins anew. @param steps how far the run is to go */
  reset(steps: number, unit: string): void {
    this.#steps = [];
    this.#curves = fresh();
    this.#unit = unit;
    this.reach(steps);
    this.#rebuild();
  }

  /** The run goes to this step. */
  reach(steps: number): void {
    this.#last = steps;
    this.#paint();
  }

  step(slot: Contender, step: number, bits: number): void {
    const at = this.#place(step);
    const { training, heldOut } = this.#curves[slot];
    // After an interruption the run goes on further back: what was ahead is taken again.
    for (const list of [training, heldOut]) list.fill(null, at);
    const before = training[at - 1];
    training[at] = before === null || before === undefined ? bits : before + newest * (bits - before);
    this.#paint();
  }

  heldOut(slot: Contender, step: number, bits: number): void {
    this.#curves[slot].heldOut[this.#place(step)] = bits;
    this.#label();
    this.#paint();
  }

  /** The last score of a model. */
  latest(slot: Contender): number | undefined {
    return this.#curves[slot].heldOut.findLast((value) => value !== null) ?? undefined;
  }

  /** Where a step stands in the list; steps come in order, but for those that are taken again. */
  #place(step: number): number {
    const found = this.#steps.indexOf(step, Math.max(0, this.#steps.length - 4));
    const at = found >= 0 ? found : this.#steps.indexOf(step);
    if (at >= 0) return at;
    this.#steps.push(step);
    for (const name of contenders) for (const list of Object.values(this.#curves[name])) list.push(null);
    return this.#steps.length - 1;
  }

  #data(): uPlot.AlignedData {
    const { vanilla, differential } = this.#curves;
    return [this.#steps, vanilla.training, differential.training, vanilla.heldOut, differential.heldOut];
  }

  #draw(): void {
    this.#plot?.setData(this.#data());
  }

  #resize(): void {
    const { clientWidth: width, clientHeight: height } = this.#element;
    if (width > 0) this.#plot?.setSize({ width, height });
  }

  #label(): void {
    const parts = contenders.map((name) => `${titles[name]} ${this.latest(name)?.toFixed(3) ?? "not scored yet"}`);
    this.#element.setAttribute("aria-label", `Loss in ${this.#unit} on held-out text: ${parts.join(", ")}.`);
  }

  /** The first fall is left out of the picture once it is a small part of the run, or it would flatten all that follows. */
  #range(least: number, most: number): [number, number] {
    const from = this.#steps.findIndex((step) => step > 0 && step >= 0.06 * (this.#steps.at(-1) ?? 0));
    const late =
      from < 12
        ? []
        : Object.values(this.#curves).flatMap((curve) => Object.values(curve).flatMap((list) => list.slice(from)));
    const top = Math.max(...late.map((value) => value ?? 0), 0) || most;
    const room = Math.max(0.03, 0.06 * (top - least));
    return [Math.max(0, least - room), top + room];
  }

  /** The plot takes its colours when it is made. */
  #rebuild(): void {
    if (this.#steps.length === 0 && this.#plot === undefined && this.#last === 0) return;
    byId("chart-empty", HTMLDivElement).hidden = true;
    this.#plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string) => style.getPropertyValue(`--${name}`).trim();
    const axis: uPlot.Axis = {
      stroke: colour("ink-soft"),
      font: `12px ${colour("sans")}`,
      grid: { stroke: colour("line"), width: 1 },
      ticks: { show: false },
    };
    const thin = (name: Contender): uPlot.Series => ({
      label: `${titles[name]}, training`,
      stroke: `color-mix(in srgb, ${colour(name)} 62%, transparent)`,
      width: 1,
      spanGaps: true,
      points: { show: false },
    });
    const thick = (name: Contender): uPlot.Series => ({
      label: `${titles[name]}, held out`,
      stroke: colour(name),
      width: 2.5,
      spanGaps: true,
      points: { show: true, size: 6, fill: colour(name), width: 0 },
    });
    const { clientWidth: width, clientHeight: height } = this.#element;
    this.#plot = new uPlot(
      {
        width,
        height,
        padding: [8, 18, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 8 } },
        scales: {
          x: { time: false, range: () => [0, Math.max(this.#last, this.#steps.at(-1) ?? 0, 1)] },
          y: { range: (_, least, most) => (Number.isFinite(most) ? this.#range(least, most) : [0, 8]) },
        },
        axes: [
          { ...axis, size: 28, gap: 6, space: 70 },
          { ...axis, size: 38, gap: 6, space: 36 },
        ],
        series: [{ label: "step" }, ...contenders.map(thin), ...contenders.map(thick)],
      },
      this.#data(),
      this.#element,
    );
    this.#label();
  }
}

const fresh = (): Record<Contender, Curve> => ({
  vanilla: { training: [], heldOut: [] },
  differential: { training: [], heldOut: [] },
});
