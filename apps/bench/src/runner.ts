// Layer: apps/bench. Runs the cases of suites one after the other: prepare, compare results, time, make rows, clean up.
// Knows cases. Knows no op, no peer, no command line and no stream.
import { compareValues } from "@diffmamba/conformance";
import type { Device } from "@diffmamba/tensor";
import { messageOf } from "./errors.js";
import { type MeasureOptions, measure } from "./measure.js";
import type { Case, Context, DeviceChoice, Entry, Race, RowPart, Suite } from "./race.js";
import { checkRow, type Row } from "./row.js";

/** Where the runner says what it does. */
export interface Log {
  /** A case begins. */
  progress(line: string): void;
  /** Something that the reader must know: a peer that is absent, a case that failed. */
  note(line: string): void;
  /** What a case has given, before the others are run: a run that is ended half-way has told it. */
  row?(row: Row): void;
}

export interface RunOptions extends MeasureOptions {
  readonly devices: readonly Device[];
  /** Opens a further device for a case. */
  open(backend: string, options?: DeviceChoice): Promise<Device>;
  readonly log: Log;
}

/**
 * Seconds of a sample where several threads share the work: threads that were at rest are woken on few processors, and
 * it takes the system some milliseconds to spread them, which no program with a stretch of such work would notice.
 */
const sharedSampleSeconds = 0.02;

/** A case of a suite. */
export interface Task {
  readonly suite: Pick<Suite, "name" | "patience">;
  readonly case: Case;
}

export interface RunResult {
  readonly rows: readonly Row[];
  /** Cases without rows, and peers that gave other results. */
  readonly failures: number;
}

type Result = readonly ArrayLike<number>[];

/** What is wrong with a peer's result; undefined where it agrees with ours. */
function disagreement(actual: Result, expected: Result, tolerance: number): string | undefined {
  if (actual.length !== expected.length) return `it gives ${actual.length} results, ours ${expected.length}`;
  for (const [i, data] of actual.entries()) {
    const shaped = (values: ArrayLike<number>) => ({ shape: [values.length], data: values });
    const check = compareValues(`result ${i}`, shaped(data), shaped(expected[i]), tolerance);
    if (!check.passed) return `relative RMS error ${check.error.toExponential(2)}; ${check.detail}`;
  }
  return undefined;
}

/** The entries that may be timed: without the peers whose result is wrong. */
async function honest(race: Race, report: (peer: Entry, reason: string) => void): Promise<Entry[]> {
  const dropped = new Set<Entry>();
  const results = new Map<Entry, Result>();
  const resultOf = async (entry: Entry) => results.get(entry) ?? (await entry.result?.()) ?? [];
  for (const { ours, peer, tolerance } of race.checks) {
    results.set(ours, await resultOf(ours));
    const expected = await resultOf(ours);
    const reason = await resultOf(peer).then((actual) => disagreement(actual, expected, tolerance), messageOf);
    if (reason === undefined) continue;
    dropped.add(peer);
    report(peer, reason);
  }
  return race.entries.filter((entry) => !dropped.has(entry));
}

async function runCase(
  item: Case,
  context: Omit<Context, "enter">,
  options: MeasureOptions,
  report: (peer: Entry, reason: string) => void,
): Promise<RowPart[]> {
  const entered: Entry[] = [];
  const opened: Device[] = [];
  const open: Context["open"] = async (backend, choice) => {
    const device = await context.open(backend, choice);
    opened.push(device);
    return device;
  };
  const enter = (entry: Entry) => {
    entered.push(entry);
    return entry;
  };
  try {
    const race = await item.prepare({ ...context, enter, open });
    const entries = await honest(race, report);
    const times = await measure(entries, options);
    for (const entry of entries) await entry.verify?.();
    return race.rows((entry) => times.get(entry));
  } finally {
    try {
      for (const entry of entered) await entry.dispose?.();
    } finally {
      // Also where a device has failed and its entries with it: the next case needs the memory.
      for (const device of opened) await device.dispose();
    }
  }
}

/** Name, shape and threads of a case: what a filter looks through. */
export function caseText({ name, shape, threads }: Pick<Case, "name" | "shape" | "threads">): string {
  const on = threads === undefined ? "" : ` ${threads} ${threads === 1 ? "thread" : "threads"}`;
  return `${name} ${shape}${on}`;
}

/** Runs all tasks. A case that fails is reported and the rest goes on. */
export async function runTasks(
  tasks: readonly Task[],
  { devices, open, log, ...options }: RunOptions,
): Promise<RunResult> {
  const rows: Row[] = [];
  const told = new Set<string>();
  let failures = 0;
  const context = {
    devices,
    open,
    absent(peer: string, reason: unknown) {
      const line = `${peer} is not measured: ${messageOf(reason)}`;
      if (!told.has(line)) log.note(line);
      told.add(line);
    },
  };
  for (const [i, { suite, case: item }] of tasks.entries()) {
    const label = `${suite.name}: ${caseText(item)}`;
    log.progress(`[${i + 1}/${tasks.length}] ${label}`);
    try {
      const budget = options.budget * (item.patience ?? suite.patience ?? 1);
      const least = item.sampleSeconds ?? ((item.threads ?? 1) > 1 ? sharedSampleSeconds : undefined);
      const shared = least === undefined ? {} : { minSampleSeconds: least };
      const parts = await runCase(item, context, { ...shared, ...options, budget }, (peer, reason) => {
        failures++;
        log.note(`${label}: ${peer.name} is not measured, because its result is not ours: ${reason}`);
      });
      const made = parts.map((part) => ({ threads: null, suite: suite.name, ...part }));
      for (const row of made) checkRow(row);
      for (const row of made) log.row?.(row);
      rows.push(...made);
    } catch (error) {
      failures++;
      log.note(`${label}: failed: ${messageOf(error)}`);
    }
  }
  return { rows, failures };
}
