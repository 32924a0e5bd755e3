// Layer: apps/cli, report. Curves as SVG text, through Observable Plot on a DOM without a browser; colours are the page's CSS variables.
// Knows runs as data. Knows no page and no file.
import { smoothed } from "@diffmamba/eval";
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import { Html } from "./html.js";
import { type LossUnit, type Point, type RunData, thinOut } from "./runData.js";

/** How many colours the page defines for runs, as `--run-0` and so on. */
export const runColors = 6;

export const runColor = (index: number): string => `var(--run-${index % runColors})`;

/** Colour of a layer, from the first to the last of `count`. */
export const layerColor = (index: number, count: number): string => {
  const share = count < 2 ? 0 : Math.round((100 * index) / (count - 1));
  return `color-mix(in oklab, var(--layer-last) ${share}%, var(--layer-first))`;
};

/** A width of the drawing in pixels; the page shows the one that fits. */
export interface ChartSize {
  readonly width: number;
  readonly height: number;
}

const curvePoints = 300;

function draw(size: ChartSize, label: string, options: Plot.PlotOptions): Html {
  const { document } = parseHTML("<!doctype html><html><body></body></html>");
  const narrow = size.width < 500;
  const svg = Plot.plot({
    document: document as unknown as Document,
    ...size,
    marginLeft: 40,
    marginRight: narrow ? 12 : 20,
    marginTop: 24,
    marginBottom: 42,
    style: { background: "none", color: "inherit", fontFamily: "inherit", fontSize: "12px", overflow: "visible" },
    ...options,
    x: { label: "step", ticks: narrow ? 4 : 8, tickFormat: "~s", labelArrow: "none", labelOffset: 38, ...options.x },
  });
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  return new Html(svg.outerHTML);
}

const scaled = (points: readonly Point[], factor: number) =>
  points.map(({ step, value }) => ({ step, value: value * factor }));

/** A frame for the losses: untrained losses are far above all others, and would flatten what is to be seen. */
function lossDomain(runs: readonly RunData[], factor: number): [number, number] {
  const values = runs
    .flatMap(({ train, heldOut }) => [...thinOut(train, curvePoints), ...heldOut])
    .map(({ value }) => value * factor)
    .filter(Number.isFinite);
  if (values.length === 0) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = 0.04 * (high - low || 1);
  return [low - margin, high + margin];
}

/** Training loss (thin) and held-out loss (thick, with points) of every run over the steps. */
export function lossChart(runs: readonly RunData[], unit: LossUnit, size: ChartSize): Html {
  const marks = runs.flatMap((run, i) => {
    const color = runColor(i);
    const heldOut = scaled(run.heldOut, unit.factor);
    return [
      Plot.line(scaled(thinOut(run.train, curvePoints), unit.factor), {
        x: "step",
        y: "value",
        stroke: color,
        strokeWidth: 1,
        strokeOpacity: 0.45,
      }),
      Plot.line(heldOut, { x: "step", y: "value", stroke: color, strokeWidth: 2 }),
      Plot.dot(heldOut.length <= 40 ? heldOut : heldOut.slice(-1), { x: "step", y: "value", fill: color, r: 2.5 }),
    ];
  });
  return draw(size, `Loss of ${runs.map(({ name }) => name).join(", ")} in ${unit.name} over the training steps`, {
    y: { label: unit.name, domain: lossDomain(runs, unit.factor), labelArrow: "none", ticks: 6 },
    marks: [Plot.gridY({ ticks: 6, strokeOpacity: 0.12 }), ...marks],
  });
}

/** Lambda of each differential layer of a run over the steps. */
export function lambdaChart(run: RunData, size: ChartSize): Html {
  const count = run.lambdas.length;
  const marks = run.lambdas.map(({ points }, i) =>
    Plot.line(thinOut(points, curvePoints) as Point[], {
      x: "step",
      y: "value",
      stroke: layerColor(i, count),
      strokeWidth: 1.6,
    }),
  );
  return draw(size, `Lambda of the ${count} differential layers of ${run.name} over the training steps`, {
    y: { label: "lambda", labelArrow: "none", ticks: 5, nice: true },
    marks: [Plot.gridY({ ticks: 5, strokeOpacity: 0.12 }), ...marks],
  });
}

/** Mean loss at each position of a document. */
export interface PositionCurve {
  readonly name: string;
  /** Nats at each position, from 0. */
  readonly loss: readonly number[];
}

/** Losses by position, each curve as it is (thin) and smoothed over `width` positions (thick), with a line where training windows ended. */
export function positionChart(
  curves: readonly PositionCurve[],
  { width, trained }: { readonly width: number; readonly trained: readonly number[] },
  size: ChartSize,
): Html {
  const points = (values: readonly number[]) =>
    thinOut(
      values.map((value, step) => ({ step, value })),
      2 * curvePoints,
    ) as Point[];
  const smooth = curves.map(({ loss }) => points(smoothed(loss, width)));
  const marks = curves.flatMap(({ loss }, i) => [
    Plot.line(points(loss), { x: "step", y: "value", stroke: runColor(i), strokeWidth: 0.8, strokeOpacity: 0.35 }),
    Plot.line(smooth[i], { x: "step", y: "value", stroke: runColor(i), strokeWidth: 2 }),
  ]);
  const values = smooth.flatMap((line) => line.map(({ value }) => value));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = 0.08 * (high - low || 1);
  return draw(size, `Loss of ${curves.map(({ name }) => name).join(", ")} at each position of long documents`, {
    clip: true,
    x: { label: "position" },
    y: { label: "nats per token", domain: [low - margin, high + margin], labelArrow: "none", ticks: 6 },
    marks: [
      Plot.gridY({ ticks: 6, strokeOpacity: 0.12 }),
      Plot.ruleX(trained, { strokeDasharray: "4 3", strokeOpacity: 0.5 }),
      ...marks,
    ],
  });
}
