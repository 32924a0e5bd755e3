// Layer: WebGPU kernels. The text of the split product's shader: f32 matrices as pairs of f16 ones, high + low, multiplied on matrix units
// (chromium_experimental_subgroup_matrix) as high x high + high x low + low x high.
// Knows blocks of halves, workgroup memory and the shader dialect. Knows no view, no sizes and no device.

import type { ShaderText } from "../context.js";

/** Rows, columns and products along k of a matrix of the units. */
export const BLOCK = 16;

/** f16 of a block: the high halves of its elements, a line of 16 along k after another, and then the low ones. */
export const BLOCK_HALVES = 2 * BLOCK * BLOCK;

/** Subgroups of a workgroup, and blocks that each computes. */
const WARPS = { down: 2, across: 4 } as const;
const PART = { down: 4, across: 2 } as const;
const SUBGROUPS = WARPS.down * WARPS.across;

/** Threads of a workgroup, and rows and columns of its tile. */
export const THREADS = 32 * SUBGROUPS;
export const TILE = WARPS.down * PART.down * BLOCK;

/** Blocks of each operand that a tile takes at a step along k. */
const BLOCKS = TILE / BLOCK;

/** f16 from one line of a block to the next in workgroup memory, 16 high ones and 16 low ones: eight lines begin in different banks. */
const PITCH = 40;

/** f16 of a step in workgroup memory. */
const STAGE = 2 * BLOCKS * BLOCK * PITCH;

/** Vectors of eight f16 in a block, and those of an operand that a thread fetches for a step. */
const VECTORS = BLOCK_HALVES / 8;
const FETCHED = (BLOCKS * VECTORS) / THREADS;

/**
 * Steps of 16 along k that the units sum by themselves. They cut off the last bits of a sum, where f32 rounds: over 256 products that
 * is no more than what f32 loses, over thousands much more. From there on sums are f32's.
 */
const STEPS = 16;

/** Elements of a block's sum that each thread of a subgroup takes over. */
const VALUES = (BLOCK * BLOCK) / 32;

/** Bytes of workgroup memory: a step that is multiplied and one that is fetched, and a block of each subgroup's sums. */
export const SPLIT_BYTES = 2 * 2 * STAGE + 4 * SUBGROUPS * BLOCK * BLOCK;

const count = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const [down, across] = [count(PART.down), count(PART.across)];
const pairs = down.flatMap((i) => across.map((j) => ({ i, j, name: `${i}_${j}` })));
const halves = ["high", "low"] as const;

const left = "subgroup_matrix_left<f16, 16, 16>";
const right = "subgroup_matrix_right<f16, 16, 16>";
const result = "subgroup_matrix_result<f32, 16, 16>";

/** Each vector that a thread fetches of an operand. */
const fetched = (["a", "b"] as const).flatMap((name, side) =>
  count(FETCHED).map((n) => ({ name, side, n, vector: `${name}_vector${n}` })),
);

const places = fetched.map(({ name, n }) => {
  const block = `min(tile_${name} + (lane + ${n * THREADS}u) / ${VECTORS}u, u.${name}_last)`;
  return `let ${name}_from${n} = u.${name}_at + (batch * u.${name}_batch + ${block}) * u.steps * ${VECTORS}u + lane % ${VECTORS}u;`;
});

const fetch = fetched.map(({ name, n, vector }) => `${vector} = $${name}[${name}_from${n} + step * ${VECTORS}u];`);

/** A vector of high halves goes to its line's beginning, one of low ones behind them. */
const stage = fetched.flatMap(({ side, n, vector }) => {
  const block = `${side * BLOCKS}u + (lane + ${n * THREADS}u) / ${VECTORS}u`;
  const words = [..."xyzw"].flatMap((word, w) => [
    `let pair${w} = bitcast<vec2<f16>>(${vector}.${word});`,
    ...["x", "y"].map((half, h) => `staged[at + ${2 * w + h}u] = pair${w}.${half};`),
  ]);
  return ["{", `let at = to + (${block}) * ${BLOCK * PITCH}u + line;`, ...words, "}"];
});

/** The blocks of a step, of which a line follows k: rows of the left matrix, columns of the right one. */
function read(name: "a" | "b", blocks: readonly number[]): string[] {
  const [type, order] = name === "a" ? [left, "row_major"] : [right, "col_major"];
  return blocks.flatMap((i) =>
    halves.map((half, h) => {
      const at = `held + (${name}_block + ${i}u) * ${BLOCK * PITCH}u + ${h * BLOCK}u`;
      return `let ${name}${i}_${half} = subgroupMatrixLoad<${type}, ${order}>(&staged, ${at}, ${PITCH}u);`;
    }),
  );
}

const products = [
  ["low", "high"],
  ["high", "low"],
  ["high", "high"],
].flatMap(([a, b]) =>
  pairs.map(({ i, j, name }) => `part${name} = subgroupMatrixMultiplyAccumulate(a${i}_${a}, b${j}_${b}, part${name});`),
);

/** The units' sums go to the subgroup's threads, by way of workgroup memory, and begin again. */
const flush = pairs.flatMap(({ name }) => [
  `subgroupMatrixStore<row_major>(&passed, warp * ${BLOCK * BLOCK}u, part${name}, ${BLOCK}u);`,
  `part${name} = ${result}();`,
  "workgroupBarrier();",
  ...count(VALUES / 4).map((q) => {
    const values = count(4).map((e) => `passed[place + ${32 * (4 * q + e)}u]`);
    return `sum${name}_${q} += vec4f(${values.join(", ")});`;
  }),
  "workgroupBarrier();",
]);

const write = pairs.flatMap(({ i, j, name }) =>
  count(VALUES).map(
    (v) =>
      `put(row + ${i * BLOCK + 2 * v}u, column + ${j * BLOCK}u, base, sum${name}_${v >> 2}[${v % 4}] * scale * other);`,
  ),
);

const lines = (list: readonly string[], indent: string): string => list.join(`\n${indent}`);

const text = `
#include grid
var<workgroup> staged: array<f16, ${2 * STAGE}>;
var<workgroup> passed: array<f32, ${SUBGROUPS * BLOCK * BLOCK}>;

fn put(row: u32, column: u32, base: u32, sum: f32) {
  if (row >= u.rows || column >= u.columns) { return; }
  let at = base + row * u.out_pitch + column;
  if (u.accumulate == 0u) { $out[at] = sum; } else { $out[at] += sum; }
}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let id = linear_group(group, groups);
  let tiles = u.tiles_m * u.tiles_n;
  let slice = id / tiles;
  if (slice >= u.slices) { return; }
  let batch = slice / u.splits;
  let tile = id - slice * tiles;
  // Tiles go down a band of eight before they go on to the next columns.
  let first = tile / (8u * u.tiles_n) * 8u;
  let height = min(u.tiles_m - first, 8u);
  let in_band = tile % (8u * u.tiles_n);
  // In blocks. What lies beyond the product is read as its last block, and not written.
  let tile_a = (first + in_band % height) * ${BLOCKS}u;
  let tile_b = in_band / height * ${BLOCKS}u;
  ${lines(places, "  ")}
  let line = lane % ${VECTORS / 2}u / 2u * ${PITCH}u + lane % ${VECTORS}u / ${VECTORS / 2}u * ${BLOCK}u + lane % 2u * 8u;
  let warp = lane / 32u;
  let thread = lane % 32u;
  let place = warp * ${BLOCK * BLOCK}u + thread;
  let a_block = warp % ${WARPS.down}u * ${PART.down}u;
  let b_block = ${BLOCKS}u + warp / ${WARPS.down}u * ${PART.across}u;
  ${lines(
    fetched.map(({ vector }) => `var ${vector}: vec4u;`),
    "  ",
  )}
  ${lines(
    pairs.flatMap(({ name }) => [
      `var part${name}: ${result};`,
      ...count(VALUES / 4).map((q) => `var sum${name}_${q} = vec4f();`),
    ]),
    "  ",
  )}
  let begin = slice % u.splits * u.chunk;
  let end = min(begin + u.chunk, u.steps);
  var step = begin;
  var to = 0u;
  ${lines([...fetch, ...stage], "  ")}
  workgroupBarrier();
  for (var k = begin; k < end; k++) {
    let held = to;
    to = ${STAGE}u - to;
    step = min(k + 1u, end - 1u);
    ${lines([...fetch, ...read("a", down), ...read("b", across), ...products, ...stage], "    ")}
    workgroupBarrier();
    if ((k - begin) % ${STEPS}u == ${STEPS - 1}u || k + 1u == end) {
      ${lines(flush, "      ")}
    }
  }
  // 1 / (both scales), in two factors of which neither is too large or too small.
  let exponent = $a_exponent[u.a_exponent_at] + $b_exponent[u.b_exponent_at] - 282;
  let scale = bitcast<f32>((127 + exponent / 2) << 23u);
  let other = bitcast<f32>((127 + exponent - exponent / 2) << 23u);
  let row = (tile_a + a_block) * ${BLOCK}u + thread / ${BLOCK}u;
  let column = (tile_b + b_block - ${BLOCKS}u) * ${BLOCK}u + thread % ${BLOCK}u;
  let base = u.out_at + slice * u.out_slice;
  ${lines(write, "  ")}
}
`;

/** The same for all layouts, as blocks are. */
export const splitShader: ShaderText = { name: "matmul-split", text };
