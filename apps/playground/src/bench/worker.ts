// Layer: apps/playground, bench. Times the work on each device in turns, after all have shown the same result.
// Knows the contenders. Knows no page.

import "../worker/polyfill.js";
import { wasmCpu } from "@diffmamba/backend-cpu/wasm";
import { webgpu } from "@diffmamba/backend-webgpu";
import type { Contender, Row, Work } from "./contender.js";
import { Jax } from "./jax.js";
import { Ours } from "./ours.js";

const openers: Readonly<Record<string, readonly (() => Promise<Contender>)[]>> = {
  wasm: [
    async () => new Ours("ours", await wasmCpu()),
    async () => new Ours("ours, one thread", await wasmCpu({ threads: 1 })),
    () => Jax.open("wasm"),
  ],
  webgpu: [async () => new Ours("ours", await webgpu()), () => Jax.open("webgpu")],
};

/** Numbers of [-1, 1) that look random and are always the same. */
function numbers(size: number, seed: number, scale = 1): Float32Array {
  let word = seed;
  return Float32Array.from({ length: size }, () => {
    word = (Math.imul(word, 1664525) + 1013904223) >>> 0;
    return scale * (word / 2 ** 31 - 1);
  });
}

const steps = [
  { batch: 64, input: 256, hidden: 512, output: 64 },
  { batch: 256, input: 512, hidden: 1024, output: 256 },
];
const sizes = [256, 512, 1024];

const works: Readonly<Record<string, (contender: Contender) => Promise<Work>>> = {
  ...Object.fromEntries(
    sizes.map((n) => [`matmul ${n}`, (one: Contender) => one.matmul(n, numbers(n * n, 1), numbers(n * n, 2))]),
  ),
  ...Object.fromEntries(
    steps.map((shape) => {
      const { batch, input, hidden, output } = shape;
      const values = {
        x: numbers(batch * input, 3),
        y: numbers(batch * output, 4),
        w1: numbers(input * hidden, 5, input ** -0.5),
        w2: numbers(hidden * output, 6, hidden ** -0.5),
      };
      return [`step ${batch}x${input}x${hidden}x${output}`, (one: Contender) => one.step(shape, values)];
    }),
  ),
};

/** Relative distance of two results. */
function distance(a: readonly number[], b: readonly number[]): number {
  let [difference, size] = [0, 0];
  for (const [i, value] of b.entries()) {
    difference += (a[i] - value) ** 2;
    size += value ** 2;
  }
  return a.length === b.length ? Math.sqrt(difference / size) : Number.POSITIVE_INFINITY;
}

async function race(device: string, contenders: readonly Contender[], work: string, budget: number): Promise<Row[]> {
  const runs = await Promise.all(contenders.map(works[work]));
  for (const run of runs) for (let i = 0; i < 4; i++) await run.run();
  const [first, ...others] = await Promise.all(runs.map((run) => run.result()));
  for (const [i, other] of others.entries()) {
    const apart = distance(other, first);
    if (!(apart < 1e-4)) throw new Error(`${work} on ${device}: ${contenders[i + 1].name} is ${apart} from ours`);
  }
  const times: number[][] = runs.map(() => []);
  const deadline = performance.now() + budget * runs.length;
  while (times[0].length < 5 || (times[0].length < 200 && performance.now() < deadline)) {
    for (const [i, run] of runs.entries()) {
      const began = performance.now();
      await run.run();
      times[i].push(performance.now() - began);
    }
  }
  for (const run of runs) run.dispose();
  return contenders.map(({ name }, i) => {
    const sorted = times[i].sort((a, b) => a - b);
    return { work, device, name, median: sorted[sorted.length >> 1], best: sorted[0], samples: sorted.length };
  });
}

/** @param device `wasm` or `webgpu` @param budget milliseconds for each contender and work */
async function raceOn(device: string, budget: number): Promise<Row[]> {
  const contenders: Contender[] = [];
  for (const open of openers[device]) contenders.push(await open());
  const rows: Row[] = [];
  for (const work of Object.keys(works)) rows.push(...(await race(device, contenders, work, budget)));
  for (const contender of contenders) await contender.dispose();
  return rows;
}

const scope = globalThis as unknown as {
  postMessage(message: unknown): void;
  onmessage: (event: { readonly data: { readonly device: string; readonly budget: number } }) => void;
};
scope.onmessage = async ({ data: { device, budget } }) => {
  try {
    scope.postMessage({ rows: await raceOn(device, budget) });
  } catch (error) {
    scope.postMessage({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
  }
};
