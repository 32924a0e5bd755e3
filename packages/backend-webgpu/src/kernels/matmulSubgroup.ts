// Layer: WebGPU kernels. The product of matrices of f16 on a GPU's matrix units, summed in f32, where a device offers subgroup matrices
// (chromium_experimental_subgroup_matrix): which products it takes, and the text of its shader.
// Knows the kernel context and the shader dialect. Knows no device.

import type { View } from "@diffmamba/tensor";
import type { KernelContext, ShaderText } from "../context.js";
import type { OperandLayout } from "./matmulTile.js";

/** Rows and columns that a subgroup computes, and a workgroup of two by two of them. */
const PART = 64;
const TILE = 2 * PART;
const THREADS = 128;

/** Rows of a matrix of the unit, and its products along k. */
const ROWS = 16;
const DEPTH = 16;

/** An operand as {@link subgroupProduct} sees it; all in elements. */
export interface MatrixOperand {
  readonly view: View;
  readonly contiguous: OperandLayout["contiguous"];
  readonly pitch: number;
  readonly batchStride: number;
}

export interface SubgroupProduct {
  readonly a: MatrixOperand;
  readonly b: MatrixOperand;
  /** (batch, rows, columns) f32. */
  readonly out: View;
  readonly depth: number;
  readonly accumulate: boolean;
}

/** Whether an operand's rows begin at multiples of 16 bytes, as the units read them. */
function isAligned({ view, pitch, batchStride }: MatrixOperand): boolean {
  return (view.offset | pitch | batchStride) % 8 === 0 && pitch > 0;
}

/** Whether the device's units take a product. */
export function takesSubgroups({ limits }: KernelContext, { a, b, out, depth }: SubgroupProduct): boolean {
  const [, rows, columns] = out.shape;
  return (
    limits.subgroupMatrices &&
    a.view.dtype === "f16" &&
    b.view.dtype === "f16" &&
    out.dtype === "f32" &&
    rows % ROWS === 0 &&
    columns % 8 === 0 &&
    depth % DEPTH === 0 &&
    isAligned(a) &&
    isAligned(b) &&
    (out.offset | out.strides[1] | out.strides[0]) % 4 === 0
  );
}

const count = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** @param across columns of a matrix of the unit: 16, or 8 */
function text({ a, b, accumulate }: Pick<SubgroupProduct, "a" | "b" | "accumulate">, across: 8 | 16): ShaderText {
  const [down, wide] = [count(PART / ROWS), count(PART / across)];
  const pairs = down.flatMap((i) => wide.map((j) => [i, j] as const));
  const left = `subgroup_matrix_left<f16, ${DEPTH}, ${ROWS}>`;
  const right = `subgroup_matrix_right<f16, ${across}, ${DEPTH}>`;
  const result = `subgroup_matrix_result<f32, ${across}, ${ROWS}>`;
  const order = (isRows: boolean): string => (isRows ? "row_major" : "col_major");
  const [aRows, bRows] = [a.contiguous === "inner", b.contiguous === "outer"];
  const place = (i: number, j: number): string => `out_base + row${i} * u.out_pitch + column${j}`;
  const code = `
#include grid
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let id = linear_group(group, groups);
  let tiles = u.tiles_m * u.tiles_n;
  let batch = id / tiles;
  if (batch >= u.batch) { return; }
  let tile = id - batch * tiles;
  // Tiles go down a band of eight rows before they go on to the next columns.
  let first = tile / (8u * u.tiles_n) * 8u;
  let height = min(u.tiles_m - first, 8u);
  let in_band = tile % (8u * u.tiles_n);
  let warp = lane / 32u;
  let top = (first + in_band % height) * ${TILE}u + warp % 2u * ${PART}u;
  let start = in_band / height * ${TILE}u + warp / 2u * ${PART}u;
  let a_base = u.a_at + batch * u.a_batch;
  let b_base = u.b_at + batch * u.b_batch;
  let out_base = u.out_at + batch * u.out_batch;
  // What lies beyond the product is read as its last matrix, and not written.
  ${down.map((i) => `let row${i} = min(top + ${i * ROWS}u, u.rows - ${ROWS}u);`).join("\n  ")}
  ${wide.map((j) => `let column${j} = min(start + ${j * across}u, u.columns - ${across}u);`).join("\n  ")}
  ${pairs
    .map(([i, j]) =>
      accumulate
        ? `var sum${i}_${j} = subgroupMatrixLoad<${result}, row_major>(&$out, ${place(i, j)}, u.out_pitch);`
        : `var sum${i}_${j}: ${result};`,
    )
    .join("\n  ")}
  for (var k = 0u; k < u.depth; k += ${DEPTH}u) {
    ${down
      .map((i) => {
        const at = aRows ? `row${i} * u.a_pitch + k` : `k * u.a_pitch + row${i}`;
        return `let a${i} = subgroupMatrixLoad<${left}, ${order(aRows)}>(&$a, a_base + ${at}, u.a_pitch);`;
      })
      .join("\n    ")}
    ${wide
      .map((j) => {
        const at = bRows ? `k * u.b_pitch + column${j}` : `column${j} * u.b_pitch + k`;
        return `let b${j} = subgroupMatrixLoad<${right}, ${order(bRows)}>(&$b, b_base + ${at}, u.b_pitch);`;
      })
      .join("\n    ")}
    ${pairs.map(([i, j]) => `sum${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b${j}, sum${i}_${j});`).join("\n    ")}
  }
  ${pairs
    .map(
      ([i, j]) =>
        `if (top + ${i * ROWS}u < u.rows && start + ${j * across}u < u.columns) { subgroupMatrixStore<row_major>(&$out, ${place(i, j)}, sum${i}_${j}, u.out_pitch); }`,
    )
    .join("\n  ")}
}
`;
  const name = `matmul-subgroup-${aRows ? "k" : "n"}${bRows ? "n" : "k"}-${across}${accumulate ? "-add" : ""}`;
  return { name, text: code };
}

const texts = new Map<string, ShaderText>();

/** out (+)= a x b, of a product that {@link takesSubgroups}. */
export function subgroupProduct(context: KernelContext, product: SubgroupProduct): void {
  const { a, b, out, depth } = product;
  const [batch, rows, columns] = out.shape;
  const [down, across] = [Math.ceil(rows / TILE), Math.ceil(columns / TILE)];
  const wide = columns % 16 === 0 ? 16 : 8;
  const key = `${a.contiguous} ${b.contiguous} ${wide} ${product.accumulate}`;
  let shader = texts.get(key);
  if (shader === undefined) {
    shader = text(product, wide);
    texts.set(key, shader);
  }
  context.run({
    shader,
    buffers: { a: { view: a.view, f16: true }, b: { view: b.view, f16: true }, out },
    writes: ["out"],
    uniforms: {
      ...{ batch, rows, columns, depth, tiles_m: down, tiles_n: across },
      ...{ a_pitch: a.pitch, a_batch: a.batchStride, b_pitch: b.pitch, b_batch: b.batchStride },
      ...{ out_pitch: out.strides[1], out_batch: batch > 1 ? out.strides[0] : 0 },
    },
    groups: batch * down * across,
  });
}
