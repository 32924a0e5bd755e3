// The closed-form counter of Markov chains: equal to the add-beta rule at every place, also from a saved folder and step by step.

import { memoryFiles } from "@diffmamba/files/memory";
import { RandomStream } from "@diffmamba/random";
import { reference } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import { countProbabilities, markovCounter } from "./markov.js";
import { MambaLM } from "./model.js";
import { taken } from "./tiny.testing.js";

/** (n(current, s) + beta) / (n(current) + S beta) after each token. */
function rule(tokens: readonly number[], symbols: number, beta: number): number[] {
  return tokens.flatMap((current, t) => {
    const followed = tokens.slice(1, t + 1).filter((_, i) => tokens[i] === current);
    return Array.from({ length: symbols }, (_, s) => {
      const count = followed.filter((next) => next === s).length;
      return (count + beta) / (followed.length + symbols * beta);
    });
  });
}

const someSymbols = (symbols: number, length: number) => {
  const stream = new RandomStream(1, `symbols ${symbols}`);
  return Array.from({ length }, (_, i) => Math.floor(symbols * stream.at(i) ** 1.5));
};

const worst = (a: readonly number[], b: readonly number[]) => Math.max(...b.map((value, i) => Math.abs(a[i] - value)));

describe.each([
  ["f32", 1e-6],
  ["f64", 1e-12],
] as ["f32" | "f64", number][])("the Markov counter in %s", (dtype, tolerance) => {
  it.each([
    [2, 1],
    [3, 0.5],
    [5, 2],
  ])("is the add-beta rule (%i symbols, beta %d)", async (symbols, beta) => {
    await using device = reference();
    using model = markovCounter({ symbols, beta, device, dtype });
    const rows = [someSymbols(symbols, 200), someSymbols(symbols, 250).slice(50)];
    using tokens = model.tokens(rows);
    const own = await taken(countProbabilities(model, tokens));
    const expected = rows.flatMap((row) => rule(row, symbols, beta));
    expect(worst(own, expected)).toBeLessThan(tolerance);
    expect(own.length).toBe(expected.length);
  });
});

describe("the Markov counter", () => {
  it("is a model like others: saved, loaded, and read on from a state", async () => {
    await using device = reference();
    using model = markovCounter({ symbols: 3, device });
    const files = memoryFiles();
    await files.makeDirectory("counter");
    await model.save(files, "counter");
    using loaded = await MambaLM.load(files, "counter", { device });
    const symbols = someSymbols(3, 60);
    using state = await loaded.prefill(symbols);
    const logits = Array.from(await state.logits.data());
    const total = logits.reduce((a, b) => a + b);
    expect(
      worst(
        Array.from(logits, (x) => x / total),
        rule(symbols, 3, 1).slice(-3),
      ),
    ).toBeLessThan(1e-6);
  });

  it("is refused for what is no chain", () => {
    expect(() => markovCounter({ symbols: 1 })).toThrow("markovCounter: symbols is 1");
    expect(() => markovCounter({ beta: 0 })).toThrow("markovCounter: beta is 0");
  });
});
