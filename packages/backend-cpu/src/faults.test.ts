// What goes wrong outside the arithmetic: memory and threads that cannot be had, workers that are ended, processes that end,
// addons that are none. Each must be an error that says so, and what comes after must work.

import { execFile } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import { BackendError, LifetimeError, ShapeError } from "@diffmamba/tensor";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Addon, findAddon } from "./addon.js";
import { CpuBackend } from "./backend.js";
import { cpu, cpuAvailability } from "./index.js";
import { Training } from "./training.testing.js";

const availability = cpuAvailability();
const title = availability.available ? "the CPU backend" : `the CPU backend: ${availability.reason}`;
const addonFile = availability.available ? availability.path : "";
const linux = process.platform === "linux";

interface Ended {
  /** Exit code, or the signal that ended it. */
  readonly end: number | string;
  /** What the program printed, by name. */
  readonly said: Readonly<Record<string, unknown>>;
}

let folder = "";
const program = () => path.join(folder, "faults.mjs");

/** Runs a case of faults.testing.ts in a process of its own. */
function child(name: string, addon = addonFile): Promise<Ended> {
  const env = { ...process.env, DIFFMAMBA_CPU_ADDON: addon };
  return new Promise((resolve) => {
    execFile(process.execPath, [program(), name], { env, timeout: 60_000 }, (error, stdout) => {
      const lines = stdout.split("\n").filter((line) => line !== "");
      const outcomes = lines.map((line) => JSON.parse(line) as { what: string; value?: unknown; error?: string });
      const said = Object.fromEntries(outcomes.map(({ what, value, error }) => [what, error ?? value]));
      resolve({ end: error === null ? 0 : (error.signal ?? error.code ?? "?"), said });
    });
  });
}

describe.skipIf(!availability.available)(title, () => {
  it("refuses a memory limit that is none", async () => {
    for (const memoryLimit of [Number.NaN, -1]) {
      await expect(cpu({ memoryLimit })).rejects.toThrow(
        `cpu: a memoryLimit of ${memoryLimit}; it must be a number of bytes.`,
      );
    }
    await using device = await cpu({ memoryLimit: 0 });
    expect(() => device.zeros([1])).toThrow(BackendError);
  });

  it("throws for tensors that are too large, whatever the limit", async () => {
    await using device = await cpu({ memoryLimit: Number.POSITIVE_INFINITY });
    for (const shape of [[2 ** 53], [2 ** 31, 2 ** 31], [2 ** 26, 2 ** 26, 2]]) {
      expect(() => device.empty(shape), String(shape)).toThrow(ShapeError);
    }
    for (const shape of [[2 ** 45], [2 ** 31, 2 ** 18], [2 ** 50]]) {
      expect(() => device.empty(shape, "u8"), String(shape)).toThrow(/^a tensor of \(.*\) u8: out of memory: /);
    }
    expect(device.backend.heldBytes()).toBe(0);
  });

  it("goes on after memory ran out in the middle of a training step", async () => {
    await using free = await cpu({ threads: 2 });
    const enough = new Training(free);
    const before = free.memory().bytes;
    for (const result of enough.step()) result.dispose();
    const needed = free.memory().peakBytes - before;
    for (const part of [0.3, 0.6, 0.9]) {
      await using device = await cpu({ threads: 2, memoryLimit: before + part * needed });
      const training = new Training(device);
      const { tensors, bytes } = device.memory();
      for (let i = 0; i < 3; i++) {
        expect(() => training.step()).toThrow(
          /^a tensor of \(.*\) f32: out of memory: [\d,]+ bytes could not be had; /,
        );
        expect(device.memory()).toMatchObject({ tensors, bytes });
      }
    }
    await using device = await cpu({ threads: 2, memoryLimit: 2 * before + 0.6 * needed });
    const training = new Training(device);
    expect(() => training.step()).toThrow(BackendError);
    const smaller = new Training(device, 1);
    const [loss, norm] = smaller.step();
    expect(await loss.item()).toBeGreaterThan(0);
    expect(Number.isFinite(await norm.item())).toBe(true);
  });

  it("frees what outlives its device", async () => {
    const device = await cpu();
    const tensors = [device.zeros([1000]), device.ones([5, 5]), device.empty([0])];
    const view = tensors[1].transpose();
    await device.dispose();
    expect(() => view.add(view)).toThrow(LifetimeError);
    for (const tensor of [...tensors, view]) tensor.dispose();
    for (const tensor of [...tensors, view]) tensor.dispose();
    expect(device.backend.heldBytes()).toBe(0);
    expect(device.memory()).toMatchObject({ tensors: 0, buffers: 0, bytes: 0 });
  });

  it("refuses places outside a buffer, be they numbers or none", async () => {
    await using device = await cpu();
    const buffer = device.backend.allocate(64);
    for (const at of [-1, 61, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
      const message = `cpu: bytes ${at} to ${at + 4} are outside a buffer of 64.`;
      expect(() => device.backend.write(buffer, at, new Uint8Array(4))).toThrow(message);
      await expect(device.backend.read(buffer, at, 4)).rejects.toThrow(message);
    }
    for (const size of [-1, 2 ** 40, Number.NaN]) {
      await expect(device.backend.read(buffer, 0, size)).rejects.toThrow("are outside a buffer of 64.");
    }
    device.backend.free(buffer);
  });

  describe("with an addon that fails", () => {
    const { addon: whole } = findAddon();
    const backend = (broken: Partial<Addon>) =>
      new CpuBackend({ ...(whole as Addon), ...broken }, { threads: 2, memoryLimit: 2 ** 30 });

    it("says so where threads do not start", () => {
      expect(() => backend({ start: () => false })).toThrow(BackendError);
      expect(() => backend({ start: () => false })).toThrow("cpu: 2 threads could not be started; ask for fewer.");
    });

    it("tells a kernel's lack of memory from bad input", () => {
      const run = (error: string) => {
        const { kernels, ...memory } = backend({ run: () => error });
        void memory;
        const buffer = { bytes: 64, address: 0 };
        return () => kernels.fill({ buffer, dtype: "f32", shape: [1], strides: [1], offset: 0 }, 1);
      };
      expect(run("out of memory for sums")).toThrow(BackendError);
      expect(run("out of memory for sums")).toThrow("fill: out of memory for sums");
      expect(run("index 3 is outside")).not.toThrow(BackendError);
      expect(run("index 3 is outside")).toThrow("fill: index 3 is outside");
    });

    it("takes no number of a kernel that there is not, and releases nothing of others", () => {
      expect(whole?.run(whole.describe().kernels.length, 1, 0)).toBe("no such kernel");
      expect(whole?.run(-1, 1, 0)).toBe("no such kernel");
      for (const address of [0, 64, 2 ** 40]) whole?.release(address);
      const address = whole?.allocate(64) ?? 0;
      expect(address % 64).toBe(0);
      whole?.release(address);
      whole?.release(address);
    });
  });

  describe("in a process of its own", () => {
    beforeAll(async () => {
      folder = mkdtempSync(path.join(os.tmpdir(), "diffmamba-faults-"));
      await build({
        entryPoints: [path.join(import.meta.dirname, "faults.testing.ts")],
        outfile: program(),
        bundle: true,
        platform: "node",
        format: "esm",
        target: "node20",
        conditions: ["@diffmamba/source"],
        logLevel: "silent",
      });
    });
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    it.skipIf(!linux)("says which threads cannot be started, and works with fewer", async () => {
      expect(await child("threads")).toEqual({
        end: 0,
        said: {
          "1024 threads": "BackendError: cpu: 1024 threads could not be started; ask for fewer.",
          "1 thread": 300,
          "2 threads": 300,
          "1024 threads at last": 300,
        },
      });
    });

    it.skipIf(!linux)("says what cannot be had, and works with what there is", async () => {
      const { end, said } = await child("memory");
      expect(said).toEqual({
        kernel: "BackendError: causalConv1dBackward: out of memory for a convolution of the mixer",
        tensor: expect.stringMatching(
          /^BackendError: a tensor of \(40000, 1000\) f32: out of memory: 160,000,000 bytes /,
        ),
        smaller: 1,
        "at last": expect.closeTo(768, 2),
      });
      expect(end).toBe(0);
    });

    it("trains in two workers at once, with the same results", async () => {
      const { end, said } = await child("workers");
      expect(end).toBe(0);
      const [one, other] = said.losses as number[][];
      expect(one).toHaveLength(5);
      expect(one[4]).toBeLessThan(one[0]);
      expect(other).toEqual(one);
    });

    it.skipIf(!linux)("takes back what a worker held that was terminated", async () => {
      const { end, said } = await child("terminate");
      expect(end).toBe(0);
      expect(said).toEqual({ "megabytes more": expect.any(Number), product: 300 });
      expect(said["megabytes more"]).toBeLessThan(150);
    });

    it("ends when it is told to, in the middle of a kernel", async () => {
      expect(await child("exit")).toEqual({ end: 7, said: { product: 300 } });
    });

    it("ends with nothing disposed of, many times over", async () => {
      const ends = await Promise.all(Array.from({ length: 8 }, () => child("leave")));
      for (const ended of ends) expect(ended).toEqual({ end: 0, said: { product: 300 } });
    });

    describe("with the file of an addon that is", () => {
      const whole = addonFile === "" ? Buffer.alloc(0) : readFileSync(addonFile);

      async function reasonOf(name: string, change: (file: string) => void): Promise<unknown> {
        const file = path.join(folder, name);
        copyFileSync(addonFile, file);
        change(file);
        const { end, said } = await child("availability", file);
        expect(end).toBe(0);
        const { available, reason } = said.availability as { available: boolean; reason?: string };
        expect(available).toBe(reason === undefined);
        return reason?.replace(`its native addon does not load: ${file}: `, "");
      }

      it("whole: it works", async () => {
        expect(await reasonOf("whole.node", () => undefined)).toBe(undefined);
      });

      it("missing", async () => {
        expect(await reasonOf("missing.node", (file) => rmSync(file))).toMatch(/^Cannot find module /);
      });

      it.skipIf(!linux)("cut off, anywhere", async () => {
        for (const bytes of [0, 63]) {
          expect(await reasonOf("cut.node", (file) => truncateSync(file, bytes))).toBe("it is no library");
        }
        for (const bytes of [64, 4096, Math.floor(whole.length / 2), whole.length - 1]) {
          expect(await reasonOf("cut.node", (file) => truncateSync(file, bytes))).toBe(
            `it was cut off: ${bytes} bytes of ${whole.length}`,
          );
        }
      });

      it.skipIf(!linux)("for another processor", async () => {
        const other = Buffer.from(whole);
        other.writeUInt16LE(8, 18);
        expect(await reasonOf("other.node", (file) => writeFileSync(file, other))).toBe(
          `it is not for this processor (${process.arch})`,
        );
      });

      it.skipIf(!linux)("of another version, with other kernels", async () => {
        const at = whole.indexOf("\0cumsum\0");
        expect(at).toBeGreaterThan(0);
        const other = Buffer.from(whole);
        other.write("cummax", at + 1);
        expect(await reasonOf("version.node", (file) => writeFileSync(file, other))).toBe(
          "it was built from another version of this package",
        );
      });

      it("something else", async () => {
        expect(await reasonOf("text.node", (file) => writeFileSync(file, "no library at all"))).not.toBe(undefined);
      });
    });
  });
});
