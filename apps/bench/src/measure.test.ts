// Layer: apps/bench, tests. The clock on a clock of its own, so that nothing here depends on the machine's speed.
import { describe, expect, it } from "vitest";
import { measure } from "./measure.js";

/** Entries on a fake clock: a run of an entry takes the next of its times, the last one again and again. */
function world(times: Readonly<Record<string, readonly number[]>>) {
  let clock = 0;
  const log: string[] = [];
  const entries = Object.entries(times).map(([name, list]) => {
    let runs = 0;
    return {
      name,
      run() {
        clock += list[Math.min(runs++, list.length - 1)];
        log.push(name);
      },
    };
  });
  return { entries, log, now: () => clock };
}

describe("measure", () => {
  it("gives median, minimum and quartile distance of the samples, and leaves the warm-up out", async () => {
    const { entries, now } = world({ a: [100, 50, 1, 2, 3, 4, 5] });
    const timing = (await measure(entries, { budget: 1e-9, minSamples: 5, minSampleSeconds: 0, now })).get(entries[0]);
    expect(timing).toEqual({ median: 3, min: 1, spread: 2 / 3, samples: 5 });
  });

  it("takes samples of all entries in turns, beginning with another one each round", async () => {
    const { entries, log, now } = world({ a: [1], b: [1], c: [1] });
    await measure(entries, { budget: 1e-9, minSamples: 3, minSampleSeconds: 0, now });
    expect(log.join("")).toBe("aabbccabcbcacab");
  });

  it("takes one sample of an entry that says so, without a warm-up", async () => {
    const { entries, log, now } = world({ a: [1], slow: [50] });
    const [a, slow] = [entries[0], { ...entries[1], once: true }];
    const times = await measure([a, slow], { budget: 1e-9, minSamples: 4, minSampleSeconds: 0, now });
    expect(times.get(slow)).toEqual({ median: 50, min: 50, spread: 0, samples: 1 });
    expect(times.get(a)?.samples).toBe(4);
    expect(log.filter((name) => name === "slow")).toHaveLength(1);
  });

  it("times nothing while the threads of another entry still spin", async () => {
    const { entries, now } = world({ a: [1], b: [1] });
    const resting = entries.map((entry) => ({ ...entry, restMs: 5 }));
    const started = performance.now();
    await measure(resting, { budget: 1e-9, minSamples: 3, minSampleSeconds: 0, now });
    // A rest after the warm-up and after three samples of each; timers may be a millisecond early.
    expect(performance.now() - started).toBeGreaterThanOrEqual(8 * 4);
  });

  it("runs a quick entry many times in a sample and reports one run", async () => {
    const { entries, log, now } = world({ quick: [2 ** -10], slow: [1] });
    const times = await measure(entries, { budget: 20, minSamples: 3, minSampleSeconds: 0.125, now });
    expect(times.get(entries[0])).toEqual({ median: 2 ** -10, min: 2 ** -10, spread: 0, samples: expect.any(Number) });
    expect(times.get(entries[1])?.median).toBe(1);
    const longest = Math.max(
      ...log
        .join(" ")
        .split(/slow ?/)
        .map((part) => part.split(" ").length - 1),
    );
    expect(longest).toBeGreaterThanOrEqual(128);
  });

  it("gives the warm-up its time after a first run that was slow: samples are long all the same", async () => {
    const { entries, log, now } = world({ compiled: [1000, 2 ** -10], other: [1] });
    await measure(entries, { budget: 20, minSamples: 3, minSampleSeconds: 0.125, now });
    const between = log
      .join(" ")
      .split(/other ?/)
      .at(-2);
    expect(between?.trim().split(" ").length).toBeGreaterThanOrEqual(128);
  });

  it("stops at the budget, but not before the least number of samples, and never beyond the greatest", async () => {
    const samples = async (options: { budget: number; minSamples?: number; maxSamples?: number }) => {
      const { entries, now } = world({ a: [1] });
      return (await measure(entries, { minSampleSeconds: 0, ...options, now })).get(entries[0])?.samples;
    };
    expect(await samples({ budget: 0.5, minSamples: 4 })).toBe(4);
    expect(await samples({ budget: 1000, maxSamples: 7 })).toBe(7);
    const within = await samples({ budget: 40, minSamples: 1 });
    expect(within).toBeGreaterThan(20);
    expect(within).toBeLessThanOrEqual(40);
  });

  it("waits for promises and, once a sample, for what was enqueued", async () => {
    const { now } = world({});
    const log: string[] = [];
    const entry = {
      async run() {
        await Promise.resolve();
        log.push("run");
      },
      async finish() {
        log.push("finish");
      },
    };
    await measure([entry], { budget: 1e-9, minSamples: 2, minSampleSeconds: 0, now: () => now() + log.length });
    expect(log).toEqual(["run", "finish", "run", "finish", "run", "finish", "run", "finish"]);
  });

  it("passes on the error of an entry, and refuses a budget that is no time", async () => {
    const failing = { run: () => Promise.reject(new Error("the kernel is broken")) };
    await expect(measure([failing], { budget: 1 })).rejects.toThrow("the kernel is broken");
    await expect(measure([], { budget: 0 })).rejects.toThrow("a budget of 0 seconds is no time");
  });
});
