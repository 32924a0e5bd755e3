// Layer: WebGPU kernels. Whether products of f32 on a device's matrix units are right, before anybody relies on them: the units are an
// experiment of Dawn's, and each driver's own. Knows the matrix product as a call. Knows no shader.

import type { Backend, Device, View } from "@diffmamba/tensor";
import type { KernelContext } from "../context.js";
import { matmulTuning } from "./matmul.js";

/** The least product that takes the units, with rests along no axis: those follow from sizes, not from a driver. */
const [ROWS, DEPTH, COLUMNS] = [512, 1024, 512];

/** Rows that are compared: of each tile one, of different subgroups. */
const COMPARED = [3, 200, 333, 508];

/** How far a sum may be off, as a share of its products' magnitudes: f32's own order of sums is off by a tenth of that. */
const TOLERANCE = 1e-5;

const numbers = (size: number, step: number): Float32Array =>
  Float32Array.from({ length: size }, (_, i) => ((i * step) % 2003) / 1001.5 - 1);

function transposed(data: Float32Array, height: number, width: number): Float32Array {
  return data.map((_, at) => data[(at % height) * width + Math.floor(at / height)]);
}

/** Whether the compared rows of `got` are `times` the product. */
function agrees(got: ArrayLike<number>, a: Float32Array, b: Float32Array, times: number): boolean {
  return COMPARED.every((i) => {
    for (let j = 0; j < COLUMNS; j++) {
      let [sum, size] = [0, 0];
      for (let k = 0; k < DEPTH; k++) {
        const product = times * a[i * DEPTH + k] * b[k * COLUMNS + j];
        sum += product;
        size += Math.abs(product);
      }
      // Also where it is not a number.
      if (!(Math.abs(got[i * COLUMNS + j] - sum) <= TOLERANCE * size)) return false;
    }
    return true;
  });
}

/**
 * Multiplies on the units, if the device has some for f32, in all layouts of operands, and compares with sums in f64; where they differ,
 * the device uses them no more. @returns whether all is well
 */
export async function checkUnits(device: Device): Promise<boolean> {
  const { context, kernels } = device.backend as Backend & { readonly context: KernelContext };
  if (!context.limits.splitProducts) return true;
  const tuning = matmulTuning(context);
  const [x, y] = [numbers(ROWS * DEPTH, 7919), numbers(DEPTH * COLUMNS, 6007)];
  using byRows = device.from(x, [ROWS * DEPTH]);
  using byColumns = device.from(transposed(x, ROWS, DEPTH), [ROWS * DEPTH]);
  using right = device.from(y, [DEPTH * COLUMNS]);
  using rightByColumns = device.from(transposed(y, DEPTH, COLUMNS), [DEPTH * COLUMNS]);
  using out = device.zeros([1, ROWS, COLUMNS]);
  const matrix = (view: View, height: number, width: number, turned: boolean): View => {
    return { ...view, shape: [1, height, width], strides: turned ? [0, 1, height] : [0, width, 1] };
  };
  const multiply = (turned: boolean, accumulate: boolean): void => {
    const a = matrix((turned ? byColumns : byRows).view(), ROWS, DEPTH, turned);
    const b = matrix((turned ? right : rightByColumns).view(), DEPTH, COLUMNS, !turned);
    kernels.matmul(a, b, out.view(), { accumulate });
  };
  multiply(false, false);
  const once = await out.data();
  multiply(true, true);
  tuning.trustsUnits = agrees(once, x, y, 1) && agrees(await out.data(), x, y, 2);
  return tuning.trustsUnits;
}
