// Layer: conformance. States of scans that are kept in 16 bits: what comes out is that of the same state in f32, the state after it
// rounded to nearest once; made beside it or in place; with gradients.
// Knows the scans' calls. Knows no device by name.

import {
  type Device,
  type DType,
  type HostTensor,
  noGrad,
  type SequenceOptions,
  scope,
  selectiveScan,
  ssdScan,
  type Tensor,
} from "@diffmamba/tensor";
import { placeInputs, type Tensors, takeAll, worldOf } from "../cases/case.js";
import { drawInputs, given, type InputSpec, statistic, uniform } from "../cases/inputs.js";
import {
  type Check,
  check,
  compareBits,
  compareValues,
  decode,
  floatTypes,
  isFloatType,
  tolerances,
} from "../compare.js";
import { equality, type Property } from "./property.js";

export type Narrow = "bf16" | "f16";

export const narrowTypes: readonly Narrow[] = ["bf16", "f16"];

/** Bits of the significand that are stored, and the exponent of the least normal number. */
const forms: Readonly<Record<Narrow, { readonly bits: number; readonly least: number }>> = {
  bf16: { bits: 7, least: -126 },
  f16: { bits: 10, least: -14 },
};

/** A scan of one shape, with everything optional switched on. */
interface Scan {
  readonly name: string;
  readonly inputs: Readonly<Record<string, InputSpec>>;
  call(inputs: Tensors, options: SequenceOptions): { readonly y: Tensor; readonly finalState: Tensor };
}

function ssd(batch: number, length: number, heads: number, headDim: number, dState: number, groups: number): Scan {
  return {
    name: `ssdScan: ${length} tokens, ${heads} heads of ${headDim}, N ${dState}`,
    inputs: {
      x: uniform([batch, length, heads, headDim]),
      dt: uniform([batch, length, heads], -2, 1),
      A: statistic([heads], -2, -0.2),
      B: uniform([batch, length, groups, dState]),
      C: uniform([batch, length, groups, dState]),
      D: statistic([heads]),
      z: uniform([batch, length, heads, headDim], -2, 2),
      dtBias: statistic([heads], -1, 0),
      initialState: statistic([batch, heads, headDim, dState], -3, 3),
    },
    call: ({ x, dt, A, B, C, D, z, dtBias, initialState }, options) =>
      ssdScan({ x, dt, A, B, C, D, z, dtBias, initialState }, options),
  };
}

function scan(batch: number, length: number, channels: number, dState: number, groups: number): Scan {
  return {
    name: `selectiveScan: ${length} tokens, ${channels} channels, N ${dState}`,
    inputs: {
      u: uniform([batch, length, channels]),
      delta: uniform([batch, length, channels], -2, 1),
      A: statistic([channels, dState], -2, -0.2),
      B: uniform([batch, length, groups, dState]),
      C: uniform([batch, length, groups, dState]),
      D: statistic([channels]),
      z: uniform([batch, length, channels], -2, 2),
      deltaBias: statistic([channels], -1, 0),
      initialState: statistic([batch, channels, dState], -3, 3),
    },
    call: ({ u, delta, A, B, C, D, z, deltaBias, initialState }, options) =>
      selectiveScan({ u, delta, A, B, C, D, z, deltaBias, initialState }, options),
  };
}

/** Half of the distance between the numbers of 16 bits around x. */
function halfUlp(x: number, { bits, least }: { readonly bits: number; readonly least: number }): number {
  const exponent = x === 0 ? least : Math.max(Math.floor(Math.log2(Math.abs(x))), least);
  return 2 ** (exponent - bits - 1);
}

/** Passes where every number is the wide one rounded to nearest; the wide one may itself be off by a few roundings in f32. */
export function compareRounded(name: string, actual: HostTensor, wide: HostTensor, type: Narrow): Check {
  if (actual.dtype !== type) return check(name, false, `it is ${actual.dtype}`);
  const [found, exact] = [decode(actual).data, decode(wide).data];
  for (let i = 0; i < exact.length; i++) {
    const limit = halfUlp(exact[i], forms[type]) + 2e-6 * Math.max(Math.abs(exact[i]), 1);
    if (Math.abs(found[i] - exact[i]) <= limit) continue;
    return check(name, false, `element ${i} is ${found[i]}, more than half a place from ${exact[i]}`);
  }
  return check(name, actual.data.length === wide.data.length, "the sizes differ");
}

/** The state widened before; as it is; and replaced in place, where there is one token. */
function ways({ call }: Scan, { initialState, lengths, ...others }: Tensors, type: Narrow): Tensors {
  const narrow = initialState.cast(type);
  const run = (state: Tensor, replacesState = false) =>
    call({ ...others, initialState: state }, { lengths, replacesState });
  const wide = run(narrow.cast(initialState.dtype));
  const apart = run(narrow);
  const made = { wideY: wide.y, wideState: wide.finalState, y: apart.y, state: apart.finalState };
  if (apart.y.dim(1) !== 1) return made;
  const place = narrow.clone();
  const inPlace = run(place, true);
  return { ...made, inPlaceY: inPlace.y, inPlaceState: inPlace.finalState, place };
}

async function checkNarrow(of: Scan, tensors: Tensors, type: Narrow, tolerance: number): Promise<Check[]> {
  const { wideY, wideState, y, state, inPlaceY, inPlaceState, place } = await takeAll(
    noGrad(() => scope(() => ways(of, tensors, type))),
  );
  return [
    compareValues(`${type}: y`, decode(y), decode(wideY), tolerance),
    compareRounded(`${type}: finalState`, state, wideState, type),
    ...(place === undefined
      ? []
      : [
          compareBits(`${type}: y, the state replaced in place`, inPlaceY, y),
          compareBits(`${type}: finalState, replaced in place`, inPlaceState, state),
          compareBits(`${type}: the state that was replaced`, place, state),
        ]),
  ];
}

/** With `lengths` some rows have no token. */
function rounded(of: Scan, lengths?: readonly number[]): Property {
  const name = `${of.name}${lengths ? ", rows padded" : ""}: a state of 16 bits = one of f32, rounded`;
  const inputs = { ...of.inputs, ...(lengths && { lengths: given([lengths.length], lengths, "i32") }) };
  const run = async (device: Device, dtype: DType): Promise<Check[]> => {
    if (!isFloatType(dtype)) throw new TypeError(`${name}: ${dtype} is no float`);
    const world = worldOf(device, dtype);
    const checks: Check[] = [];
    const tensors = placeInputs(drawInputs(name, inputs, dtype), world);
    for (const type of narrowTypes) {
      checks.push(...(await checkNarrow(of, tensors, type, tolerances.equal[dtype].forward)));
    }
    for (const tensor of Object.values(tensors)) tensor.dispose();
    return checks;
  };
  return { name, dtypes: floatTypes, run };
}

function gradients(of: Scan, type: Narrow): Property {
  return equality({
    name: `${of.name}: gradients through a state of ${type} = those through casts`,
    dtypes: floatTypes,
    inputs: of.inputs,
    ways: {
      casts: ({ initialState, ...inputs }, { statistic: wide }) => {
        const { y, finalState } = of.call({ ...inputs, initialState: initialState.cast(type).cast(wide) }, {});
        return { y, state: finalState.cast(type) };
      },
      "as it is": ({ initialState, ...inputs }) => {
        const { y, finalState } = of.call({ ...inputs, initialState: initialState.cast(type) }, {});
        return { y, state: finalState };
      },
    },
  });
}

const small = [ssd(3, 5, 4, 3, 4, 2), scan(3, 5, 6, 4, 2)];
const oneToken = [ssd(3, 1, 4, 3, 4, 2), ssd(2, 1, 2, 5, 7, 1), scan(3, 1, 6, 4, 2), scan(2, 1, 5, 3, 1)];
const published = [
  ...[64, 128, 256].map((dState) => ssd(3, 1, 4, 16, dState, 2)),
  ...[16, 64].map((dState) => scan(3, 1, 96, dState, 1)),
  scan(10, 1, 80, 16, 1),
];

export const narrowStateProperties: readonly Property[] = [
  ...[...small, ...oneToken, ...published].map((of) => rounded(of)),
  ...[ssd(3, 1, 4, 3, 4, 2), ssd(3, 1, 4, 16, 128, 1), scan(3, 1, 6, 16, 2)].map((of) => rounded(of, [1, 0, 1])),
  ...small.flatMap((of) => narrowTypes.map((type) => gradients(of, type))),
];
