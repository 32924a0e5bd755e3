import { describe, expect, it } from "vitest";
import { checkSampling, keepMinP, keepTopK, keepTopP, penalizeRepetition, pick, Sampler, softmax } from "./sampling.js";

/** Logits whose softmax are these probabilities. */
const logits = (...probabilities: number[]) => Float64Array.from(probabilities, Math.log);

/** Which tokens a filter leaves. */
function left(scores: Float64Array, filter: (scores: Float64Array) => void): number[] {
  filter(scores);
  return [...scores.keys()].filter((i) => scores[i] > Number.NEGATIVE_INFINITY);
}

/** How often each token is drawn, over `count` positions. */
function frequencies(sampler: Sampler, scores: Float64Array, count: number): number[] {
  const found: number[] = new Array(scores.length).fill(0);
  for (let position = 0; position < count; position++) found[sampler.draw(scores, [], position).token]++;
  return found.map((n) => n / count);
}

describe("the filters", () => {
  it("top-k keeps the k most probable tokens, and all that are equal to the last of them", () => {
    expect(left(logits(0.1, 0.4, 0.2, 0.3), (s) => keepTopK(s, 2))).toEqual([1, 3]);
    expect(left(logits(0.2, 0.4, 0.2, 0.2), (s) => keepTopK(s, 2))).toEqual([0, 1, 2, 3]);
    expect(left(logits(0.6, 0.4), (s) => keepTopK(s, 50))).toEqual([0, 1]);
  });

  it("top-p keeps the fewest most probable tokens that reach p, and always the first", () => {
    const scores = () => logits(0.15, 0.5, 0.05, 0.3);
    expect(left(scores(), (s) => keepTopP(s, 0.79))).toEqual([1, 3]);
    expect(left(scores(), (s) => keepTopP(s, 0.81))).toEqual([0, 1, 3]);
    expect(left(scores(), (s) => keepTopP(s, 0.5))).toEqual([1]);
    expect(left(scores(), (s) => keepTopP(s, 1e-9))).toEqual([1]);
    expect(left(scores(), (s) => keepTopP(s, 0.999))).toEqual([0, 1, 2, 3]);
  });

  it("top-p takes equal tokens away by their numbers, and leaves filtered ones filtered", () => {
    expect(left(logits(0.25, 0.25, 0.25, 0.25), (s) => keepTopP(s, 0.6))).toEqual([1, 2, 3]);
    const scores = logits(0.25, 0.25, 0.25, 0.25);
    scores[3] = Number.NEGATIVE_INFINITY;
    expect(left(scores, (s) => keepTopP(s, 0.6))).toEqual([1, 2]);
  });

  it("min-p keeps tokens of at least that fraction of the greatest probability", () => {
    const scores = () => logits(0.6, 0.29, 0.06, 0.05);
    expect(left(scores(), (s) => keepMinP(s, 0.099))).toEqual([0, 1, 2]);
    expect(left(scores(), (s) => keepMinP(s, 0.5))).toEqual([0]);
    expect(left(scores(), (s) => keepMinP(s, 1))).toEqual([0]);
  });

  it("the repetition penalty divides positive logits and multiplies negative ones, once a token", () => {
    const scores = Float64Array.of(2, -3, 0, 4);
    penalizeRepetition(scores, [0, 1, 0, 2, 1], 2);
    expect([...scores]).toEqual([1, -6, 0, 4]);
  });
});

describe("drawing", () => {
  it("draws as often as the probabilities say, after temperature", () => {
    const scores = logits(0.1, 0.2, 0.3, 0.4);
    const plain = frequencies(new Sampler({}, 1), scores, 20_000);
    for (const [i, p] of [0.1, 0.2, 0.3, 0.4].entries()) expect(plain[i]).toBeCloseTo(p, 1.7);
    // Temperature 1/2 squares the probabilities: 1, 4, 9, 16 of 30.
    const sharp = frequencies(new Sampler({ temperature: 0.5 }, 1), scores, 20_000);
    for (const [i, n] of [1, 4, 9, 16].entries()) expect(sharp[i]).toBeCloseTo(n / 30, 1.7);
  });

  it("applies the penalty first, then temperature, top-k, top-p and min-p, and renormalizes what is left", () => {
    // Temperature 1/2: 0.04, 0.09, 0.16, 0.36 of 0.65. Top-3 leaves 0.09, 0.16, 0.36 of 0.61. With p = 0.85 what goes
    // may have 0.15 together: 0.09 / 0.61 = 0.148 goes, and the two that stay are renormalized to 0.16 and 0.36 of 0.52.
    const scores = logits(0.2, 0.3, 0.4, 0.6);
    const found = frequencies(new Sampler({ temperature: 0.5, topK: 3, topP: 0.85 }, 3), scores, 20_000);
    expect(found.slice(0, 2)).toEqual([0, 0]);
    expect(found[2]).toBeCloseTo(0.16 / 0.52, 1.7);
    // Without top-k, 0.04 + 0.09 of 0.65 are 0.2, more than 0.15: token 1 stays. The order counts.
    expect(frequencies(new Sampler({ temperature: 0.5, topP: 0.85 }, 3), scores, 2_000)[1]).toBeGreaterThan(0.05);
    // min-p is a fraction of the greatest probability after temperature: 0.16 / 0.36 = 0.44.
    expect(frequencies(new Sampler({ temperature: 0.5, minP: 0.5 }, 3), scores, 100)[3]).toBe(1);
    expect(frequencies(new Sampler({ minP: 0.5 }, 3), scores, 2_000)[2]).toBeGreaterThan(0.2);
  });

  it("takes the greatest logit at temperature 0, after the penalty, and the first of equal ones", () => {
    const greedy = new Sampler({ temperature: 0, repetitionPenalty: 3 }, 0);
    expect(greedy.draw([1, 5, 4, 5], [], 0).token).toBe(1);
    expect(greedy.draw([1, 5, 4, 4.5], [1], 0).token).toBe(3);
  });

  it("gives the model's own log-probability, whatever the rules", () => {
    const { token, logprob } = new Sampler({ temperature: 0, repetitionPenalty: 10 }, 0).draw(
      logits(0.7, 0.3).map((s) => s + 5),
      [0],
      0,
    );
    expect(token).toBe(1);
    expect(logprob).toBeCloseTo(Math.log(0.3), 12);
  });

  it("draws the same for the same seed and position, in any order, and other things for others", () => {
    const scores = new Float64Array(1000);
    const at = (seed: number, position: number) => new Sampler({}, seed).draw(scores, [], position).token;
    const one = new Sampler({}, 5);
    const backwards = [3, 2, 1, 0].map((position) => one.draw(scores, [], position).token).reverse();
    expect(backwards).toEqual([0, 1, 2, 3].map((position) => at(5, position)));
    expect(new Set([...backwards, at(6, 0), at(6, 1)]).size).toBe(6);
  });

  it("picks by the cumulated probabilities and never a token of probability 0", () => {
    const probabilities = Float64Array.of(0, 0.25, 0, 0.75, 0);
    expect([0, 0.2499, 0.25, 0.9999999, 1].map((u) => pick(probabilities, u))).toEqual([1, 1, 3, 3, 3]);
    const filtered = softmax(Float64Array.of(Number.NEGATIVE_INFINITY, 0, 0));
    expect([...filtered]).toEqual([0, 0.5, 0.5]);
  });
});

describe("what cannot be", () => {
  it.each([
    [{ temperature: -1 }, "temperature is -1; it must be 0, for the most probable token, or a positive number"],
    [{ temperature: Number.NaN }, "temperature is NaN"],
    [{ topK: 0 }, "topK is 0; it must be a whole number of at least 1"],
    [{ topK: 1.5 }, "topK is 1.5"],
    [{ topP: 0 }, "topP is 0; it must be above 0 and at most 1"],
    [{ topP: 1.1 }, "topP is 1.1"],
    [{ minP: 2 }, "minP is 2; it must be from 0 to 1"],
    [{ repetitionPenalty: 0 }, "repetitionPenalty is 0; it must be a positive number"],
  ])("%j is named", (options, message) => {
    expect(() => checkSampling(options)).toThrow(`generate: ${message}`);
  });

  it("names logits that are no numbers", () => {
    const sampler = new Sampler({}, 0);
    expect(() => sampler.draw([0, Number.NaN], [], 7)).toThrow("the logit of token 1 at position 7 is NaN");
    expect(() => sampler.draw([Number.POSITIVE_INFINITY, 0], [], 7)).toThrow("token 0 at position 7 is Infinity");
    const nothing = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY];
    expect(() => sampler.draw(nothing, [], 7)).toThrow("every logit at position 7 is -Infinity");
    expect(sampler.draw([Number.NEGATIVE_INFINITY, 3], [], 7).token).toBe(1);
  });

  it("names a seed that is none", () => {
    expect(() => new Sampler({}, -1)).toThrow("seed: -1 is no seed");
  });
});
