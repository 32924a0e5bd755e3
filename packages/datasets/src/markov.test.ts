// Layer: datasets, tests. Markov chains whose statistics are known, and the add-beta rule by hand and against its expected loss.
import { describe, expect, it } from "vitest";
import { addBeta, addBetaLosses, MarkovChains } from "./index.js";

describe("chains", () => {
  it("have rows of probabilities, other ones for every chain and seed, the same each time", () => {
    const chains = new MarkovChains({ order: 2, symbols: 3, seed: 1 });
    const table = chains.transitions(5);
    expect(table).toHaveLength(27);
    for (let row = 0; row < 27; row += 3) {
      expect(table[row] + table[row + 1] + table[row + 2]).toBeCloseTo(1, 12);
      expect(Math.min(...table.subarray(row, row + 3))).toBeGreaterThan(0);
    }
    expect(new MarkovChains({ order: 2, symbols: 3, seed: 1 }).transitions(5)).toEqual(table);
    expect(chains.transitions(6)).not.toEqual(table);
    expect(new MarkovChains({ order: 2, symbols: 3, seed: 2 }).transitions(5)).not.toEqual(table);
  });

  it.each([
    [1, 1 / 12],
    [3, 1 / 28],
    [0.5, 1 / 8],
  ])("have Dirichlet rows (beta %d): mean 1/S and the variance of a Beta(b, b)", (beta, variance) => {
    const chains = new MarkovChains({ symbols: 2, beta, seed: 3 });
    const first = Array.from({ length: 8000 }, (_, chain) => chains.transitions(chain)[0]);
    const mean = first.reduce((a, b) => a + b) / first.length;
    expect(mean).toBeCloseTo(0.5, 1.7);
    expect(first.reduce((sum, p) => sum + (p - mean) ** 2, 0) / first.length / variance).toBeCloseTo(1, 1);
  });

  it("give sequences in which each context is followed as its row says", () => {
    const chains = new MarkovChains({ order: 2, symbols: 2, seed: 4 });
    const table = chains.transitions(0);
    const sequence = chains.sequence(0, 40_000);
    const counts = new Float64Array(8);
    for (let t = 2; t < sequence.length; t++) counts[4 * sequence[t - 2] + 2 * sequence[t - 1] + sequence[t]]++;
    for (let row = 0; row < 8; row += 2) {
      const n = counts[row] + counts[row + 1];
      const sigma = Math.sqrt((table[row] * table[row + 1]) / n);
      expect(Math.abs(counts[row] / n - table[row])).toBeLessThan(4 * sigma);
    }
    expect(chains.sequence(0, 10)).toEqual(sequence.slice(0, 10));
  });

  it("make batches of rows of their own, with the next symbol as target", () => {
    const chains = new MarkovChains({ seed: 5 });
    const batch = chains.batch(3, { batchSize: 4, length: 6 });
    for (let row = 0; row < 4; row++) {
      const sequence = chains.sequence(12 + row, 7);
      expect(batch.tokens.subarray(6 * row, 6 * row + 6)).toEqual(sequence.subarray(0, 6));
      expect(batch.targets.subarray(6 * row, 6 * row + 6)).toEqual(sequence.subarray(1));
    }
    expect(batch).toMatchObject({ batchSize: 4, length: 6, step: 3 });
  });

  it.each([
    [{ symbols: 1 }, '"symbols" wants a whole number of at least 2, got 1'],
    [{ order: -1 }, '"order" wants a whole number of at least 0, got -1'],
    [{ beta: 0 }, '"beta" wants a number above 0, got 0'],
    [{ symbols: 100, order: 4 }, "100000000 contexts, more than 1e6"],
  ])("with %j are refused", (options, message) => {
    expect(() => new MarkovChains({ ...options, seed: 0 })).toThrow(message);
  });
});

describe("the add-beta rule", () => {
  it("counts what followed each context", () => {
    // after 0: 1, then 0 and 1; after 1: 0
    const p = addBeta([0, 1, 0, 0, 1], { beta: 1 });
    const expected = [1 / 2, 1 / 2, 1 / 2, 1 / 2, 1 / 3, 2 / 3, 2 / 4, 2 / 4, 2 / 3, 1 / 3];
    for (const [i, value] of expected.entries()) expect(p[i]).toBeCloseTo(value, 12);
  });

  it("knows nothing before a whole context has been seen", () => {
    const p = addBeta([2, 0, 2, 0, 2], { order: 2, symbols: 3, beta: 0.5 });
    expect(Array.from(p.subarray(0, 3))).toEqual([1 / 3, 1 / 3, 1 / 3]);
    expect(Array.from(p.subarray(3, 6))).toEqual([1 / 3, 1 / 3, 1 / 3]);
    // 0 after (2, 0) never, 2 once: (0.5, 0.5, 1.5) / 2.5
    expect(Array.from(p.subarray(9, 12))).toEqual([0.2, 0.2, 0.6]);
    expect(() => addBeta([0, 3], { symbols: 3 })).toThrow("addBeta: 3 at position 1 is none of the symbols 0 to 2");
  });

  it("loses less than other rules on chains of its own beta, and near the chains' entropy on long rows", () => {
    const chains = new MarkovChains({ seed: 6 });
    const batch = chains.batch(0, { batchSize: 400, length: 128 });
    const mean = (beta: number) => addBetaLosses(batch, { beta }).reduce((a, b) => a + b) / (400 * 128);
    expect(mean(1)).toBeLessThan(mean(0.2));
    expect(mean(1)).toBeLessThan(mean(4));
    const long = chains.batch(0, { batchSize: 1, length: 20_000 });
    const table = chains.transitions(0);
    let entropy = 0;
    for (let i = 0; i < long.tokens.length; i++) entropy -= Math.log(table[2 * long.tokens[i] + long.targets[i]]);
    const own = addBetaLosses(long).reduce((a, b) => a + b);
    expect((own - entropy) / long.length).toBeLessThan(1e-3);
    expect(own).toBeGreaterThan(entropy);
  });
});
