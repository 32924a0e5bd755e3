// Layer: conformance. Properties of single values: ties, saturation, masks, ignored targets, indices out of range, types.
// Knows the ops' calls. Knows no device by name.

import { RandomStream } from "@diffmamba/random";
import {
  type Device,
  dtypes,
  layerNorm,
  randomMask,
  scope,
  softmaxCrossEntropy,
  type Tensor,
  valueAndGrad,
} from "@diffmamba/tensor";
import {
  type Check,
  check,
  checkThrows,
  compareExactly,
  compareValues,
  floatTypes,
  isFloatType,
  statisticsType,
  tolerances,
} from "../compare.js";
import type { Property } from "./property.js";

const exact = ["f64", "f32"] as const;

/** Reads what `compute` returns, freeing all else. */
async function read(compute: () => Tensor): Promise<{ shape: readonly number[]; data: ArrayLike<number> }> {
  using tensor = scope(compute);
  return { shape: tensor.shape, data: await tensor.data() };
}

const ties: Property = {
  name: "argmax and max: the first of equal numbers, and every one of them in the gradient",
  dtypes: floatTypes,
  run: async (device, dtype) => {
    using x = device.from([1, 3, 3, 0, 0, 0, -1, -1, -2, -3, -2, -2], [4, 3], dtype);
    const { value, gradients } = valueAndGrad(() => x.max(-1).sum(), [x]);
    value.dispose();
    return [
      compareExactly("argmax", await read(() => x.argmax()), { shape: [4], data: [1, 0, 0, 1] }),
      compareExactly("gradient of max", await read(() => gradients[0]), {
        shape: [4, 3],
        data: [0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1],
      }),
    ];
  },
};

const saturation: Property = {
  name: "the derivative of a saturated sigmoid is sigma(s) sigma(-s)",
  dtypes: exact,
  run: async (device, dtype) => {
    const sums = [-30, -20, -12, -6, 0, 6, 12, 20, 30];
    using s = device.from(sums, [sums.length], dtype);
    const { value, gradients } = valueAndGrad(() => s.sigmoid().sum(), [s]);
    value.dispose();
    const { data } = await read(() => gradients[0]);
    const sigma = (x: number) => 1 / (1 + Math.exp(-x));
    return sums.map((sum, i) => {
      // As a ratio, because the derivative itself would pass for zero.
      const ratio = { shape: [], data: [data[i] / (sigma(sum) * sigma(-sum))] };
      return compareValues(`at ${sum}, as a ratio`, ratio, { shape: [], data: [1] }, tolerances.saturated);
    });
  },
};

const masks: Property = {
  name: "a random mask holds the words of Philox at or above an integer threshold",
  dtypes: ["u8"],
  run: async (device) => {
    const checks: Check[] = [];
    for (const [step, rate] of [
      [0, 0.1],
      [3, 0.5],
      [2_000_000_000, 0.9],
    ]) {
      using counter = device.tensor(step, "i32");
      const mask = await read(() => randomMask([3, 337], rate, { seed: 11, stream: "layer 3", step: counter }));
      const words = new RandomStream(11, "layer 3").words(new Uint32Array(1011), step);
      const threshold = Math.round((1 - rate) * 2 ** 32);
      const data = Array.from(words, (word) => (word >= threshold ? 1 : 0));
      checks.push(compareExactly(`step ${step}, probability ${rate}`, mask, { shape: [3, 337], data }));
    }
    return checks;
  },
};

const allIgnored: Property = {
  name: "cross-entropy of ignored targets alone is 0, and so is every gradient; of some, theirs are",
  dtypes: floatTypes,
  run: async (device, dtype) => {
    using logits = device.from([1, -2, 3, 0.5, 7, -7], [2, 3], dtype);
    const checks: Check[] = [];
    for (const [name, values, zeroRows] of [
      ["all", [-100, -100], [0, 1]],
      ["one", [2, -100], [1]],
    ] as const) {
      using targets = device.tensor(values, "i32");
      const { value, gradients } = valueAndGrad(() => softmaxCrossEntropy(logits, targets), [logits]);
      const loss = await read(() => value);
      const { data } = await read(() => gradients[0]);
      const zeros = { shape: [3], data: [0, 0, 0] };
      if (name === "all") checks.push(compareExactly("loss", loss, { shape: [], data: [0] }));
      else checks.push(check("loss of the other", loss.data[0] > 0, `${loss.data[0]} is not above 0`));
      for (const row of zeroRows) {
        const own = { shape: [3], data: Array.from(data).slice(3 * row, 3 * row + 3) };
        checks.push(compareExactly(`${name} ignored: gradient of row ${row}`, own, zeros));
      }
    }
    return checks;
  },
};

/** Passes where `compute` throws an error that matches, as the reference does, or gives NaN at `position`, as a device may. */
async function errorOrNaN(name: string, compute: () => Tensor, position: number, message: RegExp): Promise<Check> {
  let found: { data: ArrayLike<number> };
  try {
    found = await read(compute);
  } catch (error) {
    return checkThrows(name, () => Promise.reject(error), message);
  }
  const value = found.data[position];
  return check(name, Number.isNaN(value), `it is ${value}; expected an error that matches ${message}, or NaN`);
}

const outOfRange: Property = {
  name: "an index out of range is an error or NaN, never a number",
  dtypes: floatTypes,
  run: async (device, dtype) => {
    using logits = device.from([1, 2, 3, 4, 5, 6], [2, 3], dtype);
    const entropy = (target: number) => () =>
      softmaxCrossEntropy(logits, device.tensor([1, target], "i32"), { reduction: "none" });
    const row = (at: number) => () => logits.gather(device.tensor([1, at], "i32"));
    return [
      await errorOrNaN("target 3 of 3 classes", entropy(3), 1, /target 3/),
      await errorOrNaN("target -1", entropy(-1), 1, /target -1/),
      await errorOrNaN("row 2 of 2", row(2), 3, /index 2/),
      await errorOrNaN("row -1", row(-1), 3, /index -1/),
    ];
  },
};

const normalized: Property = {
  name: "layerNorm gives mean 0 and variance 1, whatever the shift",
  dtypes: exact,
  run: async (device, dtype) => {
    const values = new RandomStream(1, "normalized").uniform(new Float64Array(4 * 64), -1, 1);
    using x = device.from(values, [4, 64], dtype);
    using ones = device.ones([64], dtype);
    const limit = tolerances.equal[dtype === "f64" ? "f64" : "f32"].forward;
    const y = await read(() => layerNorm(x, ones, { eps: 0 }));
    const shifted = await read(() => layerNorm(x.add(4), ones, { eps: 0 }));
    const rows = [0, 1, 2, 3].map((row) => Array.from(y.data).slice(64 * row, 64 * (row + 1)));
    const mean = (list: readonly number[]) => list.reduce((sum, v) => sum + v, 0) / list.length;
    const ofEach = (f: (row: readonly number[]) => number) => ({ shape: [4], data: rows.map(f) });
    return [
      compareValues(
        "mean + 1",
        ofEach((row) => mean(row) + 1),
        { shape: [4], data: [1, 1, 1, 1] },
        limit,
      ),
      compareValues(
        "variance",
        ofEach((row) => mean(row.map((v) => v * v))),
        { shape: [4], data: [1, 1, 1, 1] },
        limit,
      ),
      compareValues("shifted", shifted, y, limit),
    ];
  },
};

const missingTypes: Property = {
  name: "element types that the device lacks are refused by name",
  dtypes: ["i32"],
  run: async (device) => {
    const checks: Check[] = [];
    for (const dtype of dtypes) {
      if (!device.backend.dtypes.has(dtype)) {
        checks.push(await checkThrows(dtype, () => device.empty([1], dtype), new RegExp(`${device.name}.*${dtype}`)));
        continue;
      }
      using one = device.ones([1], dtype);
      checks.push(compareExactly(dtype, await read(() => one.alias()), { shape: [1], data: [1] }));
    }
    return checks;
  },
};

const stateTypes: Property = {
  name: "losses are kept in f32, or in f64 with f64",
  dtypes: floatTypes,
  run: async (device: Device, dtype) => {
    using logits = device.zeros([2, 3], dtype);
    using targets = device.zeros([2], "i32");
    using loss = scope(() => softmaxCrossEntropy(logits, targets));
    const wanted = statisticsType(dtype);
    const value = { shape: [], data: [await loss.item()] };
    const limit = isFloatType(dtype) ? tolerances.oracle[dtype === "f64" ? "f64" : "f32"].forward : 0;
    return [
      check("type", loss.dtype === wanted, `it is ${loss.dtype}, expected ${wanted}`),
      compareValues("log 3", value, { shape: [], data: [Math.log(3)] }, limit),
    ];
  },
};

export const valueProperties: readonly Property[] = [
  ties,
  saturation,
  masks,
  allIgnored,
  outOfRange,
  normalized,
  missingTypes,
  stateTypes,
];
