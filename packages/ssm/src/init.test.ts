import { Build } from "@diffmamba/nn";
import { RandomStream } from "@diffmamba/random";
import { reference } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import { dtBias, logRange, logUniform, s4dReal } from "./init.js";
import { Mamba } from "./mamba.js";
import { Mamba2 } from "./mamba2.js";

const draw = (initialize: ReturnType<typeof dtBias>, shape: readonly number[], name = "x") => {
  const values = new Float64Array(shape.reduce((product, n) => product * n, 1));
  initialize(values, shape, new RandomStream(1, name));
  return values;
};
const softplus = (x: number) => Math.log1p(Math.exp(x));

describe("first values", () => {
  it("of dt's bias are the inverse softplus of log-uniform numbers of [dtMin, dtMax], at least the floor", () => {
    const dts = draw(dtBias(), [20_000]).map(softplus).sort();
    expect(dts[0]).toBeGreaterThanOrEqual(0.001 - 1e-9);
    expect(dts[dts.length - 1]).toBeLessThan(0.1);
    expect(dts[10_000]).toBeCloseTo(0.01, 3); // the median of a log-uniform number
    expect(Math.log10(dts[5_000])).toBeCloseTo(-2.5, 1);
    const floored = draw(dtBias({ dtMin: 1e-6, dtMax: 1e-2, dtInitFloor: 1e-3 }), [1000]).map(softplus);
    expect(Math.min(...floored)).toBeCloseTo(1e-3, 8);
  });

  it("of A are log(1..N) a channel, log U(1, 16) or log(1..H) a head", () => {
    expect([...draw(s4dReal, [2, 3])]).toEqual([0, Math.log(2), Math.log(3), 0, Math.log(2), Math.log(3)]);
    expect([...draw(logRange, [4])].map((a) => Math.round(Math.exp(a)))).toEqual([1, 2, 3, 4]);
    const a = draw(logUniform(1, 16), [20_000]).map(Math.exp);
    expect(Math.min(...a)).toBeGreaterThanOrEqual(1);
    expect(Math.max(...a)).toBeLessThan(16);
    expect(a.reduce((sum, value) => sum + value, 0) / a.length).toBeCloseTo(8.5, 0.7);
  });

  it("of the mixers are where they belong", async () => {
    await using device = reference();
    const build = new Build({ device, seed: 1 });
    const bound = async (tensor: { data(): Promise<ArrayLike<number>> }) =>
      Math.max(...Array.from(await tensor.data()).map(Math.abs));
    const first = new Mamba({ dModel: 64, outScale: 0.25 }, build);
    expect(first.dtRank).toBe(4); // of dModel 64, not of dInner 128
    expect(await bound(first.dtProj.weight)).toBeCloseTo(0.5, 2); // 4^-1/2
    expect(await bound(first.outProj.weight)).toBeCloseTo(0.25 * 128 ** -0.5, 3);
    expect(await bound(first.conv1d.weight)).toBeCloseTo(0.5, 2);
    expect(new Set(await first.d.data())).toEqual(new Set([1]));
    const constant = new Mamba({ dModel: 64, dtInit: "constant", dtScale: 3 }, build);
    expect(new Set(await constant.dtProj.weight.data())).toEqual(new Set([1.5]));
    const second = new Mamba2({ dModel: 64, headDim: 8, aInit: logRange }, build);
    expect((await second.aLog.data())[15]).toBeCloseTo(Math.log(16), 5);
    expect(new Set(await second.norm?.weight.data())).toEqual(new Set([1]));
  });
});
