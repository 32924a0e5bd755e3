// Layer: apps/cli, probes. A small model learns to read Markov chains in context, and is compared with the best that can be done.
// Knows models, chains and the optimizer. Knows no flag.
import { addBetaLosses, MarkovChains } from "@diffmamba/datasets";
import { MambaLM, type ModelConfig } from "@diffmamba/models";
import { AdamW, cosine, decayGroups, trainStep } from "@diffmamba/nn";
import type { Device } from "@diffmamba/tensor";

export interface MarkovProbe {
  readonly config: Partial<ModelConfig>;
  readonly order: number;
  readonly symbols: number;
  /** T */
  readonly length: number;
  readonly batchSize: number;
  readonly steps: number;
  readonly lr: number;
  /** Of weights and of the chains that are trained on; those of the comparison are others. */
  readonly seed: number;
  readonly device: Device;
  readonly signal?: AbortSignal;
  readonly onStep?: (step: number) => void;
}

export interface MarkovResult {
  readonly parameters: number;
  /** Nats a symbol on chains that were not trained on. */
  readonly loss: number;
  /** Of the add-beta rule on the same chains: no model has less, on average over chains. */
  readonly oracle: number;
  /** loss - oracle */
  readonly gap: number;
  readonly seconds: number;
}

/** Chains of the comparison, and how many are scored at once. */
const heldOut = { chains: 1024, batchSize: 64 };

/** Trains and compares. Between steps the event loop has a turn. @throws the signal's reason */
export async function markovProbe(probe: MarkovProbe): Promise<MarkovResult> {
  const { device, seed, steps, lr, length, batchSize, order, symbols } = probe;
  const start = performance.now();
  using model = MambaLM.create({ ...probe.config, vocabSize: symbols }, { device, seed });
  const chains = new MarkovChains({ order, symbols, seed });
  const optimizer = new AdamW(decayGroups(model, 0), { beta2: 0.95 });
  const rate = cosine(lr, { warmup: Math.min(30, Math.ceil(steps / 10)), steps });
  try {
    model.train();
    for (let step = 0; step < steps; step++) {
      probe.signal?.throwIfAborted();
      const batch = chains.batch(step, { batchSize, length });
      const shape = [batchSize, length];
      using tokens = device.from(batch.tokens, shape, "i32");
      using targets = device.from(batch.targets, shape, "i32");
      const { loss, norm } = trainStep(optimizer, [() => model.loss(tokens, targets)], { lr: rate(step), maxNorm: 1 });
      for (const tensor of [loss, norm]) tensor.dispose();
      probe.onStep?.(step + 1);
      await new Promise<void>((resolve) => setTimeout(resolve));
    }
  } finally {
    optimizer.dispose();
  }
  model.eval();
  const others = new MarkovChains({ order, symbols, seed: seed + 2 ** 32 });
  let [own, best, count] = [0, 0, 0];
  for (let step = 0; step < heldOut.chains / heldOut.batchSize; step++) {
    const batch = others.batch(step, { batchSize: heldOut.batchSize, length });
    const shape = [batch.batchSize, length];
    using tokens = device.from(batch.tokens, shape, "i32");
    using targets = device.from(batch.targets, shape, "i32");
    using sum = model.loss(tokens, targets, { reduction: "sum" });
    own += await sum.item();
    best += addBetaLosses(batch, { order, symbols }).reduce((a, b) => a + b, 0);
    count += batch.tokens.length;
  }
  return {
    parameters: model.parameterCount(),
    loss: own / count,
    oracle: best / count,
    gap: (own - best) / count,
    seconds: (performance.now() - start) / 1000,
  };
}
