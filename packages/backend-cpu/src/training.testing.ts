// Layer: tests of the CPU backend. A training step that runs every kernel with a gradient, large enough to be shared by
// threads, from tensors alone.
// Knows the ops' calls. Knows no backend by name.

import {
  adamw,
  causalConv1d,
  type Device,
  globalNorm,
  layerNorm,
  linear,
  rmsNorm,
  scope,
  selectiveScan,
  softmaxCrossEntropy,
  ssdScan,
  type Tensor,
  valueAndGrad,
} from "@diffmamba/tensor";

const length = 200;
const vocabulary = 61;
const width = 96;
const inner = 128;
const state = 16;
const heads = 4;

const shapes = {
  embedding: [vocabulary, width],
  norm: [width],
  input: [3 * inner + 2 * state + heads, width],
  conv: [inner, 4],
  convBias: [inner],
  logA: [inner, state],
  skip: [inner],
  headLogA: [heads],
  headNorm: [inner],
  output: [width, inner],
  lastNorm: [width],
  lastBias: [width],
  head: [vocabulary, width],
} as const;

type Parameters = { readonly [Name in keyof typeof shapes]: Tensor };

/** Numbers of [-1, 1) that look random and are always the same. */
function numbers(size: number, seed: number): Float32Array {
  let word = seed;
  return Float32Array.from({ length: size }, () => {
    word = (Math.imul(word, 1664525) + 1013904223) >>> 0;
    return word / 2 ** 31 - 1;
  });
}

/** One block with both scans, a gated norm in groups and a head. */
function loss(p: Parameters, tokens: Tensor, targets: Tensor): Tensor {
  const hidden = p.embedding.gather(tokens);
  const projected = linear(rmsNorm(hidden, p.norm), p.input);
  const [z, x, delta, B, C, dt] = projected.split([inner, inner, inner, state, state, heads]);
  const { y: u } = causalConv1d(x, p.conv, { bias: p.convBias });
  const batch = tokens.shape[0];
  const grouped = [batch, length, 1, state] as const;
  const { y } = selectiveScan({ u, delta, A: p.logA.exp().neg(), B, C, D: p.skip, z });
  const { y: mixed } = ssdScan({
    x: y.reshape(batch, length, heads, inner / heads),
    dt,
    A: p.headLogA.exp().neg(),
    B: B.reshape(...grouped),
    C: C.reshape(...grouped),
  });
  const gated = rmsNorm(mixed.reshape(batch, length, inner), p.headNorm, { gate: z, groupSize: inner / 2 });
  const residual = hidden.add(linear(gated, p.output));
  const logits = linear(layerNorm(residual, p.lastNorm, { bias: p.lastBias }), p.head);
  return softmaxCrossEntropy(logits.reshape(batch * length, vocabulary), targets);
}

export class Training {
  readonly #parameters: Parameters;
  readonly #moments: readonly [Tensor[], Tensor[]];
  readonly #tokens: Tensor;
  readonly #targets: Tensor;
  readonly #scalars: { readonly lr: Tensor; readonly step: Tensor; readonly scale: Tensor };

  constructor(device: Device, batch = 3) {
    const make = ([name, shape]: [string, readonly number[]], i: number) => {
      const size = shape.reduce((a, b) => a * b, 1);
      const values = numbers(size, i + 1).map((x) => (shape.length === 1 ? 1 + x / 2 : x / Math.sqrt(shape[1])));
      return [name, device.from(values, shape)];
    };
    this.#parameters = Object.fromEntries(Object.entries(shapes).map(make));
    const zeros = () => Object.values(shapes).map((shape) => device.zeros(shape));
    this.#moments = [zeros(), zeros()];
    const index = (seed: number) => Int32Array.from(numbers(batch * length, seed), (x) => ((x + 1) / 2) * vocabulary);
    this.#tokens = device.from(index(100), [batch, length], "i32");
    this.#targets = device.from(index(101), [batch * length], "i32");
    this.#scalars = { lr: device.tensor(0.01), step: device.tensor(0, "i32"), scale: device.tensor(1) };
  }

  /** One step. @returns the loss and the gradients' norm before it */
  step(): readonly [loss: Tensor, norm: Tensor] {
    const params = Object.values(this.#parameters);
    return scope(() => {
      const run = () => loss(this.#parameters, this.#tokens, this.#targets);
      const { value, gradients } = valueAndGrad(run, params);
      const norm = globalNorm(gradients);
      const [m, v] = this.#moments;
      const weightDecay = params.map(({ rank }) => (rank > 1 ? 0.1 : 0));
      const options = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay };
      adamw({ params, grads: gradients, m, v, ...this.#scalars, norm }, options);
      return [value, norm] as const;
    });
  }

  /** Every parameter and moment. */
  async state(): Promise<Map<string, ArrayLike<number>>> {
    const names = Object.keys(shapes);
    const all = [Object.values(this.#parameters), ...this.#moments];
    const entries = all.flatMap((list, kind) =>
      list.map(async (x, i) => [`${["", "m of ", "v of "][kind]}${names[i]}`, await x.data()] as const),
    );
    return new Map(await Promise.all(entries));
  }
}
