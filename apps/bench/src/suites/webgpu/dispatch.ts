// Layer: apps/bench, suites of the WebGPU backend. What the processor spends on a kernel that is enqueued, in a batch of many.
// Knows kernels as calls. Knows no shader.
import process from "node:process";
import type { Case, RowPart, Settings } from "../../race.js";

const ROUNDS = 9;

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1];

/** All threads' time, Dawn's included, and that of the thread that enqueues. */
export function dispatchCases({ dispatches }: Settings): Case[] {
  const shape = `${dispatches} kernels of 256 elements`;
  const name = "processor time of a dispatch";
  return [
    {
      name,
      shape,
      async prepare({ devices: [device] }) {
        const [x, y] = [device.ones([256]), device.empty([256])];
        const [from, to] = [x.view(), y.view()];
        const { kernels } = device.backend;
        const calls = () => {
          for (let i = 0; i < dispatches; i++) kernels.unary("neg", i % 2 ? to : from, i % 2 ? from : to);
        };
        /** Microseconds of the thread that enqueues, and of all, a dispatch. */
        const measure = async (enqueue: () => void): Promise<readonly [number[], number[]]> => {
          const [own, all]: [number[], number[]] = [[], []];
          for (let round = 0; round < ROUNDS; round++) {
            const cpu = process.cpuUsage();
            const start = performance.now();
            enqueue();
            own.push(((performance.now() - start) * 1e3) / dispatches);
            await device.synchronize();
            const { user, system } = process.cpuUsage(cpu);
            all.push((user + system) / dispatches);
          }
          return [own, all];
        };
        const [own, all] = await measure(calls);
        const recorded = device.record(calls);
        const [ownAgain, allAgain] = await measure(() => recorded.replay());
        recorded.dispose();
        x.dispose();
        y.dispose();
        const row = (what: string, values: readonly number[]): RowPart => ({
          name: `${name}, ${what}`,
          ...{ shape, unit: "us/dispatch", value: median(values), best: Math.min(...values), backend: device.name },
          ...{ peer: null, peerValue: null, peerBest: null, ratio: null, spread: 0, samples: ROUNDS },
        });
        return {
          entries: [],
          checks: [],
          rows: () => [
            ...[row("to enqueue it", own), row("all threads", all)],
            ...[row("recorded, to enqueue it", ownAgain), row("recorded, all threads", allAgain)],
          ],
        };
      },
    },
  ];
}
