// Layer: apps/bench. What suites are made of: entries that are timed together, cases that prepare them, and the rows that follow.
// Knows devices and units. Knows no op, no model and no peer by name.
import type { Device } from "@diffmamba/tensor";
import type { Timed, Timing } from "./measure.js";
import { figureOf, type Row, RowError, ratioOf, type Unit } from "./row.js";

/** One implementation of a piece of work, ready to be timed. */
export interface Entry extends Timed {
  /** As `peer` in a row: "@jax-js/jax 0.1.25 wasm", "js multiply-add loop", "reference backend". */
  readonly name: string;
  /** The backend that it runs on; null for one of the machine or of a peer. */
  readonly backend: string | null;
  /** What one run does, in each unit that it can be counted in. */
  readonly work: Readonly<Partial<Record<Unit, number>>>;
  /** The numbers that one run gives, to be compared with another entry's. */
  result?(): Promise<readonly ArrayLike<number>[]>;
  /** Looks back after the timing. @throws where what was timed was not the work */
  verify?(): Promise<void>;
  dispose?(): void | Promise<void>;
}

/** A row before the suite's name is on it. */
export type RowPart = Omit<Row, "suite" | "threads"> & Partial<Pick<Row, "threads">>;

/** The timing of an entry; undefined for one that was dropped. */
export type Times = (entry: Entry) => Timing | undefined;

/** Entries that are timed in turns. */
export interface Race {
  readonly entries: readonly Entry[];
  /** Peers whose result must be that of ours, within a relative RMS error; a peer that differs is dropped. */
  readonly checks: readonly { readonly ours: Entry; readonly peer: Entry; readonly tolerance: number }[];
  rows(times: Times): RowPart[];
}

/** How a device is opened. */
export interface DeviceChoice {
  /** Threads that it computes on; as many as there are cores by default. Backends without threads ignore it. */
  readonly threads?: number;
}

/** What a case may use. */
export interface Context {
  /** The first is ours; the others are peers of it. */
  readonly devices: readonly Device[];
  /** Takes over an entry: it is disposed of when the case is over, whatever happens. @returns it */
  enter(entry: Entry): Entry;
  /** A device of its own, with memory that nothing else has used; closed when the case is over. @throws FailureError */
  open(backend: string, options?: DeviceChoice): Promise<Device>;
  /** Says on stderr that a peer is not there, and why. */
  absent(peer: string, reason: unknown): void;
}

/** One line or more of a suite; nothing is made before `prepare`. */
export interface Case {
  readonly name: string;
  readonly shape: string;
  /** Threads that it gives to what is timed, where it says so. */
  readonly threads?: number;
  /** As that of a suite, for this case alone. */
  readonly patience?: number;
  /** Seconds that a sample lasts at least, where waiting for the work to be done would weigh in a short one. */
  readonly sampleSeconds?: number;
  prepare(context: Context): Promise<Race>;
}

/** Sizes that `--set` may change. */
export type Settings = Readonly<Record<string, number>>;

export interface Suite {
  readonly name: string;
  /** One line for `--list`. */
  readonly summary: string;
  readonly settings: Settings;
  /** What `--quick` makes of them. */
  readonly quick: Settings;
  /** How many budgets each case takes, where it times many or slow entries; 1 by default. */
  readonly patience?: number;
  /** The backend that its cases open themselves, on the threads of `--threads`; without it they take `--backend`. */
  readonly backend?: string;
  /** `threads`: counts to time with, the least first; one thread and all cores by default. */
  cases(settings: Settings, threads: readonly number[]): readonly Case[];
}

function figure(entry: Entry, unit: Unit, seconds: number): number {
  const work = entry.work[unit];
  if (work === undefined) throw new RowError(`${entry.name}: its work is not counted in ${unit}.`);
  return figureOf(unit, work, seconds);
}

/**
 * The rows of one entry in one unit: one for each peer that was timed, or a single one without a peer. None where ours
 * was not timed.
 */
export function rowsOf(
  label: { readonly name: string; readonly shape: string; readonly unit: Unit },
  ours: Entry,
  peers: readonly Entry[],
  times: Times,
): RowPart[] {
  const timing = times(ours);
  if (timing === undefined) return [];
  const { unit } = label;
  const value = figure(ours, unit, timing.median);
  const common = {
    ...label,
    value,
    backend: ours.backend,
    best: figure(ours, unit, timing.min),
    spread: timing.spread,
    samples: timing.samples,
  };
  const rows = peers.flatMap((peer) => {
    const theirs = times(peer);
    if (theirs === undefined) return [];
    const peerValue = figure(peer, unit, theirs.median);
    const peerBest = figure(peer, unit, theirs.min);
    return [{ ...common, peer: peer.name, ratio: ratioOf(unit, value, peerValue), peerValue, peerBest }];
  });
  return rows.length > 0 ? rows : [{ ...common, peer: null, ratio: null, peerValue: null, peerBest: null }];
}

/** A peer that may be absent; `open` says in an error why it is. */
export interface Peer {
  readonly name: string;
  open(): Promise<Entry>;
}

/** The peers that are there, in order; of the others it is said why not. */
export async function openPeers(
  peers: readonly Peer[],
  { enter, absent }: Pick<Context, "enter" | "absent">,
): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (const peer of peers) {
    try {
      entries.push(enter(await peer.open()));
    } catch (error) {
      absent(peer.name, error);
    }
  }
  return entries;
}

export interface Contest {
  readonly name: string;
  readonly shape: string;
  readonly unit: Unit;
  /** The work on a device: ours, and a peer for each further backend. */
  ours(device: Device): Entry;
  /** Peers that do the same work; those that give results are checked. */
  readonly peers?: readonly Peer[];
  /** Limits of the machine, counted in the same unit. */
  readonly ceilings?: (device: Device) => readonly Entry[];
  /** Largest relative RMS error between ours and a peer; 1e-5 by default. */
  readonly tolerance?: number;
}

/** The usual case: one piece of work against everything that it can be compared with. */
export function contest({ name, shape, unit, ours: make, peers = [], ceilings, tolerance = 1e-5 }: Contest): Case {
  return {
    name,
    shape,
    async prepare({ devices: [device, ...others], enter, absent }) {
      const ours = enter(make(device));
      const sameWork = others.map((other) => enter({ ...make(other), name: `${other.name} backend` }));
      const rivals = [...sameWork, ...(await openPeers(peers, { enter, absent }))];
      const limits = (ceilings?.(device) ?? []).map(enter);
      return {
        entries: [ours, ...rivals, ...limits],
        checks: rivals.filter((rival) => rival.result).map((peer) => ({ ours, peer, tolerance })),
        rows: (times) => rowsOf({ name, shape, unit }, ours, [...rivals, ...limits], times),
      };
    },
  };
}
