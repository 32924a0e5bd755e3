// Layer: apps/bench. Rows as a table for people. Knows rows.
import type { Row } from "./row.js";

/** Four significant digits, without an exponent where one can do without. */
function digits(value: number): string {
  if (Number.isInteger(value)) return String(value);
  return value >= 1000 ? Math.round(value).toLocaleString("en").replaceAll(",", "") : value.toPrecision(4);
}

/** A row in a line of its own. */
export function rowLine({ name, shape, value, unit, peer, peerValue }: Row): string {
  const beside = peer === null || peerValue === null ? "" : ` (${peer}: ${digits(peerValue)})`;
  return `${name} ${shape}: ${digits(value)} ${unit}${beside}`;
}

/** Aligned columns, one line a row; numbers to the right. */
export function table(rows: readonly Row[]): string {
  const heads = ["suite", "name", "shape", "threads", "value", "unit", "spread", "peer", "peer's", "ratio"];
  const right = new Set([3, 4, 6, 8, 9]);
  const lines = rows.map((row) => [
    row.suite,
    row.name,
    row.shape,
    row.threads === null ? "" : String(row.threads),
    digits(row.value),
    row.unit,
    `${(100 * row.spread).toFixed(0)}%`,
    row.peer ?? "",
    row.peerValue === null ? "" : digits(row.peerValue),
    row.ratio === null ? "" : digits(row.ratio),
  ]);
  const widths = heads.map((head, i) => Math.max(head.length, ...lines.map((line) => line[i].length)));
  const format = (cells: readonly string[]) =>
    cells
      .map((cell, i) => (right.has(i) ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
      .join("  ")
      .trimEnd();
  return `${[heads, ...lines].map(format).join("\n")}\n`;
}
