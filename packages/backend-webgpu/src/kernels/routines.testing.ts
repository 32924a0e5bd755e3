// For tests of routines: runs a computation and its gradients here and on the reference in f64, and compares them by the conformance
// suite's measure; what is not finite must be the same.

import { relativeError } from "@diffmamba/conformance";
import { type Device, type DType, reference, scope, type Tensor, valueAndGrad } from "@diffmamba/tensor";
import { expect } from "vitest";
import { scattered } from "./agreement.testing.js";

/** An input: numbers of a shape. Those in `constants` of {@link Agreement} have no gradient. */
export interface Input {
  readonly shape: readonly number[];
  readonly data: ArrayLike<number>;
  readonly dtype?: DType;
}

type Tensors<Name extends string> = Readonly<Record<Name, Tensor>>;

export interface Agreement<Name extends string, Constant extends string = never> {
  readonly inputs: Readonly<Record<Name, Input>>;
  readonly constants?: Readonly<Record<Constant, Input>>;
  readonly compute: (tensors: Tensors<Name | Constant>) => Readonly<Record<string, Tensor>>;
  readonly tolerance?: number;
}

/** `size` numbers that look random, of [low, high). */
export function numbers(shape: readonly number[], low = -1, high = 1): Input {
  const size = shape.reduce((product, n) => product * n, 1);
  return { shape, data: scattered(size, low, high) };
}

export function whole(shape: readonly number[], data: readonly number[]): Input {
  return { shape, data, dtype: "i32" };
}

async function evaluate<Name extends string, Constant extends string>(
  device: Device,
  wide: boolean,
  { inputs, constants, compute }: Agreement<Name, Constant>,
): Promise<Map<string, Float64Array>> {
  const place = ([name, { shape, data, dtype }]: [string, Input]) =>
    [name, device.from(Array.from(data), shape, dtype ?? (wide ? "f64" : "f32"))] as const;
  const leaves = Object.fromEntries(Object.entries<Input>(inputs).map(place));
  const others = Object.fromEntries(Object.entries<Input>(constants ?? {}).map(place));
  const tensors = { ...leaves, ...others } as Tensors<Name | Constant>;
  const results = new Map<string, Float64Array>();
  const take = async (name: string, tensor: Tensor) => {
    results.set(name, Float64Array.from(await tensor.data()));
    tensor.dispose();
  };
  const outputs = scope(() => {
    const made = Object.entries(compute(tensors));
    return Object.fromEntries(made.map(([name, output]) => [name, output.contiguous().alias()]));
  });
  for (const [name, output] of Object.entries(outputs)) await take(name, output);
  const names = Object.keys(leaves);
  if (names.length > 0) {
    const loss = () => {
      const parts = Object.values(compute(tensors)).map((output) => {
        const weights = device.from(scattered(output.size), output.shape, output.dtype);
        return output.mul(weights).sum();
      });
      return parts.reduce((a, b) => a.add(b));
    };
    const { value, gradients } = valueAndGrad(loss, Object.values(leaves));
    value.dispose();
    for (const [i, name] of names.entries()) await take(`gradient of ${name}`, gradients[i]);
  }
  for (const tensor of Object.values<Tensor>(tensors)) tensor.dispose();
  return results;
}

/** Expects outputs, and the gradients of a weighted sum of them, to be those of the reference. */
export async function expectLikeReference<Name extends string, Constant extends string = never>(
  device: Device,
  agreement: Agreement<Name, Constant>,
): Promise<void> {
  const { tolerance = 1e-5 } = agreement;
  const actual = await evaluate(device, false, agreement);
  const expected = await evaluate(reference(), true, agreement);
  for (const [name, wanted] of expected) {
    const got = actual.get(name) ?? new Float64Array();
    expect(got.length, name).toBe(wanted.length);
    const kinds = (values: Float64Array) => Array.from(values, (x) => (Number.isFinite(x) ? "number" : String(x)));
    expect(kinds(got), name).toEqual(kinds(wanted));
    const finite = (values: Float64Array) => values.map((x) => (Number.isFinite(x) ? x : 0));
    expect(relativeError(finite(got), finite(wanted)), name).toBeLessThan(tolerance);
  }
}
