// What is the CPU backend's own: the numbering of kernels, memory that is kept for reuse, and how it fails.

import { BackendError, type Device, DTypeError, LifetimeError, ShapeError, scope, ValueError } from "@diffmamba/tensor";
import { afterEach, describe, expect, it } from "vitest";
import { findAddon } from "./addon.js";
import { cpu, cpuAvailability } from "./index.js";
import { kernelNames } from "./pack.js";
import { Training } from "./training.testing.js";

const availability = cpuAvailability();
const title = availability.available ? "the CPU backend" : `the CPU backend: ${availability.reason}`;

const devices: Device[] = [];
afterEach(async () => {
  for (const device of devices.splice(0)) await device.dispose();
});

async function open(options?: Parameters<typeof cpu>[0]): Promise<Device> {
  const device = await cpu(options);
  devices.push(device);
  return device;
}

describe.skipIf(!availability.available)(title, () => {
  it("numbers its kernels as the addon does", () => {
    const { addon } = findAddon();
    expect(addon?.describe().kernels).toEqual(kernelNames);
    expect(availability).toMatchObject({ device: addon?.describe().isa });
  });

  it("refuses a number of threads that is none", async () => {
    for (const threads of [0, -1, 1.5, 1025, Number.NaN]) {
      await expect(cpu({ threads })).rejects.toThrow(
        `cpu: ${threads} threads; it must be a whole number from 1 to 1024.`,
      );
    }
    expect((await open({ threads: 3 })).backend.device).toMatch(/^\w+, 3 threads$/);
    expect((await open({ threads: 1 })).backend.device).toMatch(/^\w+, 1 thread$/);
  });

  it("refuses f64 by name", async () => {
    const device = await open();
    expect(() => device.zeros([2], "f64")).toThrow(DTypeError);
    expect(() => device.zeros([2], "f64")).toThrow("cpu: has no f64 tensors");
  });

  it("throws for an allocation that cannot be served, and goes on", async () => {
    const device = await open({ memoryLimit: 2 ** 20 });
    using held = device.zeros([1000]);
    const tooLarge = () => device.empty([2 ** 19, 3]);
    expect(tooLarge).toThrow(BackendError);
    expect(tooLarge).toThrow(
      "a tensor of (524288, 3) f32: out of memory: 6,291,456 bytes could not be had; 4,032 are held.",
    );
    expect(() => device.empty([2 ** 60])).toThrow(ShapeError);
    using other = held.add(1);
    expect((await other.data())[999]).toBe(1);
  });

  it("throws for more than the machine has", async () => {
    const device = await open();
    expect(() => device.empty([2 ** 48])).toThrow(BackendError);
    expect(device.backend.heldBytes()).toBe(0);
  });

  it("gives free memory back before it runs out", async () => {
    const device = await open({ memoryLimit: 2 ** 20 });
    device.zeros([150_000]).dispose();
    using other = device.zeros([250_000]);
    expect((await other.data())[0]).toBe(0);
    expect(device.backend.heldBytes()).toBeLessThanOrEqual(2 ** 20);
  });

  it("asks the system for nothing after the second training step", async () => {
    const device = await open({ threads: 2 });
    const training = new Training(device);
    const held: number[] = [];
    const losses: number[] = [];
    for (let i = 0; i < 6; i++) {
      const [loss, norm] = training.step();
      losses.push(await loss.item());
      loss.dispose();
      norm.dispose();
      held.push(device.backend.heldBytes());
    }
    expect(losses[5]).toBeLessThan(losses[0]);
    expect(held[0]).toBeGreaterThan(0);
    expect(held.slice(2)).toEqual(held.slice(2).map(() => held[1]));
  });

  it("throws after dispose, whatever is called, and holds nothing", async () => {
    const device = await open();
    const x = device.zeros([4]);
    const { backend } = device;
    const buffer = backend.allocate(64);
    const view = { ...x.view() };
    await device.dispose();
    expect(() => device.zeros([4])).toThrow(LifetimeError);
    expect(() => x.add(x)).toThrow(LifetimeError);
    expect(() => backend.kernels.fill(view, 1)).toThrow("cpu: the backend was disposed.");
    expect(() => backend.allocate(64)).toThrow(LifetimeError);
    expect(() => backend.write(buffer, 0, new Uint8Array(4))).toThrow(LifetimeError);
    await expect(backend.read(buffer, 0, 4)).rejects.toThrow(LifetimeError);
    await expect(x.data()).rejects.toThrow(LifetimeError);
    await expect(backend.synchronize()).rejects.toThrow(LifetimeError);
    x.dispose();
    backend.free(buffer);
    expect(backend.heldBytes()).toBe(0);
    await device.dispose();
  });

  it("reads and writes only what a buffer holds", async () => {
    const { backend } = await open();
    const buffer = backend.allocate(64);
    expect(() => backend.write(buffer, 60, new Uint8Array(8))).toThrow(
      "cpu: bytes 60 to 68 are outside a buffer of 64.",
    );
    await expect(backend.read(buffer, -4, 8)).rejects.toThrow("cpu: bytes -4 to 4 are outside a buffer of 64.");
    backend.free(buffer);
  });

  it("passes on what a kernel says of its input", async () => {
    const device = await open();
    using table = device.zeros([3, 2]);
    using at = device.tensor([0, 3], "i32");
    expect(() => table.gather(at)).toThrow(ValueError);
    expect(() => table.gather(at)).toThrow("gather: index 3 at position 1 is outside the table's 3 rows.");
  });

  it.each(["f32", "bf16"] as const)(
    "replays what was recorded, in %s, with the bits of what is computed at once",
    async (dtype) => {
      const device = await open({ threads: 2 });
      using x = device.from(
        Float32Array.from({ length: 600 }, (_, i) => Math.sin(i)),
        [20, 30],
        dtype,
      );
      using w = device.from(
        Float32Array.from({ length: 900 }, (_, i) => Math.cos(i)),
        [30, 30],
        dtype,
      );
      // More calls than the list has room for at first.
      const compute = () => {
        let y = x;
        for (let i = 0; i < 60; i++) y = y.matmul(w).tanh().add(x);
        return y;
      };
      const recording = device.record(compute);
      for (const first of [0.5, -2]) {
        using next = device.from(
          Float32Array.from({ length: 600 }, (_, i) => Math.sin(first + i)),
          [20, 30],
          dtype,
        );
        x.assign(next);
        recording.replay();
        using expected = scope(compute);
        expect(await recording.result.data()).toEqual(await expected.data());
      }
      recording.dispose();
    },
  );

  it("says what a kernel of a recording says, and replays nothing after dispose", async () => {
    const device = await open();
    using table = device.zeros([3, 2]);
    using at = device.tensor([0, 1], "i32");
    const recording = device.record(() => table.gather(at));
    at.write(Int32Array.of(0, 3));
    expect(() => recording.replay()).toThrow("gather: index 3 at position 1 is outside the table's 3 rows.");
    await device.dispose();
    expect(() => recording.replay()).toThrow(LifetimeError);
    recording.dispose();
  });

  it("keeps two devices apart", async () => {
    const [a, b] = [await open({ threads: 1 }), await open({ threads: 2 })];
    using x = a.ones([1000]);
    using y = b.ones([1000]);
    using twice = x.add(x);
    using thrice = y.mul(3);
    expect([(await twice.data())[999], (await thrice.data())[999]]).toEqual([2, 3]);
    expect([a.memory().tensors, b.memory().tensors]).toEqual([2, 2]);
  });
});
