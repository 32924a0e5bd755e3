// Layer: conformance. Properties: what must hold on a device whatever the numbers are, such as that two ways to compute
// one thing agree. Knows cases and how they are evaluated. Knows no op.

import type { Device, DType, Kernels } from "@diffmamba/tensor";
import { type Evaluation, evaluate, opCase, type Tensors, titleOf, type World } from "../cases/case.js";
import { drawInputs, type InputSpec } from "../cases/inputs.js";
import {
  type Check,
  compareExactly,
  compareValues,
  decode,
  type FloatType,
  isFloatType,
  tolerances,
} from "../compare.js";

/** A property, tested on a device in each of its types. */
export interface Property {
  readonly name: string;
  readonly dtypes: readonly DType[];
  /** A kernel that backends may lack: there the property is skipped, by its name. */
  readonly kernel?: keyof Kernels;
  readonly run: (device: Device, dtype: DType) => Promise<Check[]>;
}

type Way = (inputs: Tensors, world: World) => Tensors;

export interface Equality {
  readonly name: string;
  readonly dtypes: readonly FloatType[];
  readonly inputs: Readonly<Record<string, InputSpec>>;
  /** Computations of the same outputs from the same inputs; the first is what the others are compared with. */
  readonly ways: Readonly<Record<string, Way>>;
}

function compareWays(way: string, actual: Evaluation, expected: Evaluation, dtype: FloatType): Check[] {
  const limits = tolerances.equal[dtype];
  const outputs = Object.entries(expected.outputs).map(([name, value]) => {
    const output = actual.outputs[name];
    if (!isFloatType(value.dtype)) return compareExactly(`${way}: ${name}`, output, value);
    return compareValues(`${way}: ${name}`, decode(output), decode(value), limits.forward);
  });
  const gradients = Object.entries(expected.gradients).map(([name, value]) =>
    compareValues(`${way}: gradient of ${name}`, decode(actual.gradients[name]), decode(value), limits.gradient),
  );
  return [...outputs, ...gradients];
}

/** The property that several ways to compute one thing give the same outputs and gradients, on one device. */
export function equality({ name, dtypes, inputs, ways }: Equality): Property {
  const cases = Object.entries(ways).map(([way, outputs]) => ({
    way,
    test: opCase({ op: "equal", name, inputs, outputs }),
  }));
  const run: Property["run"] = async (device, dtype) => {
    if (!isFloatType(dtype)) throw new TypeError(`${name}: ${dtype} is no float`);
    const [first, ...others] = cases;
    const drawn = drawInputs(titleOf(first.test), inputs, dtype);
    const expected = await evaluate(first.test, drawn, device, dtype);
    const checks: Check[] = [];
    for (const { way, test } of others) {
      checks.push(...compareWays(`${way} = ${first.way}`, await evaluate(test, drawn, device, dtype), expected, dtype));
    }
    return checks;
  };
  return { name, dtypes, run };
}
