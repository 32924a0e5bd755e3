// Layer: train, tests of real processes: signals, kills, locks, a full disk and memory over many steps; and what a terminal shows.
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { PassThrough } from "node:stream";
import { nodeFiles } from "@diffmamba/files/node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Bundle, bundleChild } from "./bundle.testing.js";
import type { StepEvent } from "./events.js";
import { readMetrics } from "./metrics.js";
import { nodeHost, showProgress } from "./node.js";
import { shortRate, shortTime } from "./progress.js";
import { contentOf, namesIn } from "./runs.testing.js";

const files = nodeFiles();
let bundle: Bundle;
let whole: Awaited<ReturnType<typeof contentOf>>;

const at = (name: string) => path.join(bundle.folder, name);

/** What a run left, its checkpoint by its step alone. */
async function left(name: string) {
  const content = await contentOf(files, at(name));
  return { ...content, checkpoint: path.basename(content.checkpoint) };
}

beforeAll(async () => {
  bundle = await bundleChild();
  expect(await bundle.start(["train", at("whole"), "40"]).ended).toBe(0);
  whole = await left("whole");
});
afterAll(() => bundle.dispose());

describe("a run in a process of its own", () => {
  it.each([
    ["SIGINT", 130, "slow"],
    ["SIGTERM", 143, "slow"],
    ["SIGINT", 130, "fast"],
  ] as const)("stopped by %s saves, exits with %i and goes on to the same bits (%s)", async (signal, code, pace) => {
    const name = `stopped-${signal}-${pace}`;
    const child = bundle.start(["train", at(name), "40", pace]);
    await child.line('"step":7,');
    child.process.kill(signal);
    await child.line(`asked by ${signal}`);
    expect(await child.ended).toBe(code);
    expect(await namesIn(files, at(name))).not.toContain("lock");
    const end = JSON.parse(child.lines.at(-1) ?? "");
    expect(end).toMatchObject({
      type: "end",
      result: { stopped: "signal", checkpoint: `${at(name)}/step-${end.step}` },
    });
    expect(await bundle.start(["train", at(name), "40"]).ended).toBe(0);
    expect(await left(name)).toEqual(whole);
  });

  it("exits at once at a second signal, and goes on from the last checkpoint", async () => {
    const child = bundle.start(["train", at("twice"), "100000", "slow"]);
    await child.line('"type":"checkpoint","step":5');
    child.process.kill("SIGTERM");
    await child.line("asked by SIGTERM");
    child.process.kill("SIGINT");
    expect([130, 143]).toContain(await child.ended);
    expect(await bundle.start(["train", at("twice"), "100000"]).line('"type":"start"')).toMatch(
      /"resumedFrom":".*step-\d+"/,
    );
  });

  it("killed leaves a lock that the next one takes over, and goes on to the same bits", async () => {
    const child = bundle.start(["train", at("killed"), "40", "slow"]);
    await child.line('"step":12,');
    child.process.kill("SIGKILL");
    expect(await child.ended).toBe("SIGKILL");
    expect(await namesIn(files, at("killed"))).toContain("lock");
    expect(await bundle.start(["train", at("killed"), "40"]).ended).toBe(0);
    expect(await left("killed")).toEqual(whole);
  });

  it("keeps a second one out while it lives", async () => {
    const first = bundle.start(["train", at("busy"), "100000"]);
    await first.line('"type":"start"');
    const second = bundle.start(["train", at("busy"), "100000"]);
    expect(await second.line("failed: ")).toContain(`the run is being written by process ${first.process.pid} on `);
    expect(await second.ended).toBe(1);
    first.process.kill("SIGKILL");
    await first.ended;
  });
});

describe("memory", () => {
  it("does not grow between step 2 and step 200", { timeout: 120_000 }, async () => {
    // A small young generation and no helper threads: what the engine keeps for itself would drown what we keep.
    const flags = ["--expose-gc", "--single-threaded", "--max-semi-space-size=1"];
    const child = bundle.start(["measure"], flags);
    expect(await child.ended).toBe(0);
    const [second, last] = JSON.parse(child.lines.at(-1) ?? "");
    expect([second.step, last.step]).toEqual([2, 200]);
    expect(last.tensors).toBe(second.tensors);
    expect(last.bytes).toBe(second.bytes);
    const limit = 5e6;
    expect(last.arrayBuffers - second.arrayBuffers).toBeLessThan(limit);
    expect(last.rss - second.rss).toBeLessThan(limit);
  });
});

const namespaces = spawnSync("unshare", ["-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]).status === 0;

describe("a full disk", () => {
  it.skipIf(!namespaces)(
    "ends the run with the file and the last good checkpoint named, and nothing lost (needs unshare and tmpfs)",
    async () => {
      mkdirSync(at("disk"));
      mkdirSync(at("kept"));
      // Pages of 4 KiB: room for the record, the lines and two checkpoints, but not for three.
      const script = `mount -t tmpfs -o size=64k tmpfs ${at("disk")} && "${process.execPath}" "${bundle.program}" train ${at("disk")} 40; status=$?; cp -r ${at("disk")}/. ${at("kept")}; exit $status`;
      const child = bundle.spawn("unshare", ["-rm", "sh", "-c", script]);
      expect(await child.ended).toBe(1);
      const message = child.lines.at(-1) ?? "";
      expect(message).toMatch(
        /^failed: step \d+: cannot write .*\/disk\/\S+: no space left on the device\. The last good checkpoint is .*\/disk\/step-\d+\.$/,
      );
      const named = /step-\d+(?=\.$)/.exec(message)?.[0];
      expect((await left("kept")).checkpoint).toBe(named);
      expect((await namesIn(files, at("kept"))).filter((name) => /tmp|lock/.test(name))).toEqual([]);
      expect(await bundle.start(["train", at("kept"), "40"]).ended).toBe(0);
      expect(await left("kept")).toEqual(whole);
    },
  );
});

describe("this process as a lock's host", () => {
  const host = nodeHost();
  const self = { pid: host.pid, host: host.host, started: "", instance: host.instance };

  it("lives, and so does its parent; a process that is gone, or whose number was taken, does not", async () => {
    const gone = spawnSync(process.execPath, ["-e", ""]).pid;
    expect(await host.isAlive(self)).toBe(true);
    expect(await host.isAlive({ ...self, instance: `${self.pid}-earlier` })).toBe(false);
    expect(await host.isAlive({ ...self, pid: gone, instance: "x" })).toBe(false);
    expect(await host.isAlive({ ...self, pid: gone, host: "another machine" })).toBe(true);
  });

  it.runIf(process.platform === "linux")("is told from an earlier process by its start (Linux)", async () => {
    expect(await host.isAlive({ ...self, pid: process.ppid, instance: `${process.ppid}-earlier` })).toBe(false);
  });
});

describe("progress", () => {
  const step = (n: number): StepEvent => ({
    type: "step",
    step: n,
    steps: 1240,
    loss: 1.2345,
    lr: 5e-4,
    norm: 0.525,
    tokens: 64 * n,
    tokensPerSecond: 12_345,
    time: n,
    secondsLeft: 3725,
  });

  function shown(isTTY: boolean, options: object = {}) {
    const stream = Object.assign(new PassThrough(), {
      isTTY,
      columns: 120,
      cursorTo: () => true,
      clearLine: () => true,
    });
    const show = showProgress({ stream, ...options });
    show({ type: "start", folder: "runs/x", step: 0, steps: 1240, parameters: 1_234_567 });
    for (let n = 1; n <= 3; n++) show(step(n));
    show({ type: "evaluation", step: 3, evaluation: { loss: 2, tokens: 10, bpb: 1.5 }, best: true });
    show({ type: "warning", step: 3, message: "odd" });
    show({ type: "sample", step: 3, sample: { text: "a\nb" } });
    show({ type: "checkpoint", step: 3, path: "runs/x/step-3", best: true });
    show(step(1240));
    show({
      type: "end",
      step: 1240,
      result: { stopped: "finished", step: 1240, checkpoint: "runs/x/step-1240", best: { step: 3, loss: 2 } },
    });
    return String(stream.read() ?? "");
  }

  it("is lines where there is no terminal, a step's only now and then", () => {
    expect(shown(false).split("\n")).toEqual([
      "runs/x: 1,234,567 parameters, 1,240 steps",
      "step 1/1,240  loss 1.234  lr 5.0e-4  norm 0.53  12k tok/s  1 h 2 min left",
      "step 3: evaluation loss 2.0000 (1.5000 bits per byte), the best so far",
      "step 3: warning: odd",
      'step 3: sample "a\\nb"',
      "step 1,240/1,240  loss 1.234  lr 5.0e-4  norm 0.53  12k tok/s  1 h 2 min left",
      "done: 1,240 steps, saved runs/x/step-1240, best loss 2.0000 at step 3",
      "",
    ]);
    expect(shown(false, { every: 0 }).split("\n")).toHaveLength(10);
  });

  it("is a bar on a terminal, with the lines above it, and nothing where it is to be silent", () => {
    const text = shown(true);
    expect(text).toContain("step 0/1240");
    expect(text).toContain("\u2591");
    expect(text).toContain("step 3: warning: odd\n");
    expect(text).toMatch(/done: 1,240 steps.*\n$/);
    expect(shown(true, { style: "lines" })).not.toContain("\u2591");
    expect(shown(true, { style: "silent" })).toBe("");
  });

  it("shortens rates and times", () => {
    expect([999.6, 1234, 12_345, 1_234_567].map(shortRate)).toEqual(["1000", "1.2k", "12k", "1.2M"]);
    expect([0.4, 59, 190, 7500, 273_600].map(shortTime)).toEqual(["0 s", "59 s", "3 min 10 s", "2 h 5 min", "3 d 4 h"]);
  });
});

it("a run's metrics can be read while it runs", async () => {
  const child = bundle.start(["train", at("live"), "100000"]);
  await child.line('"type":"checkpoint","step":5');
  const steps: number[] = [];
  for await (const { step } of readMetrics(files, at("live"))) steps.push(step);
  expect(steps.slice(0, 5)).toEqual([1, 2, 3, 4, 5]);
  child.process.kill("SIGKILL");
  await child.ended;
});
