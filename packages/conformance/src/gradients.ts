// Layer: conformance. Gradients against central differences, in f64, from the very cases that backends are tested with.
// Knows cases. Knows no op; runs on the reference alone, the only device with f64.

import { type Device, isFloat, type OpSpec, sizeOf } from "@diffmamba/tensor";
import { evaluate, evaluateOutputs, type OpCase, placeInputs, titleOf, worldOf } from "./cases/case.js";
import { type DrawnInput, drawInputs, hasGradient, lossWeights } from "./cases/inputs.js";
import { type Check, compareValues, decode, tolerances } from "./compare.js";

/** Cases with more differentiable numbers than this are left to the smaller ones beside them. */
const MOST_ELEMENTS = 400;

/**
 * h of (f(x + h) - f(x - h)) / 2h. Its error is h^2 f''' / 6 from the series and about 1e-16 f / h from rounding, which
 * this h balances near 1e-10 for functions of order 1.
 */
const STEP = 1e-5;

/** True where differences are worth taking: smooth, in f64, with some but not too many numbers to vary. */
export function hasDifferences(test: OpCase): boolean {
  const differentiable = Object.values(test.inputs).filter((input) => hasGradient(input, "f64"));
  const elements = differentiable.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  return test.smooth && test.dtypes.includes("f64") && elements > 0 && elements <= MOST_ELEMENTS;
}

/** The inputs of ops that have a gradient which no case compares with differences. */
export function gradientGaps(specs: readonly OpSpec[], cases: readonly OpCase[]): string[] {
  return specs.flatMap(({ name, gradients }) => {
    const inputs = cases.filter((test) => test.op === name && hasDifferences(test)).map((test) => test.inputs);
    return gradients
      .filter((input) => !inputs.some((own) => input in own && own[input].differentiable))
      .map((input) => `${name}: no case compares the gradient of ${input} with differences`);
  });
}

type Outputs = Readonly<Record<string, ArrayLike<number>>>;

/**
 * The gradient of sum(weights * outputs) with respect to each differentiable input, from two evaluations for each of its
 * elements. Outputs are subtracted one by one before they are summed: what does not depend on the element cancels exactly.
 */
async function differences(
  test: OpCase,
  inputs: Readonly<Record<string, DrawnInput>>,
  names: readonly string[],
  device: Device,
): Promise<Record<string, Float64Array>> {
  const world = worldOf(device, "f64");
  const tensors = placeInputs(inputs, world);
  const outputs = async (): Promise<Outputs> => {
    const values = Object.entries(await evaluateOutputs(test, tensors, world));
    const counted = values.filter(([name, { dtype }]) => isFloat(dtype) && (test.loss?.includes(name) ?? true));
    return Object.fromEntries(counted.map(([name, value]) => [name, value.data]));
  };
  const weights = Object.fromEntries(
    Object.entries(await outputs()).map(([name, { length }]) => [name, lossWeights(titleOf(test), name, length)]),
  );
  const gradients: Record<string, Float64Array> = {};
  for (const name of names) {
    const { values } = inputs[name];
    const moved = Float64Array.from(values);
    gradients[name] = new Float64Array(values.length);
    for (let i = 0; i < values.length; i++) {
      moved[i] = values[i] + STEP;
      const width = moved[i] - (values[i] - STEP);
      tensors[name].write(moved);
      const above = await outputs();
      moved[i] = values[i] - STEP;
      tensors[name].write(moved);
      const below = await outputs();
      moved[i] = values[i];
      let sum = 0;
      for (const [output, w] of Object.entries(weights)) {
        for (let k = 0; k < w.length; k++) sum += w[k] * (above[output][k] - below[output][k]);
      }
      gradients[name][i] = sum / width;
    }
    tensors[name].write(values);
  }
  for (const tensor of Object.values(tensors)) tensor.dispose();
  return gradients;
}

/** Compares the gradient of every differentiable input of a case with central differences, on a device that has f64. */
export async function checkGradients(test: OpCase, device: Device): Promise<Check[]> {
  const inputs = drawInputs(titleOf(test), test.inputs, "f64");
  const names = Object.keys(inputs).filter((name) => hasGradient(inputs[name].spec, "f64"));
  const { gradients } = await evaluate(test, inputs, device, "f64");
  const expected = await differences(test, inputs, names, device);
  return names.map((name) => {
    const actual = decode(gradients[name]);
    return compareValues(
      `gradient of ${name}`,
      actual,
      { shape: actual.shape, data: expected[name] },
      tolerances.differences,
    );
  });
}
