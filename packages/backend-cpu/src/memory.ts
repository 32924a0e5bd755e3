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
/** Free bytes are kept up to here, or to the most that was in use at once. */
const KEEP_AT_LEAST = 2 ** 26;

export class Memory {
  /** Free buffers by capacity. */
  readonly #free = new Map<number, CpuBuffer[]>();
  #held = 0;
  #live = 0;
  #peak = 0;

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
    const buffer = this.#free.get(capacity)?.pop() ?? this.#fresh(capacity, bytes);
    this.#live += capacity;
    this.#peak = Math.max(this.#peak, this.#live);
    return buffer;
  }

  #fresh(capacity: number, bytes: number): CpuBuffer {
    // Sizes that change all the time would fill the lists with what nobody asks for again.
    if (this.#held - this.#live > Math.max(this.#peak, KEEP_AT_LEAST)) this.trim();
    const address = this.#ask(capacity);
    if (address === 0) {
      throw new BackendError(
        `out of memory: ${grouped(bytes)} bytes could not be had; ${grouped(this.#held)} are held.`,
      );
    }
    this.#held += capacity;
    return new CpuBuffer(capacity, address);
  }

  free(buffer: CpuBuffer): void {
    this.#live -= buffer.bytes;
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

/** 1234567 as "1,234,567". Not by `toLocaleString`: its tables want memory, and where there is none Node aborts. */
function grouped(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Capacities: multiples of 64 bytes up to a page, then 64 steps to each doubling, so that little is wasted and lengths that are nearly the same share. */
function sizeClass(bytes: number): number {
  const size = Math.max(64, Math.ceil(bytes / 64) * 64);
  if (size <= EXACT_BELOW) return size;
  const step = 2 ** (Math.floor(Math.log2(size - 1)) - 6);
  return Math.ceil(size / step) * step;
}
