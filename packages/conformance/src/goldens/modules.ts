// Layer: conformance. Goldens of whole mixers: output, gradients of the input and of every parameter by its published
// name, and, where the file has them, the token-by-token outputs and states.
// Knows the mixers' classes and the files' metadata. Knows no test runner and no backend by name.

import { DiffMamba, DiffMamba2, DiffMamba2E, DiffMamba2TwoBranch, DiffS6, DiffS6Mamba2 } from "@diffmamba/differential";
import { type Build, unpack } from "@diffmamba/nn";
import { Mamba, Mamba2, type Mixer } from "@diffmamba/ssm";
import { type HostTensor, keep, type Tensor, valueAndGrad } from "@diffmamba/tensor";
import { type Check, compareValues, decode, type FloatType, tolerances } from "../compare.js";

/** The `meta` of a module's file. */
export interface ModuleMeta {
  readonly module: string;
  readonly d_model: number;
  readonly d_state: number;
  readonly d_conv?: number;
  readonly expand?: number;
  readonly dt_rank?: number;
  readonly headdim?: number;
  readonly ngroups?: number;
  readonly lambda_init?: number | null;
}

type Factory = (meta: ModuleMeta, build: Build) => readonly Mixer[];

function common(meta: ModuleMeta) {
  const { d_model: dModel, d_state: dState, d_conv: dConv = 4, lambda_init: init } = meta;
  return { dModel, dState, dConv, ...(typeof init === "number" && { lambdaInit: init }) };
}

function heads(meta: ModuleMeta) {
  if (meta.headdim === undefined) throw new Error(`${meta.module}: the metadata has no headdim.`);
  return { ...common(meta), headDim: meta.headdim, chunkSize: 16 };
}

const branchNames = ["m1", "m2"] as const;

/** By the module's name in the metadata: every form of it that we have. */
const factories: Readonly<Record<string, Factory>> = {
  Mamba: (meta, build) => [
    new Mamba(
      { ...common(meta), expand: meta.expand ?? 2, dtRank: meta.dt_rank ?? Math.ceil(meta.d_model / 16) },
      build,
    ),
  ],
  Mamba2: (meta, build) => [
    new Mamba2({ ...heads(meta), expand: meta.expand ?? 2, nGroups: meta.ngroups ?? 1 }, build),
  ],
  DiffMamba2: (meta, build) => [
    new DiffMamba2({ ...heads(meta), branchNames }, build),
    new DiffMamba2TwoBranch({ ...heads(meta), branchNames }, build),
  ],
  DiffMamba: (meta, build) => [new DiffMamba({ ...common(meta), branchNames }, build)],
  DiffS6: (meta, build) => [new DiffS6(common(meta), build)],
  DiffS6Mamba2: (meta, build) => [new DiffS6Mamba2(heads(meta), build)],
  DiffMamba2E: (meta, build) => [new DiffMamba2E(heads(meta), build)],
};

/** True if there is a mixer for this metadata. */
export function knowsModule(name: unknown): name is string {
  return typeof name === "string" && name in factories;
}

/**
 * Files whose gradient of lambda nearly cancels: the sum of dp m2 (dp: the gradient of p = m1 - lambda m2) over all tokens and channels, as
 * sum |terms| / |sum of terms|, in f64. Each term is rounded at least once, so f32 promises that sum to this times 2^-24, whatever the order.
 */
const cancellation: Readonly<Record<string, number>> = { diffmambablock_1: 10_968 };

/** How close the gradient of a parameter must be. */
function gradientTolerance(file: string, parameter: string, dtype: FloatType): number {
  const { gradient } = tolerances.golden[dtype];
  const factor = parameter.startsWith("lambda_") && dtype === "f32" ? (cancellation[file] ?? 0) : 0;
  return Math.max(gradient, factor * 2 ** -24);
}

function withPrefix(tensors: ReadonlyMap<string, HostTensor>, prefix: string): Map<string, HostTensor> {
  const found = [...tensors].filter(([name]) => name.startsWith(prefix));
  return new Map(found.map(([name, tensor]) => [name.slice(prefix.length), tensor]));
}

function get(tensors: ReadonlyMap<string, HostTensor>, name: string): HostTensor {
  const tensor = tensors.get(name);
  if (tensor === undefined) throw new Error(`the file has no tensor "${name}".`);
  return tensor;
}

async function checkForm(
  mixer: Mixer,
  file: string,
  tensors: ReadonlyMap<string, HostTensor>,
  dtype: FloatType,
): Promise<Check[]> {
  const { device } = mixer;
  const { forward, gradient } = tolerances.golden[dtype];
  const form = mixer.constructor.name;
  const compare = async (name: string, actual: Tensor, expected: HostTensor, tolerance: number) =>
    compareValues(`${form}: ${name}`, { shape: actual.shape, data: await actual.data() }, decode(expected), tolerance);
  const load = (name: string) => {
    const { shape, data } = decode(get(tensors, name));
    return device.from(Array.from(data), shape, dtype);
  };
  mixer.loadStateDict(withPrefix(tensors, "param."));
  const checks: Check[] = [];

  using input = load("input");
  using weights = load("doutput");
  const leaves = [input, ...mixer.parameters()];
  let output: Tensor | undefined;
  const { value, gradients } = valueAndGrad(() => {
    output = keep(mixer.forward(input));
    return output.mul(weights).sum();
  }, leaves);
  value.dispose();
  if (output === undefined) throw new Error(`${form}: gave no output.`);
  checks.push(await compare("output", output, get(tensors, "output"), forward));
  output.dispose();
  checks.push(await compare("dinput", gradients[0], get(tensors, "dinput"), gradient));

  const byParameter = new Map(mixer.parameters().map((parameter, i) => [parameter, gradients[i + 1]]));
  const published = await unpack(mixer.published(), async (parameter) => {
    const found = byParameter.get(parameter);
    if (found === undefined) throw new Error("a parameter has no gradient.");
    return found.hostData();
  });
  const expected = withPrefix(tensors, "grad.");
  for (const [name, value] of published) {
    const tolerance = gradientTolerance(file, name, dtype);
    checks.push(compareValues(`${form}: gradient of ${name}`, decode(value), decode(get(expected, name)), tolerance));
    expected.delete(name);
  }
  for (const name of expected.keys()) {
    checks.push({
      name: `${form}: gradient of ${name}`,
      passed: false,
      error: Number.POSITIVE_INFINITY,
      tolerance: gradient,
      detail: "the mixer has no such parameter",
    });
  }
  for (const value of gradients) value.dispose();
  if (tensors.has("step_output")) checks.push(...(await checkSteps(mixer, input, tensors, compare, forward)));
  return checks;
}

/** Token by token from the initial state, and the whole at once into a state. */
async function checkSteps(
  mixer: Mixer,
  input: Tensor,
  tensors: ReadonlyMap<string, HostTensor>,
  compare: (name: string, actual: Tensor, expected: HostTensor, tolerance: number) => Promise<Check>,
  tolerance: number,
): Promise<Check[]> {
  const checks: Check[] = [];
  const [batch, length, dModel] = input.shape;
  const expected = decode(get(tensors, "step_output"));
  const stepped = mixer.initialState(batch);
  const outputs = new Float64Array(batch * length * dModel);
  for (let t = 0; t < length; t++) {
    using token = input.slice(1, t, t + 1);
    using y = mixer.advance(token, stepped);
    const data = await y.data();
    for (let b = 0; b < batch; b++) {
      outputs.set(data.subarray(b * dModel, (b + 1) * dModel), (b * length + t) * dModel);
    }
  }
  const form = mixer.constructor.name;
  checks.push(compareValues(`${form}: step by step`, { shape: input.shape, data: outputs }, expected, tolerance));
  const prefilled = mixer.initialState(batch);
  mixer.advance(input, prefilled).dispose();
  const names = ["final_conv_state", "final_ssm_state"];
  for (const [i, name] of names.entries()) {
    if (!tensors.has(name)) continue;
    checks.push(await compare(`${name} after steps`, stepped[i], get(tensors, name), tolerance));
    checks.push(await compare(`${name} after prefill`, prefilled[i], get(tensors, name), tolerance));
  }
  for (const tensor of [...stepped, ...prefilled]) tensor.dispose();
  return checks;
}

/** All comparisons of one module file, `file` being its name without ending, in every form that the mixer has. */
export async function checkModule(
  build: Build,
  file: string,
  meta: ModuleMeta,
  tensors: ReadonlyMap<string, HostTensor>,
): Promise<Check[]> {
  const checks: Check[] = [];
  for (const mixer of factories[meta.module](meta, build)) {
    checks.push(...(await checkForm(mixer, file, tensors, build.dtype as FloatType)));
    mixer.dispose();
  }
  return checks;
}
