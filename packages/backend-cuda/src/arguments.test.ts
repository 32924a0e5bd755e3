// How launches are packed: the header, and parameters as they lie in a kernel's memory.

import { describe, expect, it } from "vitest";
import { ArgumentBuffer, MAX_ARGUMENT_BYTES } from "./arguments.js";
import { f32, i32, i64, ints, type Launch, longs, pointer } from "./context.js";

const base: Launch = { kernel: "k", grid: 1, block: 32, args: [] };

describe("ArgumentBuffer", () => {
  it("writes kernel, grid, block, shared memory and length", () => {
    const buffer = new ArgumentBuffer();
    expect(buffer.launch(7, { ...base, grid: [3, 4], block: [32, 8, 2], shared: 1024, args: [i32(1)] })).toBe(true);
    expect([...new Int32Array(buffer.bytes.buffer, 0, 9)]).toEqual([7, 3, 4, 1, 32, 8, 2, 1024, 4]);
  });

  it("puts each parameter at the next multiple of its size", () => {
    const buffer = new ArgumentBuffer();
    const address = { kind: "pointer", address: 0x7f_1234_5678_00 } as const;
    const args = [i32(-5), address, f32(0.5), i32(true), i64(-3), ints([1, -2]), longs([2 ** 40 + 1])];
    buffer.launch(0, { ...base, args });
    const view = new DataView(buffer.bytes.buffer, 64);
    expect(view.getInt32(0, true)).toBe(-5);
    expect(view.getBigInt64(8, true)).toBe(BigInt(address.address));
    expect(view.getFloat32(16, true)).toBe(0.5);
    expect(view.getInt32(20, true)).toBe(1);
    expect(view.getBigInt64(24, true)).toBe(-3n);
    expect([view.getInt32(32, true), view.getInt32(36, true)]).toEqual([1, -2]);
    expect(view.getBigInt64(40, true)).toBe(2n ** 40n + 1n);
    expect(new Int32Array(buffer.bytes.buffer)[8]).toBe(48);
  });

  it("takes words of 32 bits as they are", () => {
    const buffer = new ArgumentBuffer();
    buffer.launch(0, { ...base, args: [i32(0xffff_fffe)] });
    expect(new DataView(buffer.bytes.buffer, 64).getUint32(0, true)).toBe(0xffff_fffe);
  });

  it("gives null for a view that is absent", () => {
    expect(pointer(undefined)).toEqual({ kind: "pointer", address: 0 });
  });

  it("says that a grid without blocks is not to be launched", () => {
    const buffer = new ArgumentBuffer();
    expect(buffer.launch(0, { ...base, grid: [0, 3] })).toBe(false);
    expect(buffer.launch(0, { ...base, grid: 0 })).toBe(false);
  });

  it("refuses what no device takes, by the kernel's name", () => {
    const buffer = new ArgumentBuffer();
    expect(() => buffer.launch(0, { ...base, kernel: "wide", grid: [1, 65536] })).toThrow(
      /cuda: wide: .* 1 x 65536 x 1/,
    );
    expect(() => buffer.launch(0, { ...base, block: [2048] })).toThrow("more than a device takes");
    expect(() => buffer.launch(0, { ...base, kernel: "huge", args: [i32(2 ** 32)] })).toThrow(/cuda: huge: 4294967296/);
    expect(() => buffer.launch(0, { ...base, args: [ints([1, 2 ** 33])] })).toThrow("more than a kernel counts");
    const many = longs(Array.from({ length: MAX_ARGUMENT_BYTES / 8 + 1 }, () => 0));
    expect(() => buffer.launch(0, { ...base, kernel: "long", args: [many] })).toThrow(
      /cuda: long has more than 4096 bytes/,
    );
  });
});
