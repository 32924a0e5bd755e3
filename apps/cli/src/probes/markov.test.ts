// Layer: apps/cli, probes, tests. One layer learns to count transitions in context to within 0.003 nats of the best, with any seed,
// vanilla and differential; without its convolution it cannot see which symbol came before, and stays at least 0.03 away.
// One seed takes half a minute of computing; DIFFMAMBA_SLOW=1 tries three.
import process from "node:process";
import { cpu, cpuAvailability } from "@diffmamba/backend-cpu";
import { preset } from "@diffmamba/models";
import { describe, expect, it } from "vitest";
import { markovProbe } from "./markov.js";

const { available, reason } = { reason: "", ...cpuAvailability() };
const about = available
  ? "learning Markov chains in context"
  : `learning Markov chains in context (skipped: ${reason})`;

const seeds = process.env.DIFFMAMBA_SLOW ? [0, 1, 2] : [0];

async function gap(name: string, seed: number, dConv: number): Promise<number> {
  await using device = await cpu({ threads: 1 });
  const config = { ...preset(name), dConv };
  const size = { order: 1, symbols: 2, length: 128, batchSize: 32, steps: 600, lr: 1e-2 };
  return (await markovProbe({ ...size, config, seed, device })).gap;
}

describe.skipIf(!available)(about, () => {
  const runs = ["markov-mamba2", "markov-diffmamba2"].flatMap((name) => seeds.map((seed) => [name, seed] as const));

  it.each(runs)(
    "%s ends within 0.003 nats of the oracle (seed %i)",
    async (name, seed) => {
      const own = await gap(name, seed, 4);
      expect(own).toBeLessThan(0.003);
      expect(own).toBeGreaterThan(0);
    },
    300_000,
  );

  it.each(runs)(
    "%s without its convolution stays at least 0.03 away (seed %i)",
    async (name, seed) => {
      expect(await gap(name, seed, 1)).toBeGreaterThan(0.03);
    },
    300_000,
  );
});
