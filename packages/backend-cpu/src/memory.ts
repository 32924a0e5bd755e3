// Memory of the CPU backend: native, 64-byte aligned, kept for reuse when freed, so that a training step after the first
// asks the system for nothing.
// Knows sizes. Knows no view and no kernel.

import { type BackendBuffer, BackendError } from "@diffmamba/tensor";
import type { Addon } from "./addon.js";

export class CpuBuffer implements BackendBuffer {
  constructor(
    readonly bytes: number,
    readonly address: number,
  ) {}
}

/** Sizes up to here are classes of their own. */
const EXACT_BELOW = 4096;

export class Memory {
  /** Free buffers by capacity. */
  readonly #free = new Map<number, CpuBuffer[]>();
  #held = 0;

  constructor(
    private readonly addon: Addon,
    /** More than this is never asked for: the system would promise it and fail later. */
    private readonly limit: number,
  ) {}

  get heldBytes(): number {
    return this.#held;
  }

  /** @throws BackendError when there is none left */
  allocate(bytes: number): CpuBuffer {
    const capacity = sizeClass(bytes);
    const pooled = this.#free.get(capacity)?.pop();
    if (pooled !== undefined) return pooled;
    const address = this.#ask(capacity);
    if (address === 0) {
      throw new BackendError(
        `out of memory: ${bytes.toLocaleString("en")} bytes could not be had; ${this.#held.toLocaleString("en")} are held.`,
      );
    }
    this.#held += capacity;
    return new CpuBuffer(capacity, address);
  }

  free(buffer: CpuBuffer): void {
    const list = this.#free.get(buffer.bytes);
    if (list === undefined) this.#free.set(buffer.bytes, [buffer]);
    else list.push(buffer);
  }

  /** Gives all free buffers back to the system. */
  trim(): void {
    for (const [capacity, list] of this.#free) {
      for (const { address } of list) this.addon.release(address);
      this.#held -= capacity * list.length;
    }
    this.#free.clear();
  }

  /** From the system; once more after giving back what is free. */
  #ask(capacity: number): number {
    if (this.#held + capacity > this.limit) this.trim();
    if (this.#held + capacity > this.limit) return 0;
    const address = this.addon.allocate(capacity);
    if (address !== 0) return address;
    this.trim();
    return this.addon.allocate(capacity);
  }
}

/** Capacities: multiples of 64 bytes up to a page, then eight steps to each doubling, so that at most an eighth is wasted. */
function sizeClass(bytes: number): number {
  const size = Math.max(64, Math.ceil(bytes / 64) * 64);
  if (size <= EXACT_BELOW) return size;
  const step = 2 ** (Math.floor(Math.log2(size - 1)) - 3);
  return Math.ceil(size / step) * step;
}
