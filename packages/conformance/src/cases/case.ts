// Layer: conformance. A case of an op, as data, and what running it means: the op on the device under test twice, and
// once on the reference in f64, from the same rounded inputs; outputs, gradients, bits and live tensors are compared.
// Knows devices and gradients. Knows no op and no test runner.

import { type Device, type DType, type HostTensor, scope, type Tensor, valueAndGrad } from "@diffmamba/tensor";
import {
  type Check,
  check,
  compareBits,
  compareExactly,
  compareValues,
  decode,
  floatTypes,
  isFloatType,
  statisticsType,
  tolerances,
} from "../compare.js";
import { type DrawnInput, drawInputs, hasGradient, type InputSpec, lossWeights, typeOf } from "./inputs.js";

export type Tensors = Readonly<Record<string, Tensor>>;

/** Where a case runs, and in which type. */
export interface World {
  readonly device: Device;
  /** The type under test. */
  readonly dtype: DType;
  /** The type of states and statistics beside it. */
  readonly statistic: "f32" | "f64";
}

/** One case of one op. */
export interface OpCase {
  /** The op's name in `opSpecs`. */
  readonly op: string;
  /** What is particular about this case. */
  readonly name: string;
  /** The types to test; all floats by default. */
  readonly dtypes: readonly DType[];
  /** Further types that the device must have. */
  readonly needs: readonly DType[];
  readonly inputs: Readonly<Record<string, InputSpec>>;
  /** The computation. It may keep nothing and read nothing back. */
  readonly outputs: (inputs: Tensors, world: World) => Tensors;
  /** The outputs whose weighted sum is differentiated; all floats by default. */
  readonly loss: readonly string[] | undefined;
  /** False where the function has a kink at these very inputs, so that differences say nothing of its gradient. */
  readonly smooth: boolean;
}

/** A case in the form it is written down in: see {@link OpCase}. */
export interface CaseOptions<Name extends string> {
  readonly op: string;
  readonly name: string;
  readonly dtypes?: readonly DType[];
  readonly needs?: readonly DType[];
  readonly inputs: Readonly<Record<Name, InputSpec>>;
  readonly outputs: (inputs: Readonly<Record<Name, Tensor>>, world: World) => Tensors;
  readonly loss?: readonly string[];
  readonly smooth?: boolean;
}

export function opCase<Name extends string>(options: CaseOptions<Name>): OpCase {
  const { dtypes = floatTypes, needs = [], loss, smooth = true, ...rest } = options;
  return { ...rest, dtypes, needs, loss, smooth };
}

/** "ssdScan: two groups" */
export function titleOf({ op, name }: OpCase): string {
  return `${op}: ${name}`;
}

/** Values read back: outputs, and gradients by the input's name. */
export interface Evaluation {
  readonly outputs: Readonly<Record<string, HostTensor>>;
  readonly gradients: Readonly<Record<string, HostTensor>>;
}

/** A tensor's content, after which the tensor is disposed. */
async function take(tensor: Tensor): Promise<HostTensor> {
  try {
    return { dtype: tensor.dtype, shape: tensor.shape, data: await tensor.hostData() };
  } finally {
    tensor.dispose();
  }
}

/** The content of each, after which it is disposed. */
export async function takeAll(tensors: Tensors): Promise<Record<string, HostTensor>> {
  const taken: Record<string, HostTensor> = {};
  for (const [name, tensor] of Object.entries(tensors)) taken[name] = await take(tensor);
  return taken;
}

/** The inputs on a device. */
export function placeInputs(inputs: Readonly<Record<string, DrawnInput>>, world: World): Record<string, Tensor> {
  const placed = Object.entries(inputs).map(([name, { spec, values }]) => {
    return [name, world.device.from(values, spec.shape, typeOf(spec, world.dtype))];
  });
  return Object.fromEntries(placed);
}

export function worldOf(device: Device, dtype: DType): World {
  return { device, dtype, statistic: statisticsType(dtype) };
}

/** The outputs of a case, without a tape. */
export async function evaluateOutputs(test: OpCase, tensors: Tensors, world: World): Promise<Evaluation["outputs"]> {
  // Aliases, because an op may give back an input itself, which is not ours to dispose of.
  const aliases = scope(() => {
    const outputs = Object.entries(test.outputs(tensors, world));
    return Object.fromEntries(outputs.map(([name, output]) => [name, output.alias()]));
  });
  return takeAll(aliases);
}

/** sum over outputs of sum(output * weights): the number whose gradient is tested. */
function weightedSum(test: OpCase, outputs: Tensors, { device, statistic }: World): Tensor {
  let total = device.zeros([], statistic);
  for (const [name, output] of Object.entries(outputs)) {
    if (!isFloatType(output.dtype) || (test.loss !== undefined && !test.loss.includes(name))) continue;
    const weights = device.from(lossWeights(titleOf(test), name, output.size), output.shape, statistic);
    total = total.add(output.cast(statistic).mul(weights).sum());
  }
  return total;
}

/** Outputs and gradients of a case on a device. */
export async function evaluate(
  test: OpCase,
  inputs: Readonly<Record<string, DrawnInput>>,
  device: Device,
  dtype: DType,
): Promise<Evaluation> {
  const world = worldOf(device, dtype);
  const tensors = placeInputs(inputs, world);
  try {
    const outputs = await evaluateOutputs(test, tensors, world);
    const names = Object.keys(inputs).filter((name) => hasGradient(inputs[name].spec, dtype));
    if (names.length === 0) return { outputs, gradients: {} };
    const leaves = names.map((name) => tensors[name]);
    const { value, gradients } = valueAndGrad(() => weightedSum(test, test.outputs(tensors, world), world), leaves);
    value.dispose();
    return { outputs, gradients: await takeAll(Object.fromEntries(names.map((name, i) => [name, gradients[i]]))) };
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose();
  }
}

/** Checks of `actual` against `expected`, which the reference gave: floats within the type's tolerance, integers exactly. */
function compareEvaluations(actual: Evaluation, expected: Evaluation, dtype: DType): Check[] {
  const limits = isFloatType(dtype) ? tolerances.oracle[dtype] : { forward: 0, gradient: 0 };
  const checks: Check[] = [];
  for (const [name, value] of Object.entries(expected.outputs)) {
    const output = actual.outputs[name];
    if (isFloatType(output.dtype)) checks.push(compareValues(name, decode(output), decode(value), limits.forward));
    else checks.push(compareExactly(name, output, value));
  }
  for (const [name, value] of Object.entries(expected.gradients)) {
    const gradient = decode(actual.gradients[name]);
    checks.push(compareValues(`gradient of ${name}`, gradient, decode(value), limits.gradient));
  }
  return checks;
}

/** Checks that two evaluations are the same bit for bit. */
function compareRuns(first: Evaluation, second: Evaluation): Check[] {
  return [
    ...Object.entries(first.outputs).map(([name, value]) => compareBits(`${name}, again`, value, second.outputs[name])),
    ...Object.entries(first.gradients).map(([name, value]) =>
      compareBits(`gradient of ${name}, again`, value, second.gradients[name]),
    ),
  ];
}

/**
 * Runs a case on a device in a type: outputs and gradients agree with those of `oracle`, the reference, in f64 (integers:
 * in the same type); a second run gives the same bits; no tensor is left behind.
 */
export async function runCase(test: OpCase, device: Device, dtype: DType, oracle: Device): Promise<Check[]> {
  const inputs = drawInputs(titleOf(test), test.inputs, dtype);
  const before = device.memory().tensors;
  const first = await evaluate(test, inputs, device, dtype);
  const second = await evaluate(test, inputs, device, dtype);
  const left = device.memory().tensors - before;
  const expected = await evaluate(test, inputs, oracle, isFloatType(dtype) ? "f64" : dtype);
  return [
    ...compareEvaluations(first, expected, dtype),
    ...compareRuns(first, second),
    check("live tensors", left === 0, `${left} more than before the case`),
  ];
}

/** The types that a case is run in on a device. */
export function typesFor(test: OpCase, available: ReadonlySet<DType>): DType[] {
  return test.needs.every((type) => available.has(type)) ? test.dtypes.filter((type) => available.has(type)) : [];
}
