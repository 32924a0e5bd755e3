// Layer: apps/bench, tests. What the suite of the CPU backend lists, and how it counts.
import { describe, expect, it } from "vitest";
import { caseText } from "../../runner.js";
import { cpu } from "../cpu.js";
import { ssdFlops } from "../ops/routines.js";
import { threadsText } from "./threads.js";

const textsOf = (threads: readonly number[]) => cpu.cases(cpu.settings, threads).map(caseText);

describe("the cases", () => {
  it("are on one thread or on all that are asked for, and each is listed once", () => {
    for (const threads of [[1], [2], [1, 2], [1, 2, 4]]) {
      const texts = textsOf(threads);
      expect(new Set(texts).size).toBe(texts.length);
      for (const text of texts) expect(threads.some((count) => text.endsWith(threadsText(count)))).toBe(true);
    }
    expect(textsOf([1, 2]).length).toBeGreaterThan(textsOf([1]).length);
  });

  it.each([
    "1024x1024x1024",
    "512x512x512",
    "256x256x256",
    "4096x256x1160",
    "1160x4096x256",
    "4096x512x256",
    "1024x128x584",
  ])("hold the product %s in every form", (shape) => {
    for (const form of ["nn", "nt", "tn", "tt"]) {
      expect(textsOf([1]).some((text) => text.startsWith(`matmul ${form} ${shape}`))).toBe(true);
    }
  });

  it("hold the published 130M model's decoding in both types", () => {
    for (const dtype of ["f32", "bf16"]) {
      expect(textsOf([1])).toContain(`mamba2 decode ${dtype} d768 24 layers N128 P64 V50288, batch 1 1 thread`);
    }
  });
});

describe("the operations of the chunked scan", () => {
  /** Multiply-adds of every product, one by one, in chunks of which only j <= i counts. */
  function counted({ tokens, chunk, heads, headDim, groups, state }: Parameters<typeof ssdFlops>[0]) {
    let [forward, backward] = [0, 0];
    for (let t = 0; t < tokens; t++) {
      for (let j = 0; j <= t % chunk; j++) {
        // C_i B_j; and in backward also what it gives to B_j and C_i.
        forward += groups * state;
        backward += 3 * groups * state;
        // X_j into y_i; dy_i X_j and its way back to x_j.
        forward += heads * headDim;
        backward += 2 * heads * headDim;
      }
      forward += 2 * heads * headDim * state;
      backward += 5 * heads * headDim * state;
    }
    return { forward: 2 * forward, backward: 2 * backward };
  }

  it.each([
    { tokens: 12, chunk: 4, heads: 6, headDim: 5, groups: 2, state: 3 },
    { tokens: 8, chunk: 8, heads: 2, headDim: 4, groups: 1, state: 7 },
  ])("are those of its products: %o", (sizes) => {
    expect(ssdFlops(sizes)).toEqual(counted(sizes));
  });
});
