// What was measured on an adapter, remembered: in a file, and by which rules it is looked for and made.

import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Device } from "@diffmamba/tensor";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { WebGpuBackend } from "./backend.js";
import type { TableStore } from "./index.js";
import { describeWithDevice } from "./kernels/device.testing.js";
import { matmulTuning, tuneMatmul } from "./kernels/matmul.js";
import { fileTables } from "./node.js";
import { recallMatmul } from "./tables.js";

describe("tables in a file", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "diffmamba-tables-"));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it("come back by name, beside those of others, and leave nothing else behind", async () => {
    const inside = path.join(folder, "not", "there", "yet");
    const store = fileTables(inside);
    expect(await store.read("a")).toBeUndefined();
    await store.write("a", { x: 1 });
    await store.write("b", [2]);
    expect([await fileTables(inside).read("a"), await store.read("b")]).toEqual([{ x: 1 }, [2]]);
    expect(await readdir(inside)).toEqual(["webgpu.json"]);
  });

  it("are made anew over a file that is no JSON", async () => {
    await writeFile(path.join(folder, "webgpu.json"), "{ no");
    const store = fileTables(folder);
    await expect(store.read("a")).rejects.toThrow(SyntaxError);
    await store.write("a", 3);
    expect(JSON.parse(await readFile(path.join(folder, "webgpu.json"), "utf8"))).toEqual({ a: 3 });
  });
});

describeWithDevice("tiles that are remembered", (device) => {
  const tuning = (of: Device) => matmulTuning((of.backend as WebGpuBackend).context);
  const broken: TableStore = {
    read: async () => Promise.reject(new Error("no store")),
    write: async () => Promise.reject(new Error("no store")),
  };

  it("are taken from the store by the adapter's name, and measured where it has none", async () => {
    const table = { version: 1, throughput: { kk: { "128x128x16": 7 } } };
    const held = new Map<string, unknown>([[`matmul ${device().backend.device}`, table]]);
    const store: TableStore = {
      read: async (name) => held.get(name),
      write: async (name, value) => void held.set(name, value),
    };
    await recallMatmul(device(), store, false);
    expect(tuning(device()).table).toEqual(table);
    held.clear();
    await recallMatmul(device(), store, false);
    expect(held.size).toBe(0);
  });

  it("are searched for with every variant of the tile", async () => {
    const table = await tuneMatmul(device(), { size: 32, seconds: 1 });
    expect(tuning(device()).table).toBe(table);
    expect(tuning(device()).forced).toBeUndefined();
    const names = tuning(device()).variants.map(({ name }) => name);
    for (const rates of Object.values(table.throughput)) {
      expect(names).toEqual(expect.arrayContaining(Object.keys(rates)));
      expect(Object.values(rates).every((rate) => rate > 0)).toBe(true);
    }
  });

  it("need no store that works", async () => {
    tuning(device()).table = undefined;
    await recallMatmul(device(), broken, false);
    expect(tuning(device()).table).toBeUndefined();
  });
});
