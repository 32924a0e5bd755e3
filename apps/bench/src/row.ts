// Layer: apps/bench. A row of the result: its form, its units, and the check that every row passes before it is printed.
// Knows numbers and names. Knows no suite and no clock.

/** What a figure is counted in. A rate grows with speed; a time shrinks. */
interface UnitRule {
  readonly kind: "rate" | "time";
  /** Rate: value = work / seconds / scale. Time: value = seconds / work * scale. */
  readonly scale: number;
}

const rules = {
  "GFLOP/s": { kind: "rate", scale: 1e9 },
  "GB/s": { kind: "rate", scale: 1e9 },
  "tokens/s": { kind: "rate", scale: 1 },
  ms: { kind: "time", scale: 1e3 },
  "ms/token": { kind: "time", scale: 1e3 },
  /** Microseconds of the processor for one kernel that is enqueued. */
  "us/dispatch": { kind: "time", scale: 1e6 },
  /** Nanoseconds for one element of the recurrent state and one token. */
  "ns/update": { kind: "time", scale: 1e9 },
} as const satisfies Record<string, UnitRule>;

export type Unit = keyof typeof rules;

/** A measured unit, "times" (one time divided by another), or bytes that were counted. */
export type RowUnit = Unit | "times" | "MB" | "bytes";

export const rowUnits: readonly RowUnit[] = [...(Object.keys(rules) as Unit[]), "times", "MB", "bytes"];

/** The figure for `work` (floating point operations, bytes, tokens, updates, runs) done in `seconds`. */
export function figureOf(unit: Unit, work: number, seconds: number): number {
  const { kind, scale } = rules[unit];
  return kind === "rate" ? work / seconds / scale : (seconds / work) * scale;
}

/** How many times better `ours` is than `theirs`: above 1, ours is faster. */
export function ratioOf(unit: Unit, ours: number, theirs: number): number {
  return rules[unit].kind === "rate" ? ours / theirs : theirs / ours;
}

/** One line of the result. Other tools read `suite` to `ratio`; the rest says how sure the figure is. */
export interface Row {
  readonly suite: string;
  readonly name: string;
  /** Sizes in words: "256x768x1536", "B1 L512 D512 N16". */
  readonly shape: string;
  /** Ours: the median of the samples. */
  readonly value: number;
  readonly unit: RowUnit;
  /** What `ratio` compares with; null where the figure stands alone. */
  readonly peer: string | null;
  /** Above 1: ours is better. */
  readonly ratio: number | null;
  /** The peer's figure in the same unit, from the same run. */
  readonly peerValue: number | null;
  /** The best of the peer's samples. */
  readonly peerBest: number | null;
  /** The backend that was measured; null for a figure of the machine. */
  readonly backend: string | null;
  /** The best of the samples, in `unit`. */
  readonly best: number;
  /** Distance of the quartiles divided by the median. */
  readonly spread: number;
  readonly samples: number;
  /** Threads that it was given; null where it was given none to choose. */
  readonly threads: number | null;
}

/** A row that must not be printed: it is no measurement. */
export class RowError extends Error {
  override readonly name = "RowError";
}

/** @throws RowError naming the field that a row cannot have */
export function checkRow(value: unknown): asserts value is Row {
  if (typeof value !== "object" || value === null)
    throw new RowError(`a row is an object, not ${JSON.stringify(value)}.`);
  const row = value as Record<string, unknown>;
  const label = `row ${String(row.suite)} / ${String(row.name)} ${String(row.shape)}`;
  const need = (field: string, holds: boolean, wanted: string) => {
    if (!holds) throw new RowError(`${label}: ${field} is ${String(row[field])}; it must be ${wanted}.`);
  };
  const isPositive = (x: unknown) => typeof x === "number" && Number.isFinite(x) && x > 0;
  for (const field of ["suite", "name", "shape"]) {
    need(field, typeof row[field] === "string" && row[field] !== "", "a text");
  }
  need("unit", (rowUnits as readonly unknown[]).includes(row.unit), `one of ${rowUnits.join(", ")}`);
  const isNone = (x: unknown) => x === 0 && row.unit === "bytes";
  for (const field of ["value", "best"]) {
    need(field, isPositive(row[field]) || isNone(row[field]), "a finite number above 0");
  }
  need("spread", row.spread === 0 || isPositive(row.spread), "a finite number of at least 0");
  need("samples", Number.isInteger(row.samples) && (row.samples as number) >= 1, "a whole number of at least 1");
  need(
    "threads",
    row.threads === null || (Number.isInteger(row.threads) && isPositive(row.threads)),
    "a count or null",
  );
  need("backend", row.backend === null || typeof row.backend === "string", "a text or null");
  need("peer", row.peer === null || (typeof row.peer === "string" && row.peer !== ""), "a text or null");
  for (const field of ["ratio", "peerValue", "peerBest"]) {
    if (row.peer === null) need(field, row[field] === null, "null, because there is no peer");
    else need(field, isPositive(row[field]), "a finite number above 0, because there is a peer");
  }
}
