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
 * is about what f32 loses, over thousands much more. From there on sums are f32's.
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
  count(FETCHED).map((n) => ({ name, side, n, vector: `${name}_vector${n}`, thread: `(lane + ${n * THREADS}u)` })),
);

/** What lies beyond the product is read as its last block. */
const lineOf = fetched.map(
  ({ name, n, thread }) =>
    `let ${name}_line${n} = (batch * u.${name}_batch + min(tile_${name} * ${BLOCKS}u + ${thread} / ${VECTORS}u, u.${name}_last)) * u.steps;`,
);

const fetch = (step: string): string[] =>
  fetched.map(
    ({ name, n, vector, thread }) =>
      `${vector} = $${name}[u.${name}_at + (${name}_line${n} + ${step}) * ${VECTORS}u + ${thread} % ${VECTORS}u];`,
  );

/**
 * A vector of high halves goes to its line's beginning, one of low ones behind them. Places are written so that compilers see that they
 * lie within the memory: what they do not see they check, for each f16 by itself.
 */
const stage = (to: string): string[] =>
  fetched.map(({ side, vector, thread }) => {
    const words = [..."xyzw"].flatMap((word, w) => [
      `let pair${w} = bitcast<vec2<f16>>(${vector}.${word});`,
      ...["x", "y"].map((half, h) => `staged[at + ${2 * w + h}u] = pair${w}.${half};`),
    ]);
    const place = `place % ${VECTORS / 2}u / 2u * ${PITCH}u + place / ${VECTORS / 2}u * ${BLOCK}u + place % 2u * 8u`;
    const block = `(${thread} / ${VECTORS}u + ${side * BLOCKS}u) * ${BLOCK * PITCH}u`;
    return `{ let place = ${thread} % ${VECTORS}u; let at = ${to} + ${block} + ${place}; ${words.join(" ")} }`;
  });

/** The blocks of a step, of which a line follows k: rows of the left matrix, columns of the right one. */
function read(name: "a" | "b", blocks: readonly number[]): string[] {
  const [type, order, first] =
    name === "a"
      ? [left, "row_major", `warp_row * ${PART.down}u`]
      : [right, "col_major", `${BLOCKS}u + warp_column * ${PART.across}u`];
  return blocks.flatMap((i) =>
    halves.map((half, h) => {
      const at = `held + (${first} + ${i}u) * ${BLOCK * PITCH}u + ${h * BLOCK}u`;
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
const flush = pairs.flatMap(({ name }, n) => [
  `subgroupMatrixStore<row_major>(&passed, warp * ${BLOCK * BLOCK}u, part${name}, ${BLOCK}u);`,
  `part${name} = ${result}();`,
  "workgroupBarrier();",
  ...count(VALUES / 4).map((q) => {
    const values = count(4).map((e) => `passed[warp * ${BLOCK * BLOCK}u + thread + ${32 * (4 * q + e)}u]`);
    return `sum${name}_${q} += vec4f(${values.join(", ")});`;
  }),
  ...(n + 1 < pairs.length ? ["workgroupBarrier();"] : []),
]);

const write = (accumulate: boolean): string[] =>
  pairs.flatMap(({ i, j, name }) =>
    count(VALUES).map((v) => {
      const [x, y] = [`row + ${i * BLOCK + 2 * v}u`, `column + ${j * BLOCK}u`];
      const to = `$out[base + (${x}) * u.out_pitch + ${y}]`;
      const sum = `sum${name}_${v >> 2}[${v % 4}] * scale * other`;
      return `if (${x} < rows && ${y} < u.columns) { ${to} ${accumulate ? "+=" : "="} ${sum}; }`;
    }),
  );

const lines = (list: readonly string[], indent: string): string => list.join(`\n${indent}`);

const text = (accumulate: boolean): string => `
#include grid
var<workgroup> staged: array<f16, ${2 * STAGE}>;
var<workgroup> passed: array<f32, ${SUBGROUPS * BLOCK * BLOCK}>;

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let warp = lane / 32u;
  let thread = lane % 32u;
  let warp_row = warp % ${WARPS.down}u;
  let warp_column = warp / ${WARPS.down}u;
  // Workgroups that are too many do as the last one does, so that all meet at the barriers, and write nothing.
  let number = linear_group(group, groups);
  let tiles = u.tiles_m * u.tiles_n;
  let id = min(number, tiles * u.slices - 1u);
  let rows = select(u.rows, 0u, number > id);
  let slice = id / tiles;
  let batch = slice / u.splits;
  let tile = id - slice * tiles;
  // Tiles go down a band of eight before they go on to the next columns.
  let first = tile / (8u * u.tiles_n) * 8u;
  let height = min(u.tiles_m - first, 8u);
  let in_band = tile % (8u * u.tiles_n);
  let tile_a = first + in_band % height;
  let tile_b = in_band / height;
  // 1 / (both scales), in two factors of which neither is too large or too small.
  let exponent = $a_exponent[u.a_exponent_at] + $b_exponent[u.b_exponent_at] - 282;
  let scale = bitcast<f32>(u32(127 + exponent / 2) << 23u);
  let other = bitcast<f32>(u32(127 + exponent - exponent / 2) << 23u);
  let begin = slice % u.splits * u.chunk;
  let end = min(begin + u.chunk, u.steps);
  ${lines(lineOf, "  ")}
  ${lines(
    pairs.map(({ name }) => `var part${name}: ${result};`),
    "  ",
  )}
  ${lines(
    pairs.map(({ name }) =>
      count(VALUES / 4)
        .map((q) => `var sum${name}_${q} = vec4f();`)
        .join(" "),
    ),
    "  ",
  )}
  ${lines(
    fetched.map(({ vector }) => `var ${vector}: vec4u;`),
    "  ",
  )}
  ${lines(fetch("begin"), "  ")}
  ${lines(stage(`begin % 2u * ${STAGE}u`), "  ")}
  workgroupBarrier();
  for (var step = begin; step < end; step++) {
    let next = min(step + 1u, end - 1u);
    let held = step % 2u * ${STAGE}u;
    let to = ${STAGE}u - held;
    ${lines(fetch("next"), "    ")}
    ${lines([...read("a", down), ...read("b", across)], "    ")}
    ${lines(products, "    ")}
    ${lines(stage("to"), "    ")}
    workgroupBarrier();
    if (step % ${STEPS}u == ${STEPS - 1}u || step + 1u == end) {
      ${lines(flush, "      ")}
    }
  }
  let row = tile_a * ${TILE}u + warp_row * ${PART.down * BLOCK}u + thread / ${BLOCK}u;
  let column = tile_b * ${TILE}u + warp_column * ${PART.across * BLOCK}u + thread % ${BLOCK}u;
  let base = u.out_at + slice * u.out_slice;
  ${lines(write(accumulate), "  ")}
}
`;

/** The same for all layouts, as blocks are: one that writes, and one that adds. */
export const splitShaders: Readonly<Record<"write" | "add", ShaderText>> = {
  write: { name: "matmul-split", text: text(false) },
  add: { name: "matmul-split-add", text: text(true) },
};
