import { type Device, reference } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AdamW, type DecayRule, decayGroups } from "./adamw.js";
import { Build } from "./build.js";
import { normal } from "./init.js";
import { Module } from "./module.js";
import { Parameter } from "./parameter.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

function parameter(...values: number[]): Parameter {
  const made = Parameter.empty(device, [values.length], "f32");
  made.write(Float32Array.from(values));
  return made;
}

const gradient = (...values: number[]) => device.from(Float32Array.from(values), [values.length]);
const list = async (x: { data(): Promise<ArrayLike<number>> }) => Array.from(await x.data());

/** One parameter by the formula, in double: torch.optim.AdamW with torch's clipping. */
function adamwByHand(values: number[], gradients: number[][], lr: (t: number) => number, weightDecay: number) {
  const [beta1, beta2, eps] = [0.9, 0.999, 1e-8];
  const m = values.map(() => 0);
  const v = values.map(() => 0);
  for (const [i, gradient] of gradients.entries()) {
    const t = i + 1;
    for (const [k, g] of gradient.entries()) {
      values[k] -= lr(t) * weightDecay * values[k];
      m[k] = beta1 * m[k] + (1 - beta1) * g;
      v[k] = beta2 * v[k] + (1 - beta2) * g * g;
      values[k] -= (lr(t) * (m[k] / (1 - beta1 ** t))) / (Math.sqrt(v[k] / (1 - beta2 ** t)) + eps);
    }
  }
  return values;
}

describe("AdamW", () => {
  it("is its formula, with groups of their own decay and learning rate", async () => {
    const [a, b, c] = [parameter(1, -2), parameter(3), parameter(0.5)];
    const optimizer = new AdamW([
      { parameters: [a, b], weightDecay: 0.1 },
      { parameters: [c], weightDecay: 0, lrScale: 0.5 },
    ]);
    expect(optimizer.parameters).toEqual([a, b, c]);
    const steps = [
      [[0.1, -0.2], [0.3], [1]],
      [[-0.5, 0], [0.1], [-2]],
      [[0.2, 0.2], [0], [0.5]],
    ];
    for (const [i, [ga, gb, gc]] of steps.entries()) {
      const norm = optimizer.step([gradient(...ga), gradient(...gb), gradient(...gc)], { lr: 0.01 * (i + 1) });
      expect(await norm.item()).toBeCloseTo(Math.hypot(...ga, ...gb, ...gc), 6);
    }
    const rate = (t: number) => 0.01 * t;
    const of = (i: number) => steps.map((step) => step[i]);
    const close = (values: number[]) => values.map((value) => expect.closeTo(value, 5));
    expect(await list(a)).toEqual(close(adamwByHand([1, -2], of(0), rate, 0.1)));
    expect(await list(b)).toEqual(close(adamwByHand([3], of(1), rate, 0.1)));
    expect(await list(c)).toEqual(close(adamwByHand([0.5], of(2), (t) => rate(t) / 2, 0)));
  });

  it("clips by torch's rule: min(1, maxNorm / (norm + 1e-6)), and gives the norm before it", async () => {
    for (const [size, maxNorm, factor] of [
      [1, 1, 1 / 5],
      [1, 5, 1],
      [1, 100, 1],
      [2e-7, 1e-6, 0.5],
    ]) {
      const own = parameter(0, 0);
      // With a large eps the first step is the gradient, multiplied by lr / eps.
      const optimizer = new AdamW([{ parameters: [own], weightDecay: 0 }], { beta1: 0, beta2: 0, eps: 1e6 });
      const norm = optimizer.step([gradient(3 * size, 4 * size)], { lr: 1e5, maxNorm });
      expect((await norm.item()) / (5 * size)).toBeCloseTo(1, 6);
      const [a, b] = (await list(own)).map((value) => (-10 * value) / (size * factor));
      expect([a, b]).toEqual([expect.closeTo(3, 4), expect.closeTo(4, 4)]);
    }
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])("changes nothing at all where a gradient is %d", async (bad) => {
    const [a, b] = [parameter(1, 2), parameter(3)];
    const groups = [a, b].map((own) => ({ parameters: [own], weightDecay: 0.1 }));
    const optimizer = new AdamW(groups);
    optimizer.step([gradient(0.1, 0.2), gradient(0.3)], { lr: 0.01, maxNorm: 1 });
    const before = [await list(a), await list(b), await optimizer.state()];
    const norm = optimizer.step([gradient(0.1, 0.2), gradient(bad)], { lr: 0.01, maxNorm: 1 });
    expect(Number.isFinite(await norm.item())).toBe(false);
    expect([await list(a), await list(b), await optimizer.state()]).toEqual(before);
    optimizer.step([gradient(0.1, 0.2), gradient(0.3)], { lr: 0.01, maxNorm: 1 });
    expect((await optimizer.state()).steps).toEqual([2, 2]);
  });

  it("goes on from its state as if it had never stopped, bit for bit", async () => {
    const steps = (optimizer: AdamW, count: number, from: number) => {
      for (let i = from; i < from + count; i++) optimizer.step([gradient(Math.sin(i), Math.cos(i))], { lr: 0.01 });
    };
    const [a, b] = [parameter(1, 2), parameter(1, 2)];
    const whole = new AdamW([{ parameters: [a], weightDecay: 0.1 }]);
    steps(whole, 7, 0);
    const first = new AdamW([{ parameters: [b], weightDecay: 0.1 }]);
    steps(first, 3, 0);
    const state = await first.state();
    const second = new AdamW([{ parameters: [b], weightDecay: 0.1 }]);
    second.restore(state);
    steps(second, 4, 3);
    expect(await list(b)).toEqual(await list(a));
    expect([...(await second.state()).m.values()]).toEqual([...(await whole.state()).m.values()]);
    expect(() => second.restore({ ...state, m: new Map() })).toThrow(
      "the state has no moments for parameter 0 of group 0",
    );
  });

  it("leaves no tensor but its moments behind, and frees those", () => {
    const own = parameter(1, 2);
    const before = device.memory().tensors;
    const optimizer = new AdamW([{ parameters: [own], weightDecay: 0.1 }]);
    expect(device.memory().tensors).toBe(before + 4);
    const own2 = gradient(1, 2);
    for (let i = 0; i < 3; i++) optimizer.step([own2], { lr: 0.1, maxNorm: 1 }).dispose();
    expect(device.memory().tensors).toBe(before + 5);
    optimizer.dispose();
    expect(device.memory().tensors).toBe(before + 1);
  });

  it("names what cannot be", () => {
    const own = parameter(1);
    expect(() => new AdamW([])).toThrow("AdamW: there are no parameters.");
    const group = { parameters: [own], weightDecay: 0 };
    expect(() => new AdamW([group, group])).toThrow("AdamW: a parameter is in two groups.");
    expect(() => new AdamW([group], { beta1: 1 })).toThrow("AdamW: beta1 is 1; it must be at least 0 and below 1.");
    expect(() => new AdamW([group]).step([], { lr: 1 })).toThrow(/no tensors/);
    expect(() => new AdamW([group]).step([gradient(1, 2)], { lr: 1 })).toThrow(
      /parameter 0 is \(1,\).*gradient is \(2,\)/,
    );
  });
});

/** A module with parameters of these names. */
class Named extends Module {
  constructor(names: readonly string[]) {
    super();
    const build = new Build({ device });
    for (const name of names) this.register(name, build.parameter(name, [1], normal(1)));
  }
}

describe("what is decayed", () => {
  /** Every kind of name there is, in a differential and a vanilla block, of the pre-norm and the post-norm model. */
  const names = [
    "backbone.embeddings.weight",
    "backbone.norm_f.weight",
    "lm_head.weight",
    "backbone.layers.0.norm.weight",
    "backbone.layers.0.inner.in_proj.weight",
    "backbone.layers.0.inner.conv1d.weight",
    "backbone.layers.0.inner.conv1d.bias",
    "backbone.layers.0.inner.dt_bias",
    "backbone.layers.0.inner.A_log",
    "backbone.layers.0.inner.D",
    "backbone.layers.0.inner.init_states",
    "backbone.layers.0.inner.norm.weight",
    "backbone.layers.0.inner.out_proj.weight",
    "backbone.layers.0.lambda_q1",
    "backbone.layers.0.subln.weight",
    "backbone.layers.1.layer.A1_log",
    "backbone.layers.1.layer.D2",
    "backbone.layers.1.layer.dt1_bias",
    "backbone.layers.1.layer.dt_proj.weight",
    "backbone.layers.1.layer.dt_proj.bias",
    "backbone.layers.1.norm.norm.weight",
    "backbone.layers.1.norm.norm.bias",
    "backbone.layers.2.layer.ff.0.0.weight",
    "backbone.layers.2.layer.ff.0.0.bias",
    "encoder.0.emb_layers.0.weight",
    "loss.cluster_weight",
    "loss.cluster_bias",
    "loss.out_layers_biases.0",
  ];

  const undecayed = (rule: DecayRule | undefined, options = {}) => {
    const module = new Named(names);
    const groups = decayGroups(module, 0.1, rule, options);
    expect(groups.flatMap(({ parameters }) => parameters).length).toBe(names.length);
    const rest = new Set(groups.filter(({ weightDecay }) => weightDecay === 0).flatMap(({ parameters }) => parameters));
    return [...module.namedParameters()].filter(([, own]) => rest.has(own)).map(([name]) => name);
  };
  const biases = names.filter((name) => name.includes("bias"));
  const layerNorm = names.filter((name) => name.includes("norm.norm."));
  const matching = (pattern: RegExp) => names.filter((name) => pattern.test(name));
  const sorted = (...lists: string[][]) => [...new Set(lists.flat())].sort();

  it('"mamba": all but biases, norms, A_log, D and initial states', () => {
    const dynamics = matching(/A\d?_log$|\.D\d?$|init_states$/);
    const norms = matching(/(norm|norm_f|subln)\.weight$/);
    expect(undecayed("mamba").sort()).toEqual(sorted(biases, dynamics, norms, layerNorm));
    expect(undecayed(undefined)).toEqual(undecayed("mamba"));
    expect(undecayed("mamba")).not.toContain("backbone.layers.0.lambda_q1");
  });

  it('"backbone": inside it all but biases, A_log, D and LayerNorm; RMSNorm, lambda and all outside are decayed', () => {
    const inside = (list: string[]) => list.filter((name) => name.includes("layers.") && name.startsWith("backbone"));
    const dynamics = matching(/A\d?_log$|\.D\d?$|init_states$/);
    expect(undecayed("backbone").sort()).toEqual(sorted(inside(biases), dynamics, layerNorm));
    for (const name of [
      "lm_head.weight",
      "loss.cluster_bias",
      "backbone.embeddings.weight",
      "backbone.layers.0.subln.weight",
    ]) {
      expect(undecayed("backbone")).not.toContain(name);
    }
  });

  it('"trainer": all but biases and the norms of blocks; A_log, D, lambda and subln are decayed', () => {
    const norms = matching(/(norm|norm_f)\.weight$/);
    expect(undecayed("trainer").sort()).toEqual(sorted(biases, norms, layerNorm));
    for (const name of ["A_log", "D"]) expect(undecayed("trainer")).not.toContain(`backbone.layers.0.inner.${name}`);
    for (const name of ["lambda_q1", "subln.weight"])
      expect(undecayed("trainer")).not.toContain(`backbone.layers.0.${name}`);
  });

  it("leaves out the tables of embeddings where that is asked for", () => {
    const tables = ["backbone.embeddings.weight", "encoder.0.emb_layers.0.weight"];
    for (const rule of ["mamba", "backbone", "trainer", "all"] as const) {
      const more = undecayed(rule, { embeddings: false });
      expect(more.sort()).toEqual(sorted(undecayed(rule), tables));
      expect(undecayed(rule, { embeddings: true })).toEqual(undecayed(rule));
    }
  });

  it('"all" and "none", in one group', () => {
    expect(undecayed("all")).toEqual([]);
    expect(undecayed("none")).toEqual(names);
    expect(decayGroups(new Named(names), 0.1, "all").length).toBe(1);
  });
});
