// Layer: apps/bench, suites of the GPU. What the device gives to a copy and to a large product: the limits that others are read by.
// Knows tensors. Knows no routine.
import { type Device, scope } from "@diffmamba/tensor";
import { onDevice, uniform } from "../../data.js";
import { type Case, type Entry, rowsOf, type Settings } from "../../race.js";

/** Bytes that are moved at a time, at most: more than any cache holds, and little beside a GPU's memory. */
const MOST = 2 ** 30;
const LEAST = 2 ** 10;
const BF16 = 2;

/** A copy on the device that moves so many bytes, those read and those written; by one of 1 GiB, scaled, where they are more. */
export function deviceCopy(device: Device, bytes: number): Entry {
  const moved = Math.min(MOST, Math.max(LEAST, bytes));
  const from = device.zeros([Math.ceil(moved / 4 / 2)]);
  const to = device.empty(from.shape);
  const share = moved / Math.max(LEAST, bytes);
  const entry = onDevice(device, {
    work: { "GB/s": moved, ms: share, "ms/token": share },
    holds: [from, to],
    run: () => to.assign(from),
  });
  return { ...entry, name: `${device.name} copy of as many bytes` };
}

/** The product of two cubes in bf16. */
export function deviceProduct(device: Device, size: number): Entry {
  const cube = (name: string) => {
    using values = device.from(uniform(name, size * size), [size, size]);
    return values.cast("bf16");
  };
  const [a, b] = [cube("a"), cube("b")];
  const entry = onDevice(device, {
    work: { "GFLOP/s": 2 * size ** 3 },
    holds: [a, b],
    run: () => scope(() => void a.matmul(b)),
  });
  return { ...entry, name: `${device.name} bf16 product of ${size} cubed` };
}

export function limitCases({ square, copyBytes }: Settings): Case[] {
  const limit = (name: string, shape: string, unit: "GB/s" | "GFLOP/s", make: (device: Device) => Entry): Case => ({
    name,
    shape,
    async prepare({ devices: [device], enter }) {
      const entry = enter(make(device));
      return { entries: [entry], checks: [], rows: (times) => rowsOf({ name, shape, unit }, entry, [], times) };
    },
  });
  return [
    limit("device copy", `${copyBytes} bytes read and written`, "GB/s", (device) => deviceCopy(device, copyBytes)),
    limit("bf16 product", `${square} cubed`, "GFLOP/s", (device) => deviceProduct(device, square)),
  ];
}

/** Bytes of so many elements in bf16. */
export const halves = (elements: number): number => BF16 * elements;
