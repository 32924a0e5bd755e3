// Layer: WebGPU kernels. The product of one row, which an RMSNorm makes on the way, with the rows of a matrix: each workgroup makes
// the row for itself while its part of the matrix is under way from memory, and the first one also writes what the norm gives.
// Knows the kernel context and the shader dialect. Knows no device.

import { sizeOf, type View } from "@diffmamba/tensor";
import { type Deferred, f32, type KernelContext, type NormedRow, type ShaderText } from "../context.js";
import { joiningConstants } from "./rows.js";

const THREADS = 256;

/** The longest row: it is kept in workgroup memory. */
const LONGEST = 2048;

/** How the rows of the matrix are shared out: `team` threads to `rows` of them. */
export interface NormedPlan {
  readonly team: number;
  readonly rows: number;
  readonly groups: number;
  readonly splits: number;
}

const count = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** Whether the row that a norm makes is one that a product can make by the way: f32, whole vectors, not too long. */
export function canBeDeferred({ x, y, z, weight, sum, normed }: NormedRow): boolean {
  const views = [x, weight, normed, ...[y, z, sum].filter((view) => view !== undefined)];
  const width = sizeOf(weight.shape);
  return (
    sizeOf(x.shape) === width &&
    width % 4 === 0 &&
    width <= LONGEST &&
    views.every(
      ({ dtype, offset, strides }) => dtype === "f32" && offset % 4 === 0 && strides[strides.length - 1] === 1,
    )
  );
}

function text({ team, rows }: NormedPlan, items: number): ShaderText {
  const steps = Math.ceil(items / team);
  const held = Math.ceil(items / THREADS);
  const teams = THREADS / team;
  const whole = items % team === 0;
  const each = count(rows).flatMap((r) => count(steps).map((i) => [r, i] as const));
  const place = (i: number): string => `member + ${i * team}u`;
  const inside = (at: string): string => `${at} < ${items}u`;
  const code = `
#include grid
#include items
#include workgroup-sum
#if HAS_z
#include gate
#endif

alias summand = f32;
fn join(a: f32, b: f32) -> f32 { return a + b; }

var<workgroup> row: array<vec4f, ${items}>;
var<workgroup> parts: array<f32, ${teams}>;

fn value_at(i: u32) -> vec4f {
  var value = $x[u.x_at + i];
#if HAS_y
  value += $y[u.y_at + i];
#endif
#if gate_first
  value *= silu($z[u.z_at + i]);
#endif
  return value;
}

@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let id = linear_group(group, groups);
  let member = lane % ${team}u;
  let first = id * ${teams * rows}u + lane / ${team}u * ${rows}u;
  ${count(rows)
    .map((r) => `let at${r} = u.wide_at + min(first + ${r}u, u.rows - 1u) * u.wide_pitch;`)
    .join("\n  ")}
  ${each
    .map(([r, i]) => {
      const at = whole ? place(i) : `min(${place(i)}, ${items - 1}u)`;
      return `let w${r}_${i} = $wide[at${r} + ${at}];`;
    })
    .join("\n  ")}

  ${count(held)
    .map(
      (k) =>
        `var value${k} = vec4f();\n  if (${inside(`lane + ${k * THREADS}u`)}) { value${k} = value_at(lane + ${k * THREADS}u); }`,
    )
    .join("\n  ")}
  let near = join_team(total(${count(held)
    .map((k) => `value${k} * value${k}`)
    .join(" + ")}), lane);
  if (member == 0u) { parts[lane / ${team}u] = near; }
  workgroupBarrier();
  var squares = parts[0];
  ${count(teams)
    .slice(1)
    .map((i) => `squares += parts[${i}];`)
    .join("\n  ")}
  let rstd = inverseSqrt(squares / u.channels + u.eps);
  ${count(held)
    .map((k) => {
      const i = `lane + ${k * THREADS}u`;
      return `if (${inside(i)}) {
    var normed = value${k} * rstd * $weight[u.weight_at + ${i}];
#if gate_last
    normed *= silu($z[u.z_at + ${i}]);
#endif
    row[${i}] = normed;
    if (id == 0u) {
      $normed[u.normed_at + ${i}] = normed;
#if HAS_sum
      $sum[u.sum_at + ${i}] = value${k};
#endif
    }
  }`;
    })
    .join("\n  ")}
  if (id == 0u && lane == 0u) { $rstd[u.rstd_at] = rstd; }
  workgroupBarrier();

  ${count(rows)
    .map((r) => `var sum${r} = vec4f();`)
    .join("\n  ")}
  ${count(steps)
    .map((i) => {
      const x = whole
        ? `row[${place(i)}]`
        : `select(vec4f(), row[min(${place(i)}, ${items - 1}u)], ${inside(place(i))})`;
      const sums = count(rows).map((r) => `sum${r} = fma(w${r}_${i}, x${i}, sum${r});`);
      return [`let x${i} = ${x};`, ...sums].join(" ");
    })
    .join("\n  ")}
  ${count(rows)
    .map(
      (r) => `let all${r} = join_team(total(sum${r}), lane);
  if (member == 0u && first + ${r}u < u.rows) { $out[u.out_at + (first + ${r}u) * u.out_step] = all${r}; }`,
    )
    .join("\n  ")}
}
`;
  return { name: `matmul-normed-${items}-${rows}-${team}`, text: code };
}

const texts = new Map<string, ShaderText>();

/**
 * out[w] = sum_k row[k] wide[w][k], with the row that `deferred` makes.
 * @param wide (1, rows, row's width) as the product sees it: `pitch` elements from one of its rows to the next
 */
export function runNormed(
  context: KernelContext,
  { row }: Deferred,
  wide: { readonly view: View; readonly outer: number; readonly pitch: number },
  out: { readonly view: View; readonly step: number },
  plan: NormedPlan,
): void {
  const { x, y, z, weight, sum, normed, rstd, eps, normBeforeGate } = row;
  const width = sizeOf(weight.shape);
  const key = `${width} ${plan.rows} ${plan.team}`;
  let shader = texts.get(key);
  if (shader === undefined) {
    shader = text(plan, width / 4);
    texts.set(key, shader);
  }
  const vec = (view: View) => ({ view, vec: 4 as const });
  context.run({
    shader,
    constants: {
      ...joiningConstants(context),
      ...{ fours: true, team: plan.team },
      ...(z && (normBeforeGate ? { gate_last: true } : { gate_first: true })),
    },
    buffers: {
      ...{ x: vec(x), y: y && vec(y), z: z && vec(z), weight: vec(weight), sum: sum && vec(sum), normed: vec(normed) },
      ...{ rstd, wide: vec(wide.view), out: out.view },
    },
    writes: ["normed", "rstd", "out", ...(sum ? ["sum"] : [])],
    uniforms: {
      ...{ rows: wide.outer, wide_pitch: wide.pitch / 4, out_step: out.step },
      ...{ channels: f32(width), eps: f32(eps) },
    },
    groups: plan.groups,
  });
}
