// Layer: apps/bench, suites of the CPU backend. The machine's own limits as rows of their own, on each number of threads.
// Knows the limits. Knows no device.
import { memoryCopied, memoryRead, multiplyAdd } from "../../peers/limits.js";
import { type Case, type Peer, rowsOf, type Settings } from "../../race.js";
import type { Unit } from "../../row.js";

function limitCase(name: string, shape: string, unit: Unit, threads: number, limit: Peer): Case {
  return {
    name,
    shape,
    threads,
    async prepare({ enter, absent }) {
      try {
        const entry = enter(await limit.open());
        const label = { name, shape, unit };
        return {
          entries: [entry],
          checks: [],
          rows: (times) => rowsOf(label, entry, [], times).map((row) => ({ ...row, threads })),
        };
      } catch (error) {
        absent(limit.name, error);
        return { entries: [], checks: [], rows: () => [] };
      }
    },
  };
}

/** `copyBytes`: what is read, and what a copy moves; more than any cache holds. */
export function limitCases({ copyBytes }: Settings, counts: readonly number[]): Case[] {
  const bytes = `${copyBytes} bytes`;
  return counts.flatMap((threads) => [
    limitCase("multiply-add loop", "in registers", "GFLOP/s", threads, multiplyAdd(threads)),
    limitCase("memory read", bytes, "GB/s", threads, memoryRead(copyBytes, threads)),
    limitCase("memory copy", bytes, "GB/s", threads, memoryCopied(copyBytes, threads)),
  ]);
}
