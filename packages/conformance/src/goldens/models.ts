// Layer: conformance. Goldens of whole language models: a model folder as the Hugging Face library writes it, and beside it
// what that library computes: logits, loss, greedy tokens, and the losses of AdamW steps on one batch.
// Knows model folders and the files' metadata. Knows no test runner and no backend by name.

import { type FileSystem, joinPath } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { MambaLM, torchBinName } from "@diffmamba/models";
import { AdamW, decayGroups, unpack } from "@diffmamba/nn";
import { type Device, IGNORE_INDEX, isHalf, noGrad, scope, type Tensor, valueAndGrad } from "@diffmamba/tensor";
import {
  type Check,
  check,
  compareBits,
  compareExactly,
  compareValues,
  type FloatType,
  tolerances,
} from "../compare.js";
import { type Golden, GoldenError, type GoldenFolder, type GoldenRunner, type ModelFolderRunner } from "./golden.js";

const safetensorsName = "model.safetensors";

/** A view of files in which one name does not exist: so a folder's other weights are found. */
function without(files: FileSystem, hidden: string): FileSystem {
  return new Proxy(files, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key);
      if (key === "stat") {
        return async (path: string) => (path.endsWith(`/${hidden}`) ? undefined : target.stat(path));
      }
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** The weights of a model folder in each of the forms that are there. @throws GoldenError where there is none */
async function weightForms(folder: GoldenFolder, name: string): Promise<{ form: string; files: FileSystem }[]> {
  const { files, path } = folder;
  const has = async (file: string) => (await files.stat(joinPath(path, name, file))) !== undefined;
  const forms: { form: string; files: FileSystem }[] = [];
  if (await has(safetensorsName)) forms.push({ form: "safetensors", files: without(files, torchBinName) });
  if (await has(torchBinName)) forms.push({ form: "bin", files: without(files, safetensorsName) });
  if (forms.length > 0) return forms;
  throw new GoldenError(joinPath(path, name), `the folder has neither ${safetensorsName} nor ${torchBinName}.`);
}

/** The model that a file's values are of: the folder called like the file without "_io", else what the metadata names. */
function modelOf(golden: Golden, folder: GoldenFolder): string {
  const named = golden.option("model", "a text", (value) => (typeof value === "string" ? value : undefined));
  const found = [golden.name.replace(/_io$/, ""), named].find((name) => folder.models.includes(name));
  if (found !== undefined) return found;
  throw new GoldenError(golden.path, `there is no model folder for it beside it, neither by its name nor "${named}".`);
}

/** Token numbers of a golden file. */
function tokensOf(golden: Golden, name: string): { rows: number[][]; shape: readonly [number, number] } {
  const { shape, data } = golden.values(name);
  if (shape.length !== 2) throw new GoldenError(golden.path, `"${name}" has ${shape.length} axes; expected (B, L).`);
  const [batch, length] = shape;
  const rows = Array.from({ length: batch }, (_, b) => Array.from(data).slice(b * length, (b + 1) * length));
  return { rows, shape: [batch, length] };
}

/** Each token's successor; the last one's does not count. */
function shifted(rows: readonly (readonly number[])[], device: Device): Tensor {
  const flat = rows.flatMap((row) => [...row.slice(1), IGNORE_INDEX]);
  return device.from(Int32Array.from(flat), [rows.length, rows[0]?.length ?? 0], "i32");
}

/** The last row of logits. */
async function lastRow(logits: Tensor): Promise<Float64Array> {
  const width = logits.dim(-1);
  using last = scope(() => logits.reshape(-1, width).slice(0, logits.size / width - 1));
  return Float64Array.from(await last.data());
}

/**
 * Of the types of 16 bits: how far below the best logit, as a share of the logits' RMS, the expected token's may be and still be a draw. Each
 * of the two is off by the tolerance in the mean, and by twice that now and then.
 */
const drawShare = (dtype: FloatType): number => (isHalf(dtype) ? 4 * tolerances.golden[dtype].forward : 0);

/**
 * Greedy continuation to the length of `expected`, by the whole sequence each time, or by a prefill and steps. Where rounding decides
 * between the best token and the expected one, the expected one is taken.
 */
async function greedy(
  model: MambaLM,
  prompt: readonly number[],
  expected: readonly number[],
  { byStep, draw }: { byStep: boolean; draw: number },
): Promise<number[]> {
  const tokens = [...prompt];
  const state = byStep ? model.initialState(1) : [];
  let fresh = tokens;
  while (tokens.length < expected.length) {
    using input = model.tokens(byStep ? fresh : tokens);
    using logits = byStep ? model.advance(input, state) : noGrad(() => model.forward(input));
    const row = await lastRow(logits);
    const best = row.indexOf(Math.max(...row));
    const wanted = expected[tokens.length];
    const rms = Math.sqrt(row.reduce((sum, x) => sum + x * x, 0) / row.length);
    fresh = [row[best] - row[wanted] <= draw * rms ? wanted : best];
    tokens.push(...fresh);
  }
  for (const tensor of state.flat()) tensor.dispose();
  return tokens;
}

/** The logits of every token when the model reads one token at a time: (B, L, V). */
async function steppedLogits(model: MambaLM, rows: readonly (readonly number[])[]): Promise<Float64Array> {
  const [batch, length, vocab] = [rows.length, rows[0]?.length ?? 0, model.config.vocabSize];
  const out = new Float64Array(batch * length * vocab);
  const state = model.initialState(batch);
  for (let t = 0; t < length; t++) {
    using tokens = model.tokens(rows.map((row) => [row[t]]));
    using logits = model.advance(tokens, state);
    const data = await logits.data();
    for (let b = 0; b < batch; b++) out.set(data.subarray(b * vocab, (b + 1) * vocab), (b * length + t) * vocab);
  }
  for (const tensor of state.flat()) tensor.dispose();
  return out;
}

/** Logits. */
async function checkLogits(model: MambaLM, golden: Golden, dtype: FloatType, form: string): Promise<Check> {
  using tokens = model.tokens(tokensOf(golden, "input_ids").rows);
  using logits = noGrad(() => model.forward(tokens));
  const actual = { shape: logits.shape, data: await logits.data() };
  return compareValues(`${form}: logits`, actual, golden.values("logits"), tolerances.golden[dtype].forward);
}

/** Logits, loss and greedy tokens. */
async function checkInference(model: MambaLM, golden: Golden, dtype: FloatType, form: string): Promise<Check[]> {
  const { forward } = tolerances.golden[dtype];
  const { rows } = tokensOf(golden, "input_ids");
  const checks = [await checkLogits(model, golden, dtype, form)];
  using tokens = model.tokens(rows);
  using targets = shifted(rows, model.device);
  using loss = noGrad(() => model.loss(tokens, targets));
  const expected = golden.values("logits");
  const stepped = { shape: expected.shape, data: await steppedLogits(model, rows) };
  checks.push(compareValues(`${form}: logits step by step`, stepped, expected, forward));
  checks.push(compareValues(`${form}: loss`, { shape: [1], data: await loss.data() }, golden.values("loss"), forward));
  const continued = tokensOf(golden, "greedy");
  for (const [b, row] of continued.rows.entries()) {
    for (const byStep of [false, true]) {
      const found = await greedy(model, rows[b] ?? [], row, { byStep, draw: drawShare(dtype) });
      const name = `${form}: greedy tokens of row ${b}, by ${byStep ? "prefill and steps" : "whole sequences"}`;
      const actual = { shape: [row.length], data: found };
      checks.push(compareExactly(name, actual, { shape: [row.length], data: row }));
    }
  }
  return checks;
}

interface Training {
  readonly lr: number;
  readonly betas: readonly [number, number];
  readonly weightDecay: number;
  readonly clip: number;
  readonly steps: number;
}

const trainPattern =
  /^AdamW lr(\S+) betas\(([^,]+),([^)]+)\) wd(\S+) on every parameter, clip (\S+), (\d+) steps, same batch, labels=input_ids$/;

/** What the metadata says of the training. @throws GoldenError where it says it in other words */
function trainingOf(golden: Golden): Training {
  return golden.option("train", `like ${trainPattern.source}`, (text) => {
    const match = typeof text === "string" ? trainPattern.exec(text) : null;
    if (match === null) return undefined;
    const [lr, beta1, beta2, weightDecay, clip, steps] = match.slice(1).map(Number);
    const all = [lr, beta1, beta2, weightDecay, clip, steps];
    return all.every(Number.isFinite) ? { lr, betas: [beta1, beta2], weightDecay, clip, steps } : undefined;
  });
}

/** The losses before each step, and the gradients and their norm at the first. */
async function checkTraining(model: MambaLM, golden: Golden, dtype: FloatType): Promise<Check[]> {
  const { forward, gradient } = tolerances.golden[dtype];
  const { lr, betas, weightDecay, clip, steps } = trainingOf(golden);
  const { rows } = tokensOf(golden, "input_ids");
  const checks: Check[] = [];
  using tokens = model.tokens(rows);
  using targets = shifted(rows, model.device);
  const optimizer = new AdamW(decayGroups(model, weightDecay, "all"), { beta1: betas[0], beta2: betas[1] });
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const { value, gradients } = valueAndGrad(
      () => model.loss(tokens, targets),
      optimizer.parameters.map((parameter) => parameter.compute),
    );
    losses.push(await value.item());
    using norm = optimizer.step(gradients, { lr, maxNorm: clip });
    if (step === 0) {
      const found = { shape: [1], data: await norm.data() };
      checks.push(compareValues("grad_norm_step1", found, golden.values("grad_norm_step1"), gradient));
      checks.push(...(await checkGradients(model, optimizer, gradients, golden, gradient)));
    }
    for (const tensor of [value, ...gradients]) tensor.dispose();
  }
  optimizer.dispose();
  const shape = [steps];
  checks.push(compareValues("train_losses", { shape, data: losses }, golden.values("train_losses"), forward));
  if ("losses" in golden.meta) {
    const data = golden.option("losses", "a list of numbers", (list) =>
      Array.isArray(list) && list.every((one) => typeof one === "number") ? (list as number[]) : undefined,
    );
    checks.push(
      compareValues("losses of the metadata", { shape, data: losses }, { shape: [data.length], data }, forward),
    );
  }
  return checks;
}

/** Gradients by published names; a parameter that is published in parts has its gradient in the same parts. */
async function checkGradients(
  model: MambaLM,
  optimizer: AdamW,
  gradients: readonly Tensor[],
  golden: Golden,
  tolerance: number,
): Promise<Check[]> {
  const byParameter = new Map(optimizer.parameters.map((parameter, i) => [parameter, gradients[i]]));
  const published = await unpack(model.published(), async (parameter) => {
    const found = byParameter.get(parameter);
    if (found === undefined) throw new Error("a parameter is not trained.");
    // Of the type of what was computed with, which is not the parameter's own.
    using gradient = noGrad(() => found.cast(parameter.dtype));
    return gradient.hostData();
  });
  return [...published].map(([name, { shape, data }]) =>
    compareValues(`grad1.${name}`, { shape, data }, golden.values(`grad1.${name}`), tolerance),
  );
}

/** What a model file holds beside a model folder. */
export const modelRunner: GoldenRunner = {
  name: "model",
  matches: ({ model }) => typeof model === "string",
  run: async (device, dtype, golden, folder) => {
    const name = modelOf(golden, folder);
    const checks: Check[] = [];
    for (const [i, { form, files }] of (await weightForms(folder, name)).entries()) {
      using model = (await MambaLM.load(files, joinPath(folder.path, name), { device, dtype })).eval();
      if (i > 0) {
        // The folder's own golden has it that both forms are the same bits.
        checks.push(await checkLogits(model, golden, dtype, form));
        continue;
      }
      checks.push(...(await checkInference(model, golden, dtype, form)));
      if (!("train" in golden.meta) || form !== "safetensors") continue;
      // What computes in half the bits is trained with masters of f32.
      const precision = isHalf(dtype) ? ({ dtype: "f32", compute: dtype } as const) : { dtype };
      using trained = (await MambaLM.load(files, joinPath(folder.path, name), { device, ...precision })).eval();
      checks.push(...(await checkTraining(trained, golden, dtype)));
    }
    return [...checks, ...golden.unseen()];
  },
};

/** A model folder by itself: both forms of its weights are the same, and saving it loses nothing. */
export const mambaFolderRunner: ModelFolderRunner = {
  name: "model folder",
  matches: ({ model_type: type }) => type === "mamba" || type === "mamba2",
  run: async (device, dtype, name, folder) => {
    const path = joinPath(folder.path, name);
    const [first, ...others] = await weightForms(folder, name);
    using model = await MambaLM.load(first.files, path, { device, dtype });
    const tensors = await model.stateDict();
    const memory = memoryFiles();
    await model.save(memory, "saved");
    const copies = [{ form: "saved and loaded again", files: memory, at: "saved" }];
    const checks: Check[] = [check("tensors", tensors.size > 0, "there are none")];
    for (const { form, files, at } of [...others.map((one) => ({ ...one, at: path })), ...copies]) {
      using other = await MambaLM.load(files, at, { device, dtype });
      const [a, b] = [model, other].map(({ config }) => JSON.stringify(config));
      checks.push(check(`${form}: configuration`, a === b, `${b}, expected ${a}`));
      const found = await other.stateDict();
      const same = found.size === tensors.size;
      checks.push(check(`${form}: tensors`, same, `there are ${found.size}, expected ${tensors.size}`));
      for (const [key, tensor] of found) {
        const expected = tensors.get(key);
        if (expected === undefined) checks.push(check(`${form}: ${key}`, false, "there was no such tensor"));
        else checks.push(compareBits(`${form}: ${key}`, tensor, expected));
      }
    }
    return checks;
  },
};
