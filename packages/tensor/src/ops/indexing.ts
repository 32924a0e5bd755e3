// Lookups by index: rows of a table, and the sum that is their gradient.
// Knows shapes and gradients. Knows no loop.

import { formatShape, ShapeError } from "../errors.js";
import { allTypes, floats, needsFloat, needsI32, type OpSpec, sameDevice } from "../op.js";
import { record } from "../tape.js";
import type { Tensor } from "../tensor.js";
import { contiguousCopy } from "./copy.js";

/** An index of any shape as a contiguous vector. */
function asVector(index: Tensor): Tensor {
  if (!index.isContiguous()) return asVector(contiguousCopy(index));
  return index.withLayout({ shape: [index.size], strides: [1], offset: index.offset });
}

/**
 * Rows of a table: table (V, D), index i32 of any shape S -> (S, D).
 * @throws ShapeError, DTypeError; an index outside [0, V) is a ValueError on the reference, NaN rows on a device
 */
export function gather(table: Tensor, index: Tensor): Tensor {
  sameDevice("gather", table, index);
  needsI32("gather", index, "the index");
  if (table.rank !== 2)
    throw new ShapeError(`gather: the table is ${formatShape(table.shape)}; it must be (rows, columns).`);
  const [rows, columns] = table.shape;
  const out = table.device.empty([...index.shape, columns], table.dtype);
  const flat = asVector(index);
  if (out.size > 0) {
    const whole = table.isContiguous() ? table : contiguousCopy(table);
    const view = { ...out.view(), shape: [index.size, columns], strides: [columns, 1] };
    table.device.backend.kernels.gather(whole.view(), flat.view(), view);
  }
  record({
    name: "gather",
    inputs: [table],
    outputs: [out],
    save: [flat],
    backward: ([dy], [at]) => [dy && scatterAdd(rows, at, dy.reshape(at.size, columns))],
  });
  flat.dispose();
  return out;
}

/** Sums rows into a table: index (R,) i32, source (R, D) -> (rows, D), zero where no index points. The order is fixed. */
export function scatterAdd(rows: number, index: Tensor, source: Tensor): Tensor {
  sameDevice("scatterAdd", index, source);
  needsI32("scatterAdd", index, "the index");
  needsFloat("scatterAdd", source);
  if (source.rank !== 2 || index.size !== source.dim(0)) {
    throw new ShapeError(
      `scatterAdd: index ${formatShape(index.shape)} and source ${formatShape(source.shape)}; they must be (R,) and (R, D).`,
    );
  }
  const out = source.device.empty([rows, source.dim(1)], source.dtype);
  const whole = source.isContiguous() ? source : contiguousCopy(source);
  const flat = asVector(index);
  if (out.size > 0) source.device.backend.kernels.scatterAdd(flat.view(), whole.view(), out.view());
  if (whole !== source) whole.dispose();
  record({
    name: "scatterAdd",
    inputs: [source],
    outputs: [out],
    save: [flat],
    backward: ([dy], [at]) => [dy && gather(dy, at)],
  });
  flat.dispose();
  return out;
}

export const specs: readonly OpSpec[] = [
  { name: "gather", kind: "primitive", dtypes: allTypes, accumulates: "none", gradients: ["table"], saves: "index" },
  { name: "scatterAdd", kind: "primitive", dtypes: floats, accumulates: "f32", gradients: ["source"], saves: "index" },
];
