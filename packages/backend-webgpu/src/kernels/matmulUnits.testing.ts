// For tests: a shader for matrix units made one for any device. A subgroup's matrices lie in a buffer, of f32 that hold what f16 would;
// so does workgroup memory that is too large without f16.

import type { Device, Tensor } from "@diffmamba/tensor";
import type { WebGpuBackend } from "../backend.js";
import type { Dispatch, KernelContext } from "../context.js";

const MATRIX = 256;

/** What the units do, each thread for its eight elements of a matrix. `team` is the subgroup's number. */
const functions = (matrices: number): string => `
fn place(team: u32, matrix: u32) -> u32 { return (team * ${matrices}u + matrix) * ${MATRIX}u; }
fn load(team: u32, thread: u32, matrix: u32, by_rows: bool, first: u32, pitch: u32) {
  for (var i = thread; i < ${MATRIX}u; i += 32u) {
    $matrices[place(team, matrix) + i] = $staged[first + select(i % 16u * pitch + i / 16u, i / 16u * pitch + i % 16u, by_rows)];
  }
}
fn multiply(team: u32, thread: u32, a: u32, b: u32, c: u32) {
  for (var i = thread; i < ${MATRIX}u; i += 32u) {
    var sum = $matrices[place(team, c) + i];
    for (var k = 0u; k < 16u; k++) {
      sum += $matrices[place(team, a) + i / 16u * 16u + k] * $matrices[place(team, b) + k * 16u + i % 16u];
    }
    $matrices[place(team, c) + i] = sum;
  }
}
fn clear(team: u32, thread: u32, matrix: u32) {
  for (var i = thread; i < ${MATRIX}u; i += 32u) { $matrices[place(team, matrix) + i] = 0.0; }
}
fn hand_over(team: u32, thread: u32, at: u32, matrix: u32) {
  for (var i = thread; i < ${MATRIX}u; i += 32u) { passed[at + i] = $matrices[place(team, matrix) + i]; }
}
`;

interface Changed {
  readonly text: string;
  /** f32 of workgroup memory that is a buffer now, and of matrices, of a workgroup. */
  readonly staged: number;
  readonly matrices: number;
}

function withoutUnits(text: string): Changed {
  const declared = /var<workgroup> staged: array<f16, (\d+)>;/.exec(text);
  const threads = /@workgroup_size\((\d+)\)/.exec(text);
  if (declared === null || threads === null) throw new Error("This shader is not what the replacements are for.");
  const staged = Number(declared[1]);
  const subgroups = Number(threads[1]) / 32;
  const names: string[] = [];
  const of = (name: string): string => {
    if (!names.includes(name)) names.push(name);
    return `${names.indexOf(name)}u`;
  };
  const self = `number * ${subgroups}u + warp, thread`;
  let multiplies = false;
  const changed = text
    .replaceAll(/var (\w+): subgroup_matrix_result<f32, 16, 16>;/g, (_, name) => `clear(${self}, ${of(name)});`)
    .replaceAll(/(\w+) = subgroup_matrix_result<f32, 16, 16>\(\);/g, (_, name) => `clear(${self}, ${of(name)});`)
    .replaceAll(
      /let (\w+) = subgroupMatrixLoad<.*, (row|col)_major>\(&staged, (.*), (\d+u)\);/g,
      (_, name, order, at, pitch) =>
        `load(${self}, ${of(name)}, ${order === "row"}, number * ${staged}u + ${at}, ${pitch});`,
    )
    .replaceAll(/(\w+) = subgroupMatrixMultiplyAccumulate\((\w+), (\w+), \w+\);/g, (_, c, a, b) => {
      const before = multiplies ? "" : "workgroupBarrier(); ";
      multiplies = true;
      return `${before}multiply(${self}, ${of(a)}, ${of(b)}, ${of(c)});`;
    })
    .replaceAll(
      /subgroupMatrixStore<row_major>\(&passed, (.*), (\w+), 16u\);/g,
      (_, at, name) => `hand_over(${self}, ${at}, ${of(name)});`,
    )
    .replaceAll("bitcast<vec2<f16>>(", "unpack2x16float(")
    .replaceAll("staged[at", `$staged[number * ${staged}u + at`)
    .replaceAll("workgroupBarrier();", "workgroupBarrier(); storageBarrier();");
  const matrices = names.length;
  const whole = changed.replace(declared[0], functions(matrices));
  return { text: whole, staged, matrices: matrices * subgroups * MATRIX };
}

/** A context in which shaders for units run without any, and the tensors that its temporaries are. */
export function contextWithoutUnits(device: Device): { readonly context: KernelContext; readonly made: Tensor[] } {
  const { context } = device.backend as WebGpuBackend;
  const made: Tensor[] = [];
  const temporary: KernelContext["temporary"] = (shape, dtype = "f32") => {
    made.push(device.zeros(shape, dtype));
    return made[made.length - 1].view();
  };
  const run = (dispatch: Dispatch): void => {
    const { shader, buffers, writes, groups } = dispatch;
    if (typeof shader === "string" || !shader.text.includes("subgroup_matrix")) {
      context.run(dispatch);
      return;
    }
    const { text, staged, matrices } = withoutUnits(shader.text);
    const memory = { staged: temporary([groups, staged]), matrices: temporary([groups, matrices]) };
    context.run({
      ...dispatch,
      shader: { name: `${shader.name}-without-units`, text },
      buffers: { ...buffers, ...memory },
      writes: [...writes, "staged", "matrices"],
    });
  };
  return { context: { ...context, run, temporary }, made };
}
