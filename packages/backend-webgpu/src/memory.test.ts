// The pool of buffers: sizes, reuse, what it gives back, and the pool of a recording.

import { BackendError } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import { bucketOf, Memory } from "./memory.js";

function memory(largest = 2 ** 30) {
  const live = new Set<GPUBuffer>();
  const made = new Memory({
    largest,
    create: (size) => {
      const gpu = { size } as GPUBuffer;
      live.add(gpu);
      return gpu;
    },
    destroy: (gpu) => live.delete(gpu),
  });
  return { memory: made, live };
}

const mib = 2 ** 20;

describe("bucketOf", () => {
  it("loses at most an eighth, and keeps sizes multiples of 256", () => {
    for (let bytes = 1; bytes < 2 ** 32; bytes = Math.ceil(bytes * 1.37)) {
      const size = bucketOf(bytes);
      expect(size % 256).toBe(0);
      expect(size).toBeGreaterThanOrEqual(bytes);
      expect(size).toBeLessThanOrEqual(Math.max(256, bytes * 1.125 + 256));
      expect(bucketOf(size)).toBe(size);
    }
  });
});

describe("Memory", () => {
  it("uses a buffer again for another tensor of about its size", () => {
    const { memory: m, live } = memory();
    const first = m.allocate(5000);
    const { slab } = first;
    m.free(first);
    m.free(first);
    expect(m.allocate(5100).slab).toBe(slab);
    expect(m.allocate(5100).slab).not.toBe(slab);
    expect(live.size).toBe(2);
  });

  it("gives back what is far above the most that was in use", () => {
    const { memory: m, live } = memory();
    for (let i = 0; i < 40; i++) {
      // Sizes that no other serves.
      const buffer = m.allocate((8 + i) * mib);
      m.free(buffer);
    }
    expect(m.heldBytes).toBeLessThan(130 * mib);
    expect([...live].reduce((sum, { size }) => sum + size, 0)).toBe(m.heldBytes);
  });

  it("holds a step's memory from step to step", () => {
    const { memory: m, live } = memory();
    const held: number[] = [];
    for (let step = 0; step < 50; step++) {
      const buffers = Array.from({ length: 30 }, (_, i) => m.allocate((1 + i) * mib));
      for (const buffer of buffers) m.free(buffer);
      held.push(m.heldBytes);
    }
    expect(new Set(held).size).toBe(1);
    expect(live.size).toBe(30);
  });

  it("gives a recording's memory to nobody else, until it is closed", () => {
    const { memory: m } = memory();
    const pool = m.enter();
    const inside = m.allocate(1000);
    const { slab } = inside;
    m.free(inside);
    expect(m.allocate(1000).slab).toBe(slab);
    const kept = m.allocate(1000);
    const late = kept.slab;
    m.leave();
    const outside = m.allocate(1000);
    expect(outside.slab).not.toBe(slab);
    m.close(pool);
    m.free(kept);
    expect(m.allocate(1000).slab).toBe(late);
  });

  it("gives a recording what is free, and takes nothing back while it lives", () => {
    const { memory: m, live } = memory();
    const before = m.allocate(5000);
    const { slab } = before;
    m.free(before);
    const pool = m.enter();
    const inside = m.allocate(5000);
    expect(inside.slab).toBe(slab);
    expect(m.isCurrent(inside)).toBe(true);
    m.leave();
    m.free(inside);
    expect(m.allocate(5000).slab).not.toBe(slab);
    expect(live.size).toBe(2);
    m.close(pool);
    expect(m.allocate(5000).slab).toBe(slab);
  });

  it("holds a step's memory from step to step beside a recording of it", () => {
    const { memory: m, live } = memory();
    const step = () => {
      const buffers = Array.from({ length: 30 }, (_, i) => m.allocate((1 + i) * mib));
      for (const buffer of buffers) m.free(buffer);
    };
    step();
    const pool = m.enter();
    step();
    m.leave();
    step();
    const made = new Set(live);
    step();
    expect(live).toEqual(made);
    expect(live.size).toBe(60);
    m.close(pool);
    step();
    // Both at once are more than anybody uses.
    expect(m.heldBytes).toBeLessThanOrEqual(1.25 * 465 * mib + 64 * mib);
    m.empty();
    expect(m.heldBytes).toBe(0);
  });

  it("names what is too large", () => {
    const { memory: m } = memory(mib);
    expect(() => m.allocate(mib + 4)).toThrow(BackendError);
    expect(() => m.allocate(mib + 4)).toThrow(
      /1048580 bytes are more than this device's largest buffer, 1048576 bytes/,
    );
  });
});
