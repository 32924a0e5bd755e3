// Layer: apps/cli, evaluation. Results as text for a terminal. Knows results. Knows no model.
import type { MetricResult } from "@diffmamba/eval";
import { count } from "../text.js";
import type { TaskOutcome } from "./tasks.js";

const number = (value: number): string => (Math.abs(value) >= 1000 ? value.toPrecision(5) : value.toFixed(4));

function metricCells(name: string, { value, stderr, interval, higherIsBetter }: MetricResult): string[] {
  return [
    `${name} ${higherIsBetter ? "↑" : "↓"}`,
    number(value),
    stderr === null ? "" : `± ${number(stderr)}`,
    interval === null ? "" : `${number(interval[0])} – ${number(interval[1])}`,
  ];
}

/** Columns as wide as their widest cell, numbers on the right. */
function aligned(rows: readonly (readonly string[])[], right: ReadonlySet<number>): string {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  return rows
    .map((row) =>
      row
        .map((cell, i) => (right.has(i) ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** A line for each metric of each task. */
export function tasksTable(results: readonly TaskOutcome[]): string {
  const head = ["task", "version", "shots", "documents", "metric", "value", "error", "95 of 100"];
  const rows = results.flatMap(({ task, version, numFewshot, documents, available, metrics }) =>
    Object.entries(metrics).map(([name, metric], i) => {
      const amount = documents < available ? `${count(documents)} of ${count(available)}` : count(documents);
      const first = i === 0 ? [task, version, String(numFewshot), amount] : ["", "", "", ""];
      return [...first, ...metricCells(name, metric)];
    }),
  );
  return aligned([head, ...rows], new Set([2, 3, 5, 6]));
}
