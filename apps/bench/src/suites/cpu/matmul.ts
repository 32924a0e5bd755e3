// Layer: apps/bench, suites of the CPU backend. Matrix products in every transpose form, cubes and the shapes of a model, beside
// native and WebAssembly peers on as many threads; and what further threads give.
// Knows the product and its peers. Knows no other op.
import { by } from "../../data.js";
import { memoryRead, multiplyAdd } from "../../peers/limits.js";
import { type Form, forms, nativePeers, wasmPeers } from "../../peers/matmul.js";
import { type Case, contest, type Peer, type RowPart, type Settings } from "../../race.js";
import { matmulOn, problem, projectionColumns, type Size } from "../ops/matmul.js";
import { onThreads } from "./threads.js";

const F32_BYTES = 4;

/** A cube, or one of a model's products, with what it is there. */
interface Product {
  readonly size: Size;
  readonly role?: string;
}

interface Rivals {
  readonly wasm?: boolean;
  readonly limits?: readonly Peer[];
}

/** One more row, for the best of the peers that are native. */
function withBest(rows: RowPart[]): RowPart[] {
  const names = nativePeers.map(({ name }) => name);
  const natives = rows.filter(({ peer }) => names.some((name) => peer?.startsWith(name)));
  const [best] = natives.sort((a, b) => (b.peerValue ?? 0) - (a.peerValue ?? 0));
  return best === undefined ? rows : [...rows, { ...best, peer: `best of ${names.join(" and ")}` }];
}

function productCase({ size, role }: Product, form: Form, threads: number, { wasm, limits = [] }: Rivals = {}): Case {
  const label = { name: `matmul ${form}`, shape: [by(...size), ...(role ? [role] : [])].join(" ") };
  return {
    ...label,
    async prepare(context) {
      const given = problem(size, form);
      const peers = [...nativePeers, ...(wasm ? wasmPeers : [])].map(({ name, open }) => ({
        name,
        open: () => open(given, threads),
      }));
      const race = await contest({
        ...{ ...label, unit: "GFLOP/s", peers: [...peers, ...limits] },
        ours: (device) => matmulOn(device, given),
      }).prepare(context);
      return { ...race, rows: (times) => withBest(race.rows(times)) };
    },
  };
}

/** The three products of x W^T on so many tokens, each written as (M, K) x (K, N). */
function linearProducts(role: string, tokens: number, inputs: number, outputs: number): Product[] {
  return [
    { role, size: [tokens, inputs, outputs] },
    { role: `${role}, gradient of x`, size: [tokens, outputs, inputs] },
    { role: `${role}, gradient of W`, size: [outputs, tokens, inputs] },
  ];
}

/** A Mamba-2 that is trained: what its products without those of the scan depend on. */
interface Trained {
  readonly tokens: number;
  readonly dModel: number;
  readonly dState: number;
  readonly headDim: number;
  readonly vocabSize: number;
}

/** The products of a training step, each size once. */
function trainingProducts(model: string, { tokens, dModel, dState, headDim, vocabSize }: Trained): Product[] {
  const products = [
    ...linearProducts(`${model}in-projection`, tokens, dModel, projectionColumns(dModel, dState, headDim)),
    ...linearProducts(`${model}out-projection`, tokens, 2 * dModel, dModel),
    ...linearProducts(`${model}head`, tokens, dModel, vocabSize),
  ];
  const first = (product: Product) => products.find((other) => by(...other.size) === by(...product.size));
  return products.filter((product) => first(product) === product);
}

/** How each of {@link linearProducts} lies in memory: x W^T, dy W, dy^T x. */
function naturalForm({ role = "" }: Product): Form {
  return role.endsWith("gradient of x") ? "nn" : role.endsWith("gradient of W") ? "tn" : "nt";
}

/** One token through a large model: a row of activations with a matrix, which is read once. */
function decodeCase(role: string, [inputs, outputs]: readonly [number, number], threads: number): Case {
  const shape = `${by(1, inputs, outputs)} ${role}`;
  const bytes = F32_BYTES * inputs * outputs;
  return contest({
    ...{ name: "matrix-vector nt", shape, unit: "GB/s", peers: [memoryRead(bytes, threads)] },
    ours: (device) => ({ ...matmulOn(device, problem([1, inputs, outputs], "nt")), work: { "GB/s": bytes } }),
  });
}

export function productCases(settings: Settings, [threads, ...more]: readonly number[]): Case[] {
  const { square, wide, wideState, wideVocab, headDim, batch, length } = settings;
  const everyForm = (product: Product, rivals?: Rivals) =>
    forms.map((form) => onThreads(threads, productCase(product, form, threads, rivals)));
  const cubes = [4, 2, 1].map((part): Product => ({ size: [square / part, square / part, square / part] }));
  const { dModel, dState, vocabSize, demoTokens, demoWidth, demoState, demoHeadDim, demoVocab } = settings;
  const training = trainingProducts("", { tokens: batch * length, dModel, dState, headDim, vocabSize });
  const ofDemo = {
    tokens: demoTokens,
    dModel: demoWidth,
    dState: demoState,
    headDim: demoHeadDim,
    vocabSize: demoVocab,
  };
  const demo = trainingProducts("demo ", ofDemo);
  const decoding = [
    ["130M in-projection", [wide, projectionColumns(wide, wideState, headDim)]],
    ["130M out-projection", [2 * wide, wide]],
    ["130M head", [wide, wideVocab]],
  ] as const;
  const [smallest, ...largest] = cubes;
  return [
    ...forms.map((form) =>
      onThreads(threads, productCase(smallest, form, threads, { wasm: true }), { reference: true }),
    ),
    ...largest.flatMap((cube) => everyForm(cube, { wasm: true, limits: [multiplyAdd(threads)] })),
    ...training.flatMap((product) => everyForm(product)),
    // Short products, many samples of which fit into little time.
    ...demo.flatMap((product) => everyForm(product).map((item) => ({ ...item, patience: 0.5 }))),
    ...more.flatMap((count) => [
      ...largest.flatMap((cube) =>
        forms.map((form) =>
          onThreads(count, productCase(cube, form, count, { limits: [multiplyAdd(count)] }), { threads }),
        ),
      ),
      ...training.map((product) => onThreads(count, productCase(product, naturalForm(product), count), { threads })),
    ]),
    ...[threads, ...more].flatMap((count) =>
      decoding.map(([role, size]) => onThreads(count, decodeCase(role, size, count))),
    ),
  ];
}
