// MambaLM: every way to read a sequence gives the same, dropout acts in training alone, nothing is left behind.

import { init } from "@diffmamba/nn";
import { RandomStream } from "@diffmamba/random";
import { type Device, IGNORE_INDEX, keep, reference, type Tensor, valueAndGrad } from "@diffmamba/tensor";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ModelState } from "./backbone.js";
import type { ModelConfig } from "./config.js";
import { MambaLM } from "./model.js";
import { relativeError, taken, tinyModel, tinyModels } from "./tiny.testing.js";

let device: Device;
beforeEach(() => {
  device = reference({ poison: true });
});
afterEach(() => device.dispose());

const rows = [
  [3, 1, 4, 1, 5, 9, 2, 6, 5],
  [10, 0, 7, 7, 8, 2, 8, 1, 8],
];

/** Other values for what begins with zeros, so that every parameter has a part in the result. */
function shake(model: MambaLM, seed: number): MambaLM {
  for (const [name, parameter] of model.namedParameters()) {
    const noise = new Float64Array(parameter.size);
    init.normal(0.1)(noise, parameter.shape, new RandomStream(seed, name));
    using own = device.from(
      parameter.dtype === "f64" ? noise : Float32Array.from(noise),
      parameter.shape,
      parameter.dtype,
    );
    parameter.addInPlace(own);
  }
  return model;
}

function make(config: Partial<ModelConfig>, dtype: "f64" | "f32" = "f64"): MambaLM {
  return shake(MambaLM.create(config, { device, dtype, seed: 5 }), 6).eval();
}

const free = (state: ModelState) => {
  for (const tensor of state.flat()) tensor.dispose();
};
const i32 = (values: readonly number[], shape: readonly number[] = [values.length]) =>
  device.from(Int32Array.from(values), shape, "i32");

/** Logits (B, L, V) of whole rows, flat. */
async function whole(model: MambaLM, tokens: readonly (readonly number[])[]): Promise<number[]> {
  using input = model.tokens(tokens);
  return taken(model.forward(input));
}

/** The logits after row `b`'s token `t`. */
const at = (logits: readonly number[], vocab: number, length: number, b: number, t: number) =>
  logits.slice((b * length + t) * vocab, (b * length + t + 1) * vocab);

describe.each(tinyModels)("%s", (_, config) => {
  const { vocabSize: V } = config;
  const L = rows[0].length;

  it.each([
    ["f64", 1e-9],
    ["f32", 1e-5],
  ] as const)("reads the same in every way, in %s", async (dtype, tolerance) => {
    using model = make(config, dtype);
    const before = device.memory().tensors;
    const expected = await whole(model, rows);
    const worst: Record<string, number> = {};
    const compare = (name: string, actual: readonly number[], wanted: readonly number[]) => {
      worst[name] = Math.max(worst[name] ?? 0, relativeError(actual, wanted));
    };
    const lastOf = (t: number) => rows.flatMap((_row, b) => at(expected, V, L, b, t));

    const step = async (state: ModelState, t: number, name: string) => {
      using tokens = model.tokens(rows.map((row) => [row[t]]));
      compare(name, await taken(model.advance(tokens, state)), lastOf(t));
    };
    const stepped = model.initialState(2);
    for (let t = 0; t < L; t++) await step(stepped, t, "step by step");

    const prefilled = model.initialState(2);
    using prompt = model.tokens(rows.map((row) => row.slice(0, 5)));
    compare("prefill", await taken(model.advance(prompt, prefilled)), lastOf(4));
    const cloned = prefilled.map((mixer) => mixer.map((tensor) => keep(tensor.clone())));
    for (let t = 5; t < L; t++) await step(prefilled, t, "prefill and steps");
    for (let t = 5; t < L; t++) await step(cloned, t, "a clone of the prefill and steps");
    for (const [i, tensor] of stepped.flat().entries()) {
      compare("states", Array.from(await prefilled.flat()[i].data()), Array.from(await tensor.data()));
    }

    // Two sequences in a row: 5 tokens of the first row and 4 of the second.
    using packed = model.tokens([...rows[0].slice(0, 5), ...rows[1].slice(0, 4)]);
    using seqIdx = i32([0, 0, 0, 0, 0, 1, 1, 1, 1], [1, 9]);
    if (config.learnableInitialState) {
      expect(() => model.forward(packed, { seqIdx })).toThrow("seqIdx: sequences cannot be packed");
    } else {
      const together = await taken(model.forward(packed, { seqIdx }));
      for (let t = 0; t < 9; t++) {
        compare("packed", at(together, V, 9, 0, t), t < 5 ? at(expected, V, L, 0, t) : at(expected, V, L, 1, t - 5));
      }
    }

    // Rows of 9 and 4 tokens, padded on the right; then one more token each.
    using padded = model.tokens([rows[0].slice(0, 8), [...rows[1].slice(0, 4), 0, 0, 0, 0]]);
    using lengths = i32([8, 4]);
    const ragged = await taken(model.forward(padded, { lengths }));
    for (let t = 0; t < 8; t++) compare("padded", at(ragged, V, 8, 0, t), at(expected, V, L, 0, t));
    for (let t = 0; t < 4; t++) compare("padded", at(ragged, V, 8, 1, t), at(expected, V, L, 1, t));
    const afterPadding = model.initialState(2);
    const ends = [...at(expected, V, L, 0, 7), ...at(expected, V, L, 1, 3)];
    compare("padded prefill", await taken(model.advance(padded, afterPadding, { lengths })), ends);
    using next = model.tokens([[rows[0][8]], [rows[1][4]]]);
    const nexts = [...at(expected, V, L, 0, 8), ...at(expected, V, L, 1, 4)];
    compare("padded prefill and a step", await taken(model.advance(next, afterPadding)), nexts);

    for (const [name, error] of Object.entries(worst)) expect(error, name).toBeLessThan(tolerance);
    for (const state of [stepped, prefilled, cloned, afterPadding]) free(state);
    // Training lets go of the weights that steps of decoding have folded.
    model.train();
    expect(device.memory().tensors).toBe(before + 6);
  });

  it("is near its f64 self in half precision", async () => {
    const small = { ...config, initializerRange: 0.1 };
    const lossIn = async (dtype: "f64" | "bf16" | "f16") => {
      using model = MambaLM.create(small, { device, dtype, seed: 7 });
      using tokens = model.tokens(rows);
      const { value, gradients } = valueAndGrad(() => model.loss(tokens, tokens), model.parameters());
      for (const gradient of gradients) expect((await taken(gradient)).every(Number.isFinite)).toBe(true);
      return (await taken(value))[0];
    };
    const exact = await lossIn("f64");
    expect(Math.abs((await lossIn("bf16")) / exact - 1)).toBeLessThan(2e-2);
    expect(Math.abs((await lossIn("f16")) / exact - 1)).toBeLessThan(2e-3);
  });

  it("leaves no tensor behind", async () => {
    using model = make(config, "f32").train();
    using tokens = model.tokens(rows);
    const before = device.memory().tensors;
    model.forward(tokens).dispose();
    model.loss(tokens, tokens).dispose();
    for (const { value } of model.lambdas()) value.dispose();
    const state = model.initialState(2);
    model.advance(tokens, state).dispose();
    free(state);
    const { value, gradients } = valueAndGrad(() => model.loss(tokens, tokens), model.parameters());
    for (const tensor of [value, ...gradients]) tensor.dispose();
    expect(device.memory().tensors).toBe(before);
  });

  it("is freed whole", () => {
    const clean = device.memory();
    const model = make({ ...config, dropout: 0.5 }, "f32").train();
    expect(model.clock.step.size).toBe(1);
    model.dispose();
    expect(device.memory()).toMatchObject({ tensors: clean.tensors, bytes: clean.bytes });
  });

  it("gives every parameter a gradient", () => {
    using model = make(config);
    using tokens = model.tokens(rows);
    using targets = model.tokens(rows.map((row) => [...row.slice(1), 0]));
    const names = [...model.namedParameters()];
    const { value, gradients } = valueAndGrad(() => model.loss(tokens, targets), model.parameters());
    value.dispose();
    return Promise.all(
      names.map(async ([name], i) => {
        const largest = Math.max(...(await taken(gradients[i])).map(Math.abs));
        expect(largest, name).toBeGreaterThan(0);
      }),
    );
  });
});

describe("the loss", () => {
  it("is the cross-entropy of the logits, by any reduction, without ignored targets", async () => {
    using model = make(tinyModel("diffmamba2"));
    using tokens = model.tokens(rows);
    using targets = i32([1, 4, IGNORE_INDEX, 5, 9, 2, 6, 5, IGNORE_INDEX, 0, 7, 7, 8, 2, 8, 1, 8, 10], [2, 9]);
    const logits = await taken(model.forward(tokens));
    const wanted = Array.from(await targets.data()).map((target, i) => {
      if (target === IGNORE_INDEX) return 0;
      const row = logits.slice(i * 11, (i + 1) * 11);
      return Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0)) - row[target];
    });
    const sum = wanted.reduce((a, b) => a + b);
    expect(relativeError(await taken(model.loss(tokens, targets, { reduction: "none" })), wanted)).toBeLessThan(1e-12);
    expect(relativeError(await taken(model.loss(tokens, targets, { reduction: "sum" })), [sum])).toBeLessThan(1e-12);
    expect(relativeError(await taken(model.loss(tokens, targets)), [sum / 16])).toBeLessThan(1e-12);
  });

  it.each(["mamba", "mamba2", "diffmamba", "diffmamba2", "diffs6", "diffs6mamba2", "diffmamba2e"] as const)(
    "of a new small %s is within 0.1 bit of log2 of the vocabulary",
    async (variant) => {
      const config: Partial<ModelConfig> = { variant, vocabSize: 96, dModel: 48, nLayers: 2, dState: 16, headDim: 16 };
      for (const seed of [0, 1, 2]) {
        using model = MambaLM.create(config, { device, seed });
        const stream = new RandomStream(seed, "tokens");
        const row = Array.from({ length: 129 }, (_, i) => stream.integer(96, i));
        using tokens = model.tokens(row.slice(0, -1));
        using targets = model.tokens(row.slice(1));
        const [nats] = await taken(model.loss(tokens, targets));
        expect(Math.abs(nats / Math.LN2 - Math.log2(96))).toBeLessThan(0.1);
      }
    },
  );

  it("flows into the state that it goes on from", async () => {
    using model = make(tinyModel("diffmamba2"));
    using tokens = model.tokens(rows);
    const state = model.initialState(2);
    using first = model.tokens([[1], [2]]);
    model.advance(first, state).dispose();
    const { value, gradients } = valueAndGrad(() => model.loss(tokens, tokens, { initialState: state }), state.flat());
    value.dispose();
    for (const gradient of gradients) expect(Math.max(...(await taken(gradient)).map(Math.abs))).toBeGreaterThan(1e-6);
    free(state);
  });
});

describe("a tied head", () => {
  it("has the gradients of both of its uses", async () => {
    const config = tinyModel("diffmamba2");
    using tied = MambaLM.create(config, { device, dtype: "f64", seed: 1 });
    using untied = MambaLM.create({ ...config, tieEmbeddings: false }, { device, dtype: "f64", seed: 1 });
    const tensors = await tied.stateDict();
    const table = tensors.get("backbone.embeddings.weight");
    if (table === undefined) throw new Error("there is no embedding");
    untied.loadStateDict(new Map([...tensors, ["lm_head.weight", table]]));
    using tokens = tied.tokens(rows);
    const gradientsOf = async (model: MambaLM, names: readonly string[]) => {
      const parameters = names.map((name) => model.namedParameters().get(name) as Tensor);
      const { value, gradients } = valueAndGrad(() => model.loss(tokens, tokens), parameters);
      value.dispose();
      return Promise.all(gradients.map(taken));
    };
    const [both] = await gradientsOf(tied, ["backbone.embeddings.weight"]);
    const [embedding, head] = await gradientsOf(untied, ["backbone.embeddings.weight", "lm_head.weight"]);
    expect(tied.namedParameters().has("lm_head.weight")).toBe(false);
    const sum = embedding.map((x, i) => x + head[i]);
    expect(relativeError(both, sum)).toBeLessThan(1e-12);
    expect(Math.min(...[embedding, head].map((x) => Math.max(...x.map(Math.abs))))).toBeGreaterThan(1e-4);
  });
});

describe("dropout", () => {
  const dropouts: Partial<ModelConfig>[] = [
    { ...tinyModel("post-norm"), dropout: 0.5 },
    { ...tinyModel("diffmamba2"), embeddingDropout: 0.5 },
    { ...tinyModel("post-norm, adaptive"), embeddingDropout: 0.5 },
    { ...tinyModel("post-norm, adaptive"), headDropout: 0.5 },
  ];

  it.each(dropouts)("acts in training alone, and by the clock", async (config) => {
    using model = make(config);
    using plain = make({ ...config, dropout: 0, embeddingDropout: 0, headDropout: 0 });
    using tokens = model.tokens(rows);
    const loss = (of: MambaLM) => taken(of.loss(tokens, tokens));
    expect(await loss(model)).toEqual(await loss(plain));
    model.train();
    const first = await loss(model);
    expect(first).not.toEqual(await loss(plain));
    expect(await loss(model)).toEqual(first);
    model.clock.step.fillInPlace(1);
    expect(await loss(model)).not.toEqual(first);
    model.clock.step.fillInPlace(0);
    expect(await loss(model)).toEqual(first);
    expect(await loss(model.eval())).toEqual(await loss(plain));
  });
});

describe("lambdas", () => {
  const values = async (config: Partial<ModelConfig>) => {
    using model = make(config);
    const found = [];
    for (const { layer, name, value } of model.lambdas()) found.push({ layer, name, value: (await taken(value))[0] });
    return { found, tensors: await model.stateDict() };
  };

  it("are sigmoid(sum of lambda_q1) + lambda_init, one for each differential layer", async () => {
    const { found, tensors } = await values(tinyModel("diffmamba2, alternate"));
    const q1 = Array.from(tensors.get("backbone.layers.0.lambda_q1")?.data ?? []);
    const sum = q1.reduce((a, b) => a + b);
    expect(found).toEqual([
      { layer: 0, name: "backbone.layers.0", value: expect.closeTo(0.2 + 1 / (1 + Math.exp(-sum)), 12) },
    ]);
  });

  it("are means where there is one for each channel", async () => {
    const { found, tensors } = await values(tinyModel("diffmamba2, lambda by channel"));
    const q1 = Array.from(tensors.get("backbone.layers.1.lambda_q1")?.data ?? []);
    const mean = q1.reduce((sum, s) => sum + 1 / (1 + Math.exp(-s)), 0) / q1.length;
    expect(found[1].value).toBeCloseTo(mean + 0.8 - 0.6 * Math.exp(-0.3), 12);
  });

  it("name the sublayer, beside feed-forwards too", async () => {
    const { found } = await values(tinyModel("post-norm"));
    expect(found.map(({ layer, name }) => `${layer} ${name}`)).toEqual([
      "0 backbone.layers.0",
      "1 backbone.layers.1",
      "2 backbone.layers.3",
      "3 backbone.layers.4",
    ]);
  });

  it.each(["mamba", "mamba2", "diffs6", "diffmamba2 without lambda"])("are none for %s", async (name) => {
    expect((await values(tinyModel(name))).found).toEqual([]);
  });

  it.each(["diffmamba", "diffs6mamba2", "diffmamba2e"])("are one a layer for %s", async (name) => {
    expect((await values(tinyModel(name))).found.map(({ layer }) => layer)).toEqual([0, 1]);
  });
});

describe("first values", () => {
  it("are the same for the same seed, and others for another", async () => {
    const bits = async (seed: number) => {
      using model = MambaLM.create(tinyModel("diffmamba2"), { device, seed });
      return await model.stateDict();
    };
    expect(await bits(1)).toEqual(await bits(1));
    expect(await bits(1)).not.toEqual(await bits(2));
  });

  it("of output projections are divided by the root of the number of sublayers", async () => {
    const spread = async (nLayers: number, rescaleResidual: boolean) => {
      const sizes = { dModel: 32, dState: 4, headDim: 16 };
      using model = MambaLM.create({ ...sizes, variant: "mamba2", nLayers, rescaleResidual }, { device });
      const weight = model.namedParameters().get("backbone.layers.0.mixer.out_proj.weight");
      return Math.max(...Array.from((await weight?.data()) ?? []).map(Math.abs));
    };
    expect(await spread(9, false)).toBeCloseTo(1 / 8, 2);
    expect(await spread(9, true)).toBeCloseTo(1 / 8 / 3, 3);
  });
});

describe("tokens", () => {
  it.each<readonly [string, readonly number[][] | number[], string]>([
    [
      "too large",
      [
        [1, 2],
        [3, 11],
      ],
      "11 at position 1 of row 1 is not one of the 11 tokens",
    ],
    ["negative", [0, -1], "-1 at position 1 of row 0"],
    ["broken", [0.5], "0.5 at position 0 of row 0"],
    ["of rows that differ in length", [[1, 2], [3]], "row 1 has 1 tokens, row 0 has 2"],
  ])("that are %s are refused", (_, given, message) => {
    using model = make(tinyModel("mamba2"), "f32");
    expect(() => model.tokens(given)).toThrow(message);
  });

  it("of a flat list are one row", async () => {
    using model = make(tinyModel("mamba2"), "f32");
    using tokens = model.tokens(Uint8Array.of(1, 2, 3));
    expect(tokens.shape).toEqual([1, 3]);
    expect(Array.from(await tokens.data())).toEqual([1, 2, 3]);
  });

  it.each(["mamba2", "post-norm, adaptive", "adaptive with empty clusters"])(
    "outside the vocabulary of a %s model are refused, as input and as target",
    (name) => {
      using model = make(tinyModel(name), "f32");
      using good = model.tokens([1, 2]);
      for (const token of [11, 12, 13, 40, -1]) {
        using bad = i32([1, token], [1, 2]);
        expect(() => model.forward(bad), `${token} as input`).toThrow(/outside/);
        expect(() => model.loss(good, bad), `${token} as target`).toThrow(/outside/);
      }
    },
  );
});
