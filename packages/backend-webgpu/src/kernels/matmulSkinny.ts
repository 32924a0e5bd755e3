// Layer: WebGPU kernels. Writes the text of matrix products with few rows or few columns (at most 8): bound by reading
// the wide operand once, from memory to registers, in whole segments.
// Knows threads, workgroup memory and the shader dialect. Knows no shapes and no device.

import type { DType } from "@diffmamba/tensor";

/** Threads of a workgroup. */
export const skinnyThreads = 256;

/** How the wide operand is bound, and with it how many elements a read brings: 4 (f32), 8 (halves) or 1. */
export type WideElement = "f32x4" | "f32" | "bf16x8" | "f16x8";

export const elementsPerRead: Readonly<Record<WideElement, number>> = { f32x4: 4, f32: 1, bf16x8: 8, f16x8: 8 };

/** How elements of `dtype` are read when all pitches and offsets allow whole vectors. */
export function wideElement(dtype: DType, vec: boolean): WideElement {
  if (dtype === "bf16") return "bf16x8";
  if (dtype === "f16") return "f16x8";
  return vec ? "f32x4" : "f32";
}

export interface DotForm {
  /** Rows of the operand with few rows; at most 8. */
  readonly few: number;
  readonly element: WideElement;
  /** The operand with few rows is contiguous along k and bound as vec4s. */
  readonly fewVec: boolean;
  /** Threads that share one row of the wide operand; a power of two, 4 to 256. */
  readonly team: number;
  /** Rows of the wide operand that a team takes at once; `few` x `rows` is at most 8. */
  readonly rows: number;
  readonly accumulate: boolean;
  /** Reads one after the other: slower, but soon compiled. */
  readonly rolled: boolean;
}

export interface ColumnsForm {
  readonly few: number;
  readonly element: "f32x4" | "f32";
  /** Threads side by side along the contiguous axis; the others of the workgroup share k. */
  readonly across: number;
  readonly accumulate: boolean;
  readonly rolled: boolean;
}

const count = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** Which part of which product a workgroup computes; shared by both kernels. */
const place = `
  let id = linear_group(group, groups);
  let slice = id / u.groups_each;
  if (slice >= u.slices) { return; }
  let batch = slice / u.splits;
  let begin = (slice % u.splits) * u.chunk;
  let end = min(begin + u.chunk, u.depth);
  let few_base = u.few_at + batch * u.few_batch;
  let wide_base = u.wide_at + batch * u.wide_batch;
  let out_base = u.out_at + slice * u.out_slice;`;

const signature =
  "fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32)";

const write = (at: string, value: string, accumulate: boolean): string =>
  `$out[${at}] = ${accumulate ? `$out[${at}] + ` : ""}${value};`;

/** One read of the wide operand as the vectors that are multiplied, and the places of k that each holds. */
function wideVectors(element: WideElement, name: string, read: string): { lines: string[]; parts: string[] } {
  switch (element) {
    case "f32":
    case "f32x4":
      return { lines: [`let ${name} = ${read};`], parts: [name] };
    case "bf16x8":
      return {
        lines: [
          `let ${name}_words = ${read};`,
          `let ${name}_even = bitcast<vec4f>(${name}_words << vec4u(16u));`,
          `let ${name}_odd = bitcast<vec4f>(${name}_words & vec4u(0xffff0000u));`,
        ],
        parts: [`${name}_even`, `${name}_odd`],
      };
    case "f16x8": {
      const pair = (i: number): string => `let ${name}_${i} = unpack2x16float(${name}_words[${i}]);`;
      const gather = (part: string): string => `vec4f(${count(4).map((i) => `${name}_${i}.${part}`)})`;
      return {
        lines: [
          `let ${name}_words = ${read};`,
          ...count(4).map(pair),
          `let ${name}_even = ${gather("x")};`,
          `let ${name}_odd = ${gather("y")};`,
        ],
        parts: [`${name}_even`, `${name}_odd`],
      };
    }
  }
}

/** The elements of a row of the few that meet one read of the wide operand, in its order. */
function fewVectors({ element, fewVec }: DotForm, row: number, k: string): { lines: string[]; parts: string[] } {
  const name = `x${row}`;
  const at = (i: number): string => `$few[few_base + ${row}u * u.few_outer + (${k} + ${i}u) * u.few_inner]`;
  if (element === "f32") return { lines: [`let ${name} = ${at(0)};`], parts: [name] };
  const vector = (i: number): string =>
    fewVec
      ? `$few[few_base + ${row}u * u.few_outer + ${k} / 4u + ${i}u]`
      : `vec4f(${count(4).map((j) => at(4 * i + j))})`;
  if (element === "f32x4") return { lines: [`let ${name} = ${vector(0)};`], parts: [name] };
  return {
    lines: [
      `let ${name}_low = ${vector(0)};`,
      `let ${name}_high = ${vector(1)};`,
      `let ${name}_even = vec4f(${name}_low.xz, ${name}_high.xz);`,
      `let ${name}_odd = vec4f(${name}_low.yw, ${name}_high.yw);`,
    ],
    parts: [`${name}_even`, `${name}_odd`],
  };
}

/**
 * out[f][w] = sum_k few[f][k] wide[w][k], where k is contiguous in `wide`: a team of threads walks along its rows and
 * adds up in workgroup memory. Uniforms: wide (rows), depth, slices (batch x splits), splits, chunk, groups_each
 * (workgroups a slice), few_outer, few_inner, few_batch, wide_pitch, wide_batch, out_few, out_wide, out_slice; those of
 * an operand in units of its binding, but for the few where it is not bound as vec4s.
 */
export function dotShader(form: DotForm): { readonly name: string; readonly text: string } {
  const { few, element, fewVec, team, rows, accumulate, rolled } = form;
  const unit = elementsPerRead[element];
  const teams = skinnyThreads / team;
  const values = few * rows;
  const vector = element === "f32" ? "f32" : "vec4f";
  const pairs = count(few).flatMap((f) => count(rows).map((r) => [f, r] as const));
  const steps = (at: string, tag: string): string[] => {
    const wide = count(rows).map((r) => wideVectors(element, `w${tag}${r}`, `$wide[row${r} + (${at}) / ${unit}u]`));
    const xs = count(few).map((f) => fewVectors(form, f, `(${at})`));
    return [
      ...wide.flatMap(({ lines }) => lines),
      ...xs.flatMap(({ lines }) => lines),
      ...pairs.flatMap(([f, r]) =>
        wide[r].parts.map((part, i) => `sum${f}_${r} = fma(${part}, ${xs[f].parts[i]}, sum${f}_${r});`),
      ),
    ];
  };
  // Enough reads in flight in a thread to cover the way to memory.
  const together = rolled ? 1 : Math.max(1, Math.floor(4 / rows));
  const whole = (name: string): string =>
    vector === "f32" ? name : `(${name}.x + ${name}.y) + (${name}.z + ${name}.w)`;
  const segments = Math.max(1, team / 32);
  const stride = team + 1;
  const text = `
#include grid
var<workgroup> sums: array<f32, ${teams * values * stride}>;
${segments > 1 ? `var<workgroup> segments: array<f32, ${teams * values * segments}>;` : ""}

@compute @workgroup_size(${skinnyThreads})
${signature} {
  ${place}
  let member = lane % ${team}u;
  let first = (id % u.groups_each) * ${teams * rows}u + lane / ${team}u * ${rows}u;
  ${count(rows)
    .map((r) => `let row${r} = wide_base + min(first + ${r}u, u.wide - 1u) * u.wide_pitch;`)
    .join("\n  ")}
  ${pairs.map(([f, r]) => `var sum${f}_${r}: ${vector};`).join("\n  ")}
  var k = begin + ${unit}u * member;
  ${
    together > 1
      ? `for (; k + ${(together - 1) * unit * team}u < end; k += ${together * unit * team}u) {
    ${count(together)
      .flatMap((i) => ["{", ...steps(`k + ${i * unit * team}u`, `${i}_`), "}"])
      .join("\n    ")}
  }`
      : ""
  }
  for (; k < end; k += ${unit * team}u) {
    ${steps("k", "").join("\n    ")}
  }
  let own = lane / ${team}u * ${values * stride}u + member;
  ${pairs.map(([f, r], i) => `sums[own + ${i * stride}u] = ${whole(`sum${f}_${r}`)};`).join("\n  ")}
  workgroupBarrier();
  ${
    segments > 1
      ? `if (lane < ${teams * values * segments}u) {
    var sum = 0.0;
    let start = lane / ${segments}u * ${stride}u + lane % ${segments}u * 32u;
    for (var i = 0u; i < 32u; i++) { sum += sums[start + i]; }
    segments[lane] = sum;
  }
  workgroupBarrier();`
      : ""
  }
  for (var value = lane; value < ${teams * values}u; value += ${skinnyThreads}u) {
    var sum = 0.0;
    ${
      segments > 1
        ? `for (var i = 0u; i < ${segments}u; i++) { sum += segments[value * ${segments}u + i]; }`
        : `for (var i = 0u; i < ${team}u; i++) { sum += sums[value * ${stride}u + i]; }`
    }
    let row = (id % u.groups_each) * ${teams * rows}u + value / ${values}u * ${rows}u + value % ${rows}u;
    let at = out_base + value % ${values}u / ${rows}u * u.out_few + row * u.out_wide;
    if (row < u.wide) { ${write("at", "sum", accumulate)} }
  }
}
`;
  const name = `matmul-dot-${few}x${rows}-${element}-${fewVec ? "v" : "s"}${team}${accumulate ? "-add" : ""}`;
  return { name, text };
}

/**
 * out[f][w] = sum_k few[f][k] wide[k][w], where w is contiguous in `wide`: threads side by side take columns, the others
 * share k and add up in workgroup memory. Uniforms as in {@link dotShader}; `wide` counts columns in reads.
 */
export function columnsShader(form: ColumnsForm): { readonly name: string; readonly text: string } {
  const { few, element, across, accumulate, rolled } = form;
  const unit = elementsPerRead[element];
  const vector = element === "f32" ? "f32" : "vec4f";
  const parts = skinnyThreads / across;
  const together = rolled ? 1 : 4;
  const step = (k: string, i: number): string[] => [
    `let w${i} = $wide[column + (${k}) * u.wide_pitch];`,
    ...count(few).map((f) => `let x${f}_${i} = $few[few_base + ${f}u * u.few_outer + (${k}) * u.few_inner];`),
  ];
  const add = (i: number): string[] => count(few).map((f) => `sum${f} = fma(${vector}(x${f}_${i}), w${i}, sum${f});`);
  const ks = count(together).map((i) => `k + ${i * parts}u`);
  const text = `
#include grid
var<workgroup> sums: array<${vector}, ${skinnyThreads}>;

@compute @workgroup_size(${skinnyThreads})
${signature} {
  ${place}
  let own = (id % u.groups_each) * ${across}u + lane % ${across}u;
  let column = wide_base + min(own, u.wide - 1u);
  ${count(few)
    .map((f) => `var sum${f}: ${vector};`)
    .join("\n  ")}
  var k = begin + lane / ${across}u;
  ${
    together > 1
      ? `for (; k + ${(together - 1) * parts}u < end; k += ${together * parts}u) {
    ${[...ks.flatMap(step), ...count(together).flatMap(add)].join("\n    ")}
  }`
      : ""
  }
  for (; k < end; k += ${parts}u) {
    ${[...step("k", 0), ...add(0)].join("\n    ")}
  }
  ${count(few)
    .map(
      (f) => `
  ${f > 0 ? "workgroupBarrier();" : ""}
  sums[lane] = sum${f};
  workgroupBarrier();
  if (lane < ${across}u && own < u.wide) {
    var sum = sums[lane];
    for (var i = 1u; i < ${parts}u; i++) { sum += sums[i * ${across}u + lane]; }
    let at = out_base + ${f}u * u.out_few + own * ${unit}u * u.out_wide;
    ${
      element === "f32"
        ? write("at", "sum", accumulate)
        : count(4)
            .map((i) => write(`at + ${i}u * u.out_wide`, `sum[${i}]`, accumulate))
            .join("\n    ")
    }
  }`,
    )
    .join("\n")}
}
`;
  return { name: `matmul-columns-${few}-${element}-${across}${accumulate ? "-add" : ""}`, text };
}
