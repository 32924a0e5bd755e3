// Layer: apps/bench. Numbers to compute with, the same for every backend and peer, and entries on a device.
// Knows tensors and random streams. Knows no op and no suite.
import { RandomStream } from "@diffmamba/random";
import type { Device, Tensor } from "@diffmamba/tensor";
import type { Entry } from "./race.js";

/** How many numbers are drawn: a prime near a million, so that no row of a large array is the row before it. */
const DRAWN = 1_048_573;

/** Random numbers of [low, high) by name; a large array repeats the first million. */
export function uniform(name: string, size: number, low = -1, high = 1): Float32Array {
  const numbers = new Float32Array(size);
  new RandomStream(1, name).uniform(numbers.subarray(0, DRAWN), low, high);
  for (let done = DRAWN; done < size; done *= 2) numbers.copyWithin(done, 0, done);
  return numbers;
}

/** Random whole numbers of [0, n) by name. */
export function integers(name: string, size: number, n: number): Int32Array {
  return Int32Array.from(uniform(name, size, 0, n), (x) => Math.min(Math.floor(x), n - 1));
}

/** The product of sizes. */
export function count(...sizes: readonly number[]): number {
  return sizes.reduce((product, n) => product * n, 1);
}

/** "256x768x1536" */
export function by(...sizes: readonly number[]): string {
  return sizes.join("x");
}

interface DeviceWork {
  readonly work: Entry["work"];
  /** Disposed of with the entry. */
  readonly holds: readonly { dispose(): void }[];
  run(): unknown;
  /** Tensors of one run, which are read and then disposed of. */
  outputs?(): readonly Tensor[];
}

/** An entry on a device: kernels are enqueued by `run` and waited for once a sample. */
export function onDevice(device: Device, { work, holds, run, outputs }: DeviceWork): Entry {
  return {
    name: device.name,
    backend: device.name,
    work,
    run,
    finish: () => device.synchronize(),
    ...(outputs && {
      async result() {
        const tensors = outputs();
        const read: ArrayLike<number>[] = [];
        for (const tensor of tensors) read.push(await tensor.data());
        for (const tensor of tensors) tensor.dispose();
        return read;
      },
    }),
    dispose() {
      for (const held of holds) held.dispose();
    },
  };
}
