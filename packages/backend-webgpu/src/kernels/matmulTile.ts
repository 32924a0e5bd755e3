// Layer: WebGPU kernels. Writes the text of the tiled f32 matrix product for one variant and one pair of layouts.
// Every variant adds an element's products in the order of k into one accumulator, so all give the same bits.
// Knows threads, workgroup memory and the shader dialect. Knows no shapes and no device.

/** How a workgroup divides a tile of the product among its threads. A warp is 32 threads that run in step. */
export interface TileVariant {
  readonly name: string;
  /** Warps down and across the tile. */
  readonly warps: readonly [number, number];
  /** Threads of a warp down and across; their product is 32. */
  readonly lanes: readonly [number, number];
  /** Rows and columns that a thread computes; multiples of 4. */
  readonly thread: readonly [number, number];
  /** Products along k between two barriers; 8, 16 or 32. */
  readonly depth: number;
  /** Tiles held in workgroup memory: 2 fill one while the other is read. */
  readonly stages: 1 | 2;
  /** Workgroups that a processor runs at once, and needs to be busy; one by default. */
  readonly together?: number;
  /** The steps along k are a loop: slower, but soon compiled. */
  readonly rolled?: true;
}

/** The axis of an operand that is contiguous in memory: k, the inner one, or the one that the product keeps. */
export interface OperandLayout {
  readonly contiguous: "inner" | "outer";
  /** Bound as vec4s. */
  readonly vec: boolean;
}

export interface TileForm {
  readonly a: OperandLayout;
  readonly b: OperandLayout;
  /** `out` is bound as vec4s. */
  readonly outVec: boolean;
  /** The inner size may end within a step of `depth`. */
  readonly rest: boolean;
  readonly accumulate: boolean;
}

export interface TileSize {
  readonly rows: number;
  readonly columns: number;
  readonly threads: number;
  /** Bytes of workgroup memory. */
  readonly bytes: number;
}

/** Rows of tiles that are computed side by side before the next columns, so that both operands stay in the cache. */
const band = 8;

const vectors = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** vec4s between two rows (of one k) of a tile in workgroup memory. */
function pitchOf(span: number, contiguous: OperandLayout["contiguous"]): number {
  // A transposing store writes 2 k by 4 vec4s at once: an odd pitch keeps them in different banks.
  return contiguous === "inner" ? span / 4 + 1 : span / 4;
}

export function tileSize(
  { warps, lanes, thread, depth, stages }: TileVariant,
  a: OperandLayout["contiguous"] = "inner",
  b: OperandLayout["contiguous"] = "inner",
): TileSize {
  const rows = warps[0] * lanes[0] * thread[0];
  const columns = warps[1] * lanes[1] * thread[1];
  const bytes = 16 * depth * stages * (pitchOf(rows, a) + pitchOf(columns, b));
  return { rows, columns, threads: 32 * warps[0] * warps[1], bytes };
}

/** The pieces of text that bring one operand into workgroup memory, for the threads that are in charge of it. */
interface Loader {
  /** vec4s held per thread between loading and storing. */
  readonly held: number;
  /** Declares where the thread reads and writes. */
  readonly setup: readonly string[];
  /** Reads the step that begins at `k` into `held0`, `held1`, … and moves on. */
  readonly fetch: readonly string[];
  readonly store: readonly string[];
}

interface LoaderPlan {
  readonly name: "a" | "b";
  readonly layout: OperandLayout;
  /** First row (of a) or column (of b) of the tile, in the shader's words. */
  readonly origin: string;
  readonly span: number;
  readonly depth: number;
  /** Threads that share the work; a power of two. `part` is the thread's number among them. */
  readonly threads: number;
  readonly rest: boolean;
}

/** A vec4 of operand `name` at `at` of its buffer. */
function vector(name: string, layout: OperandLayout, at: string): string {
  if (layout.vec) return `$${name}[${at}]`;
  return `vec4f($${name}[${at}], $${name}[${at} + 1u], $${name}[${at} + 2u], $${name}[${at} + 3u])`;
}

/** The kept axis is contiguous: vec4s go to workgroup memory as they are. */
function straightLoader({ name, layout, origin, span, depth, threads, rest }: LoaderPlan): Loader {
  const across = span / 4;
  const step = threads / across;
  const count = Math.max(1, depth / step);
  const unit = layout.vec ? 4 : 1;
  const guard = step > depth ? `part / ${across}u < ${depth}u` : undefined;
  return {
    held: count,
    setup: [
      `slot = part % ${across}u;`,
      `inner = part / ${across}u;`,
      `at = u.${name}_at + batch * u.${name}_batch + (begin + inner) * u.${name}_pitch + ${origin} / ${unit}u + slot * ${4 / unit}u;`,
    ],
    fetch: [
      ...vectors(count).map((i) => {
        const value = vector(name, layout, `(at + ${i * step}u * u.${name}_pitch)`);
        const conditions = [guard, rest ? `k + inner + ${i * step}u < end` : undefined].filter(Boolean);
        if (conditions.length === 0) return `held${i} = ${value};`;
        return `held${i} = vec4f(); if (${conditions.join(" && ")}) { held${i} = ${value}; }`;
      }),
      `at += ${depth}u * u.${name}_pitch;`,
    ],
    store: vectors(count).map((i) => {
      const text = `tile_${name}[stage][inner + ${i * step}u][slot] = held${i};`;
      return guard ? `if (${guard}) { ${text} }` : text;
    }),
  };
}

/** k is contiguous: a thread reads vec4s of k from four rows and writes them transposed. */
function transposingLoader({ name, layout, origin, span, depth, threads, rest }: LoaderPlan): Loader {
  const quads = depth / 4;
  const blocks = (span / 4) * quads;
  const count = Math.max(1, blocks / threads);
  const apart = threads / quads;
  const unit = layout.vec ? 4 : 1;
  const guard = blocks < threads ? `part < ${blocks}u` : undefined;
  const load = (i: number, j: number): string => {
    const target = `held${4 * i + j}`;
    const at = `(at + ${4 * i * apart + j}u * u.${name}_pitch)`;
    if (!rest) return `${target} = ${vector(name, layout, at)};`;
    if (layout.vec) return `${target} = vec4f(); if (k + inner < end) { ${target} = ${vector(name, layout, at)}; }`;
    const within = `vec4u(k + inner) + vec4u(0u, 1u, 2u, 3u) < vec4u(end)`;
    return `${target} = select(vec4f(), ${vector(name, layout, at)}, ${within});`;
  };
  const guarded = (lines: string[]) => (guard ? [`if (${guard}) {`, ...lines, "}"] : lines);
  return {
    held: 4 * count,
    setup: [
      // Neighbouring threads take the bits of (quad of k, block of rows) in turn: all reads of a warp fill whole
      // segments of memory, and its writes differ in bank.
      `inner = 4u * ((part & 1u) | ((part >> 2u) & ${quads - 2}u));`,
      `slot = ((part >> 1u) & 3u) | ((part >> ${Math.log2(quads) + 2}u) << 2u);`,
      `at = u.${name}_at + batch * u.${name}_batch + (${origin} + 4u * slot) * u.${name}_pitch + (begin + inner) / ${unit}u;`,
    ],
    fetch: [...guarded(vectors(count).flatMap((i) => vectors(4).map((j) => load(i, j)))), `at += ${depth / unit}u;`],
    store: guarded(
      vectors(count).flatMap((i) =>
        ["x", "y", "z", "w"].map((part, c) => {
          const values = vectors(4).map((j) => `held${4 * i + j}.${part}`);
          return `tile_${name}[stage][inner + ${c}u][slot + ${i * apart}u] = vec4f(${values.join(", ")});`;
        }),
      ),
    ),
  };
}

function loader(plan: LoaderPlan): Loader {
  return plan.layout.contiguous === "inner" ? transposingLoader(plan) : straightLoader(plan);
}

/** All products of one step: for each k, the thread's rows of a by its columns of b. */
function products({ lanes, thread, depth, rolled }: TileVariant): string[] {
  const [down, across] = [vectors(thread[0] / 4), vectors(thread[1] / 4)];
  const lines = (k: string): string[] => [
    "{",
    ...down.map((i) => `let a${i} = tile_a[stage][${k}][row_slot + ${i * lanes[0]}u];`),
    ...across.map((j) => `let b${j} = tile_b[stage][${k}][column_slot + ${j * lanes[1]}u];`),
    ...down.flatMap((i) =>
      ["x", "y", "z", "w"].flatMap((part, r) =>
        across.map((j) => `sum${4 * i + r}_${j} = fma(vec4f(a${i}.${part}), b${j}, sum${4 * i + r}_${j});`),
      ),
    ),
    "}",
  ];
  if (rolled) return [`for (var step = 0u; step < ${depth}u; step++)`, ...lines("step")];
  return vectors(depth).flatMap((k) => lines(`${k}u`));
}

/** Writes four columns of a row, if the product has them. */
function putFunction({ outVec, accumulate }: TileForm): string {
  const value = (i?: number): string => {
    const [element, part] = i === undefined ? ["$out[at]", "value"] : [`$out[at + ${i}u]`, `value[${i}]`];
    return `${element} = ${accumulate ? `${element} + ` : ""}${part};`;
  };
  const scalars = vectors(4).map((i) => `if (column + ${i}u < u.columns) { ${value(i)} }`);
  return `
fn put(base: u32, row: u32, column: u32, value: vec4f) {
  if (row >= u.rows || column >= u.columns) { return; }
  let at = base + row * u.out_pitch + column${outVec ? " / 4u" : ""};
  ${outVec ? value() : scalars.join("\n  ")}
}`;
}

/**
 * The product of one tile for each workgroup: rows x columns over `depth` of k, or over a part of k of `chunk` where
 * it is split. Buffers a, b, out. Uniforms: rows, columns, depth, tiles_m, tiles_n, slices (batch x splits), splits,
 * chunk, and for each operand its pitch and batch stride in units of its binding (`out_slice` for each slice).
 */
export function tileShader(variant: TileVariant, form: TileForm): { readonly name: string; readonly text: string } {
  const { warps, lanes, thread, depth, stages } = variant;
  const { rows, columns, threads } = tileSize(variant);
  const half = threads / 2;
  const share = { depth, threads: half, rest: form.rest };
  const a = loader({ ...share, name: "a", layout: form.a, origin: "row0", span: rows });
  const b = loader({ ...share, name: "b", layout: form.b, origin: "column0", span: columns });
  const either = (piece: "setup" | "fetch" | "store"): string =>
    ["if (lane < HALF) {", ...a[piece], "} else {", ...b[piece], "}"].join("\n");
  const [down, across] = [vectors(thread[0]), vectors(thread[1] / 4)];
  const tile = (name: "a" | "b", span: number): string =>
    `var<workgroup> tile_${name}: array<array<array<vec4f, ${pitchOf(span, form[name].contiguous)}>, ${depth}>, ${stages}>;`;
  const text = `
#include grid
const HALF = ${half}u;
${tile("a", rows)}
${tile("b", columns)}
${putFunction(form)}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let id = linear_group(group, groups);
  let tiles = u.tiles_m * u.tiles_n;
  let slice = id / tiles;
  if (slice >= u.slices) { return; }
  let batch = slice / u.splits;
  let begin = (slice % u.splits) * u.chunk;
  let end = min(begin + u.chunk, u.depth);
  // Tiles go down a band of rows before they go on to the next columns.
  let in_slice = id % tiles;
  let first = in_slice / (${band}u * u.tiles_n) * ${band}u;
  let height = min(u.tiles_m - first, ${band}u);
  let in_band = in_slice % (${band}u * u.tiles_n);
  let row0 = (first + in_band % height) * ${rows}u;
  let column0 = in_band / height * ${columns}u;

  // Half of the threads bring a, the other half b.
  let part = lane % HALF;
  var at: u32;
  var slot: u32;
  var inner: u32;
  ${either("setup")}
  ${vectors(Math.max(a.held, b.held))
    .map((i) => `var held${i}: vec4f;`)
    .join("\n  ")}
  // Two threads side by side share columns and two that are two apart share rows: then a read of workgroup memory by
  // a warp takes two cycles where it would take four.
  let warp = lane / 32u;
  let row_slot = (warp % ${warps[0]}u) * ${(lanes[0] * thread[0]) / 4}u + ((lane & 1u) | (((lane % 32u) / ${2 * lanes[1]}u) << 1u));
  let column_slot = (warp / ${warps[0]}u) * ${(lanes[1] * thread[1]) / 4}u + ((lane >> 1u) % ${lanes[1]}u);
  ${down.flatMap((i) => across.map((j) => `var sum${i}_${j}: vec4f;`)).join("\n  ")}

  var stage = 0u;
  var k = begin;
  ${either("fetch")}
  ${either("store")}
  workgroupBarrier();
  loop {
    k += ${depth}u;
    let more = k < end;
    if (more) {
${either("fetch")}
    }
${products(variant).join("\n")}
    if (!more) { break; }
    ${stages === 2 ? "stage = 1u - stage;" : "workgroupBarrier();"}
${either("store")}
    workgroupBarrier();
  }

  let base = u.out_at + slice * u.out_slice;
  let row = row0 + 4u * row_slot;
  let column = column0 + 4u * column_slot;
  ${down
    .flatMap((i) =>
      across.map((j) => {
        const at = Math.floor(i / 4) * 4 * lanes[0] + (i % 4);
        return `put(base, row + ${at}u, column + ${4 * lanes[1] * j}u, sum${i}_${j});`;
      }),
    )
    .join("\n  ")}
}
`;
  return { name: `matmul-${variant.name}-${formName(form)}`, text };
}

function formName({ a, b, outVec, rest, accumulate }: TileForm): string {
  const operand = ({ contiguous, vec }: OperandLayout): string => `${contiguous === "inner" ? "k" : "n"}${vec ? 4 : 1}`;
  return `${operand(a)}${operand(b)}o${outVec ? 4 : 1}${rest ? "-rest" : ""}${accumulate ? "-add" : ""}`;
}
