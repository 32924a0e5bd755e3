// Layer: apps/bench, tests. What becomes of peers that are wrong, absent or broken, and of what a case leaves behind.
import { type Device, reference } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import { integers, onDevice, uniform } from "./data.js";
import { jaxMatmul } from "./peers/jax.js";
import type { MatmulProblem } from "./peers/matmul.js";
import { type Case, contest, type Entry, type Peer } from "./race.js";
import { runTasks } from "./runner.js";
import { matmulOn, problem } from "./suites/ops/matmul.js";

const product: MatmulProblem = problem([3, 5, 4], "nt");

function productCase(peers: readonly Peer[]): Case {
  return contest({
    name: "matmul nt",
    shape: "3x5x4",
    unit: "GFLOP/s",
    ours: (device) => matmulOn(device, product),
    peers,
  });
}

/** jax's entry, with its result passed through `change`. */
function jaxWith(change: (data: Float32Array) => Float32Array): Peer {
  return {
    name: "jax",
    async open() {
      const entry = await jaxMatmul.open(product, 1);
      return {
        ...entry,
        result: async () => (await entry.result?.())?.map((data) => change(Float32Array.from(data))) ?? [],
      };
    },
  };
}

async function run(cases: readonly Case[], devices = [reference()]) {
  const open = async () => reference();
  const notes: string[] = [];
  const log = { progress: () => undefined, note: (line: string) => void notes.push(line) };
  const tasks = cases.map((item) => ({ suite: { name: "test" }, case: item }));
  const result = await runTasks(tasks, { devices, open, log, budget: 1e-3, minSampleSeconds: 1e-5 });
  const left = devices.map((device) => device.memory().tensors);
  for (const device of devices) await device.dispose();
  return { ...result, notes, left };
}

describe("a peer", () => {
  it("is set beside ours where its result is ours", async () => {
    const { rows, failures, notes, left } = await run([productCase([jaxWith((data) => data)])]);
    expect(notes).toEqual([]);
    expect(failures).toBe(0);
    expect(rows).toHaveLength(1);
    expect(rows[0].peer).toMatch(/^@jax-js\/jax \d+\.\d+\.\d+ wasm$/);
    expect(rows[0].ratio).toBeGreaterThan(0);
    expect(left).toEqual([0]);
  });

  it.each([
    ["one wrong number", (data: Float32Array) => data.with(7, data[7] + 0.01)],
    ["NaN", (data: Float32Array) => data.with(0, Number.NaN)],
    ["a result that is too short", (data: Float32Array) => data.slice(1)],
    ["the transposed product", (data: Float32Array) => data.map((_, i) => data[(i % 3) * 4 + Math.floor(i / 3)])],
  ])("is dropped, and the run fails, for %s", async (_, change) => {
    const { rows, failures, notes } = await run([productCase([jaxWith(change)])]);
    expect(failures).toBe(1);
    expect(rows.map(({ peer, ratio }) => ({ peer, ratio }))).toEqual([{ peer: null, ratio: null }]);
    expect(notes).toHaveLength(1);
    expect(notes[0]).toContain("is not measured, because its result is not ours");
  });

  it("that is absent is told of once, with the reason, and is no failure", async () => {
    const absent = { name: "openblas", open: () => Promise.reject(new Error("libopenblas.so.0 is not there")) };
    const { rows, failures, notes } = await run([productCase([absent]), productCase([absent])]);
    expect(notes).toEqual(["openblas is not measured: libopenblas.so.0 is not there"]);
    expect(failures).toBe(0);
    expect(rows.map(({ peer }) => peer)).toEqual([null, null]);
  });

  it("is what a second backend is to the first", async () => {
    const { rows, failures, left } = await run([productCase([])], [reference(), reference()]);
    expect(failures).toBe(0);
    expect(rows.map(({ peer, backend }) => [backend, peer])).toEqual([["reference", "reference backend"]]);
    expect(left).toEqual([0, 0]);
  });
});

describe("a case", () => {
  const entry = (changes: Partial<Entry>): Entry => ({
    ...{ name: "reference", backend: "reference", work: { ms: 1 }, run: () => undefined },
    ...changes,
  });
  const single = (changes: Partial<Entry>): Case =>
    contest({ name: "single", shape: "1", unit: "ms", ours: () => entry(changes) });

  it.each<[string, Partial<Entry>, string]>([
    [
      "that throws",
      { run: () => Promise.reject(new Error("no such kernel")) },
      "test: single 1: failed: no such kernel",
    ],
    ["whose work was none", { verify: () => Promise.reject(new Error("the loss is NaN")) }, "failed: the loss is NaN"],
    ["that is not counted in its unit", { work: {} }, "its work is not counted in ms"],
    ["without a finite figure", { work: { ms: 0 } }, "value is Infinity"],
  ])("%s is reported, cleaned up, and does not stop the next", async (_, changes, message) => {
    let disposed = 0;
    const dispose = () => void disposed++;
    const { rows, failures, notes } = await run([single({ ...changes, dispose }), productCase([])]);
    expect(notes.join("\n")).toContain(message);
    expect([failures, rows.length, disposed]).toEqual([1, 1, 1]);
  });

  it("may open devices of its own, which are closed when it is over", async () => {
    const opened: Device[] = [];
    const { rows, failures } = await run([
      {
        name: "own device",
        shape: "1",
        threads: 2,
        async prepare(context) {
          opened.push(await context.open("reference", { threads: 2 }));
          const race = await single({}).prepare({ ...context, devices: opened });
          return { ...race, rows: (times) => race.rows(times).map((row) => ({ ...row, threads: 2 })) };
        },
      },
    ]);
    expect(failures).toBe(0);
    expect(rows.map(({ threads }) => threads)).toEqual([2]);
    expect(() => opened[0].zeros([1])).toThrow("was disposed");
  });

  it("that fails while it is prepared leaves nothing behind", async () => {
    const half: Case = {
      name: "half",
      shape: "1",
      async prepare({ devices: [device], enter }) {
        enter(onDevice(device, { work: {}, holds: [device.zeros([4])], run: () => undefined }));
        throw new Error("out of memory");
      },
    };
    const { failures, left } = await run([half]);
    expect([failures, left]).toEqual([1, [0]]);
  });
});

describe("data", () => {
  it("is the same for every backend and stays in its range", () => {
    expect(uniform("x", 8)).toEqual(uniform("x", 8));
    expect(uniform("x", 8)).not.toEqual(uniform("y", 8));
    const tokens = integers("tokens", 1000, 7);
    expect([Math.min(...tokens), Math.max(...tokens)]).toEqual([0, 6]);
  });
});
