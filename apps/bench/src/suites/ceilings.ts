// Layer: apps/bench, suites. What the machine gives to plain JavaScript, as rows of their own: the limits to read others by.
// Knows the machine's entries. Knows no device.

import { memoryCopy, multiplyAddLoop } from "../peers/machine.js";
import { type Case, type Entry, rowsOf, type Settings } from "../race.js";
import type { Unit } from "../row.js";

function machineCase(name: string, shape: string, unit: Unit, make: () => Entry): Case {
  return {
    name,
    shape,
    async prepare({ enter }) {
      const entry = enter(make());
      return { entries: [entry], checks: [], rows: (times) => rowsOf({ name, shape, unit }, entry, [], times) };
    },
  };
}

/** `copyBytes`: the bytes of the array that is copied. */
export function ceilingCases({ copyBytes }: Settings): Case[] {
  return [
    machineCase("js multiply-add loop", "12 chains in registers", "GFLOP/s", multiplyAddLoop),
    machineCase("memory copy", `${copyBytes} bytes`, "GB/s", () => memoryCopy(2 * copyBytes)),
  ];
}
