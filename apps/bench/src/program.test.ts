// Layer: apps/bench, tests. The command line: exit codes, what goes to which stream, and a quick run of every suite.
import { cpuAvailability } from "@diffmamba/backend-cpu";
import { webgpuAvailability } from "@diffmamba/backend-webgpu/node";
import { reference } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import { openDevices, optional } from "./backends.js";
import { forms } from "./peers/matmul.js";
import { bench } from "./program.js";
import { checkRow, type Row } from "./row.js";
import { suites } from "./suites/index.js";

async function run(...argv: string[]) {
  let [stdout, stderr] = ["", ""];
  const code = await bench(argv, suites, {
    stdout: (text) => {
      stdout += text;
    },
    stderr: (text) => {
      stderr += text;
    },
  });
  return { code, stdout, stderr };
}

/** `bench SUITE --quick --json`, run once for all tests. */
const quickRuns = new Map<string, ReturnType<typeof run>>();

function quickRun(suite: string) {
  const known = quickRuns.get(suite) ?? run(suite, "--quick", "--json");
  quickRuns.set(suite, known);
  return known;
}

describe("wrong usage ends with 2, says why, and prints nothing on stdout", () => {
  it.each<[string, string[], string]>([
    ["no suite", [], "no suite is named"],
    ["an unknown suite", ["opps"], "opps: no such suite"],
    ["an unknown suite beside a known one", ["ops", "nothing"], "nothing: no such suite"],
    ["an unknown flag", ["ops", "--fast"], "--fast"],
    ["a flag without its value", ["ops", "--backend"], "--backend"],
    ["an unknown backend", ["ops", "--backend", "abacus"], "--backend abacus: there is reference, cpu"],
    ["a backend twice", ["ops", "--backend", "reference", "--backend", "reference"], "named twice"],
    [
      "no count of threads",
      ["cpu", "--threads", "1,many"],
      "--threads 1,many: it must be whole numbers from 1 to 1024",
    ],
    ["threads for what has none", ["decode", "--threads", "2"], "--threads 2: none of the suites"],
    ["an unknown size", ["decode", "--set", "lenght=4"], "there is no size lenght; there is vocabSize, dModel"],
    ["a size that is no number", ["train", "--set", "length=long"], "--set length=long"],
    ["a size of zero", ["train", "--set", "length=0"], "a whole number of at least 1"],
    ["a size without a value", ["train", "--set", "length"], "--set length"],
    ["a budget that is no time", ["train", "--budget", "0"], "--budget 0"],
    ["a filter that nothing has", ["ops", "--filter", "fourier"], "--filter fourier: no case"],
  ])("%s", async (_, argv, message) => {
    const { code, stdout, stderr } = await run(...argv);
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect([code, stdout]).toEqual([2, ""]);
  });

  it("lists the suites with an unknown one", async () => {
    const { stderr } = await run("nothing");
    for (const { name, summary } of suites) expect(stderr).toContain(`${name.padEnd(6)}  ${summary}`);
  });
});

describe("what describes the program", () => {
  it("goes to stdout and ends with 0", async () => {
    const list = await run("--list");
    expect([list.code, list.stderr]).toEqual([0, ""]);
    for (const { name } of suites) expect(list.stdout).toContain(`  ${name} `);
    const json = JSON.parse((await run("--list", "--json")).stdout) as { name: string }[];
    expect(json.map(({ name }) => name)).toEqual(suites.map(({ name }) => name));
    const help = await run("--help");
    expect(help.stdout).toMatch(/^usage: bench SUITE/);
    expect(help.code).toBe(0);
  });
});

const found = cpuAvailability();

/** What a machine need not have: a native library, and the compiler that builds what opens it. */
const mayBeAbsent = /^(OpenBLAS|onnxruntime-node|multiply-add loop|memory (read|copy)).* is not measured: .*\n/gm;

describe("a quick run", () => {
  it.for(suites)(
    "of $name gives finite, positive rows as one JSON array",
    { timeout: 60_000 },
    async (suite, { skip }) => {
      skip(suite.backend === "cpu" && !found.available, found.available ? "" : found.reason);
      // A driver on the processor takes minutes to compile the shaders of all cases.
      skip(suite.backend === "webgpu", "it is for a GPU; one of its cases is run below");
      const { code, stdout, stderr } = await quickRun(suite.name);
      expect(stderr).not.toContain("failed");
      expect(stderr.replace(mayBeAbsent, "")).not.toContain("not measured");
      expect(code).toBe(0);
      const rows = JSON.parse(stdout) as Row[];
      for (const row of rows) {
        checkRow(row);
        expect(row.suite).toBe(suite.name);
      }
      const cases = suite.cases({ ...suite.settings, ...suite.quick }, [1]);
      expect(rows.length).toBeGreaterThanOrEqual(cases.length);
    },
  );

  it("of webgpu gives the rows of a case, where there is an adapter", { timeout: 120_000 }, async ({ skip }) => {
    const adapter = await webgpuAvailability();
    skip(!adapter.available, adapter.available ? "" : adapter.reason);
    const { code, stdout, stderr } = await run("webgpu", "--quick", "--json", "--filter", "shader copy");
    expect(stderr).not.toContain("failed");
    expect(code).toBe(0);
    const [row] = JSON.parse(stdout) as Row[];
    checkRow(row);
    expect(row).toMatchObject({ suite: "webgpu", name: "shader copy", unit: "GB/s", backend: "webgpu" });
  });

  it("holds a peer's row for the matrix product in every form", async () => {
    const { stdout } = await quickRun("ops");
    const rows = JSON.parse(stdout) as Row[];
    for (const form of forms) {
      const peers = rows.filter(({ name }) => name === `matmul ${form}`).map(({ peer }) => peer ?? "");
      expect(peers.some((peer) => peer.startsWith("@jax-js/jax"))).toBe(true);
      expect(peers).toContain("js multiply-add loop");
    }
  });

  it("sets the differential step beside what it computes more", async () => {
    const { stdout } = await quickRun("train");
    const row = (JSON.parse(stdout) as Row[]).find(({ unit }) => unit === "times");
    expect(row?.peerValue).toBeGreaterThan(1);
    expect(row?.ratio).toBeCloseTo((row?.peerValue ?? 0) / (row?.value ?? 1), 10);
  });

  it.skipIf(!found.available)("of cpu says on how many threads, and beside what", async () => {
    const { stdout } = await quickRun("cpu");
    const rows = JSON.parse(stdout) as Row[];
    for (const row of rows) expect(row.threads).toBeGreaterThanOrEqual(1);
    const peersOf = (name: string) => rows.filter((row) => row.name === name).map(({ peer }) => peer ?? "");
    for (const form of forms) {
      const peers = peersOf(`matmul ${form}`);
      for (const peer of ["@tensorflow/tfjs-backend-wasm", "@jax-js/jax", "reference backend"]) {
        expect(peers.some((name) => name.startsWith(peer))).toBe(true);
      }
      const best = rows.filter(({ name, peer }) => name === `matmul ${form}` && peer?.startsWith("best of "));
      for (const { shape, threads, peerValue } of best) {
        const natives = rows.filter(
          (row) => row.name === `matmul ${form}` && row.shape === shape && row.threads === threads,
        );
        const values = natives
          .filter(({ peer }) => /^(OpenBLAS|onnx)/.test(peer ?? ""))
          .map((row) => row.peerValue ?? 0);
        expect(peerValue).toBe(Math.max(...values));
      }
    }
    for (const variant of ["mamba2", "diffmamba2"]) {
      expect(peersOf(`${variant} step`)).toContain("reference backend, from 1 of 2 sequences");
      const asked = rows.find(({ name }) => name === `${variant} step, memory asked for after warm-up`);
      expect([asked?.value, asked?.unit]).toEqual([0, "bytes"]);
    }
  });

  it.skipIf(!found.available)(
    "of cpu takes the threads that are named, and sets the second beside the first",
    async () => {
      const argv = ["cpu", "--quick", "--json", "--threads", "3,1", "--filter", "mamba2 step beside"];
      const rows = JSON.parse((await run(...argv)).stdout) as Row[];
      expect(new Set(rows.map(({ threads }) => threads))).toEqual(new Set([1, 3]));
      const peers = rows.filter(({ name, threads }) => name === "mamba2 step" && threads === 3).map(({ peer }) => peer);
      expect(peers).toContain("1 thread");
    },
  );

  it("takes other sizes and only what the filter names, and without --json prints a table", async () => {
    const argv = ["decode", "--quick", "--filter", "DIFFMAMBA2", "--set", "dModel=16", "--set", "batch=2"];
    const { code, stdout } = await run(...argv);
    const [head, ...lines] = stdout.trimEnd().split("\n");
    expect(code).toBe(0);
    expect(head).toMatch(/^suite +name +shape +threads +value +unit +spread +peer +peer's +ratio$/);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(
      /^decode +diffmamba2 decode +d16 1 layers N4 P4 V16, batch 2 .* ms\/token .* memory copy /,
    );
  });
});

describe("backends", () => {
  it("that are not installed or do not start fail with the reason, and the others are closed", async () => {
    const first = reference();
    const known = [
      { name: "first", open: async () => first },
      { name: "broken", open: () => Promise.reject(new Error("no adapter")) },
      optional("of-no-kind"),
    ];
    await expect(openDevices(["first", "broken"], known)).rejects.toThrow(
      "backend broken does not work here: no adapter.",
    );
    expect(() => first.zeros([1])).toThrow("was disposed");
    await expect(openDevices(["of-no-kind"], known)).rejects.toThrow("backend of-no-kind does not work here");
  });
});
