// The pool of device memory over a source that only counts: reuse, joining of neighbours, what happens when there is none left.

import { BackendError } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import { type CudaBuffer, Pool } from "./memory.js";

const MIB = 2 ** 20;

/** A source of so many bytes; addresses never repeat. */
class Counting {
  readonly segments = new Map<number, number>();
  asked = 0;
  #next = 2 ** 40;

  constructor(readonly limit = Number.POSITIVE_INFINITY) {}

  get held(): number {
    return [...this.segments.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  allocate(bytes: number): number {
    this.asked++;
    if (this.held + bytes > this.limit) return 0;
    const address = this.#next;
    this.#next += bytes + 2 ** 30;
    this.segments.set(address, bytes);
    return address;
  }

  release(address: number): void {
    if (!this.segments.delete(address)) throw new Error(`${address} is no segment`);
  }
}

function poolOver(source: Counting, reuse = true): Pool {
  const pool: Pool = new Pool({ source, reuse, onExhausted: () => pool.trim() });
  return pool;
}

/** Numbers that look random and are always the same. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("Pool", () => {
  it("never hands out a byte twice, and joins everything again", () => {
    const source = new Counting();
    const pool = poolOver(source);
    const next = generator(1);
    const live: CudaBuffer[] = [];
    for (let i = 0; i < 4000; i++) {
      if (live.length > 0 && next() < 0.48) {
        const [buffer] = live.splice(Math.floor(next() * live.length), 1);
        pool.free(buffer);
        continue;
      }
      live.push(pool.allocate(Math.floor(2 ** (next() * 25))));
    }
    const pieces = live.map(({ address, bytes }) => [address, address + bytes] as const).sort(([a], [b]) => a - b);
    for (let i = 1; i < pieces.length; i++) expect(pieces[i][0]).toBeGreaterThanOrEqual(pieces[i - 1][1]);
    for (const [start, end] of pieces) {
      expect(start % 512).toBe(0);
      const inside = [...source.segments].some(([address, bytes]) => start >= address && end <= address + bytes);
      expect(inside).toBe(true);
    }
    for (const buffer of live) pool.free(buffer);
    expect(pool.liveBytes).toBe(0);
    expect(pool.heldBytes).toBe(source.held);
    pool.trim();
    expect([pool.heldBytes, source.segments.size]).toEqual([0, 0]);
  });

  it("asks for nothing when a step repeats", () => {
    const source = new Counting();
    const pool = poolOver(source);
    const addresses: number[][] = [];
    for (let step = 0; step < 4; step++) {
      const next = generator(5);
      const buffers = Array.from({ length: 300 }, () => pool.allocate(Math.floor(2 ** (next() * 26))));
      addresses.push(buffers.map(({ address }) => address));
      for (const buffer of buffers) pool.free(buffer);
    }
    const before = source.asked;
    const next = generator(5);
    for (let i = 0; i < 300; i++) pool.free(pool.allocate(Math.floor(2 ** (next() * 26))));
    expect(source.asked).toBe(before);
    expect(addresses[3]).toEqual(addresses[2]);
  });

  it("keeps small pieces out of large segments", () => {
    const source = new Counting();
    const pool = poolOver(source);
    const large = pool.allocate(64 * MIB);
    const small = pool.allocate(100);
    pool.free(large);
    pool.trim();
    expect(source.segments.size).toBe(1);
    pool.free(small);
  });

  it("gives back what it keeps before it fails, and then names what was asked for", () => {
    const source = new Counting(100 * MIB);
    const pool = poolOver(source);
    pool.free(pool.allocate(60 * MIB));
    const buffer = pool.allocate(80 * MIB);
    expect(pool.heldBytes).toBe(80 * MIB);
    expect(() => pool.allocate(30 * MIB + 5)).toThrow(BackendError);
    expect(() => pool.allocate(30 * MIB + 5)).toThrow(
      "out of memory: 31,457,285 bytes could not be had on the device; 83,886,080 are in use, 83,886,080 held.",
    );
    pool.free(buffer);
    expect(pool.allocate(90 * MIB).bytes).toBe(90 * MIB);
  });

  it("refuses a second free", () => {
    const pool = poolOver(new Counting());
    const buffer = pool.allocate(10);
    pool.free(buffer);
    expect(() => pool.free(buffer)).toThrow("freed twice");
  });

  it("goes once nothing of it is in use, after it was closed", () => {
    const source = new Counting();
    const pool = poolOver(source);
    const [a, b] = [pool.allocate(10), pool.allocate(20 * MIB)];
    let closed = 0;
    pool.free(b);
    pool.close(() => closed++);
    expect([closed, source.segments.size]).toEqual([0, 2]);
    pool.free(a);
    expect([closed, source.segments.size]).toEqual([1, 0]);
  });

  it("keeps nothing where it is not to reuse", () => {
    const source = new Counting();
    const pool = poolOver(source, false);
    const buffer = pool.allocate(1000);
    expect([...source.segments.values()]).toEqual([1024]);
    pool.free(buffer);
    expect(source.segments.size).toBe(0);
  });

  it("gives all back at the end, also what is in use", () => {
    const source = new Counting();
    const pool = poolOver(source);
    pool.allocate(10);
    pool.free(pool.allocate(5 * MIB));
    pool.releaseAll();
    expect([pool.heldBytes, source.segments.size]).toEqual([0, 0]);
  });
});
