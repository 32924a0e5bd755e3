// Layer: WebGPU shaders. From the dialect of wgsl/ to WGSL: `#include name` or `#include name(argument)`, `#if [!]FLAG`, `#else`,
// `#endif`, `#repeat k 8` … `#endrepeat` (`@k` counts; copies of the lines with the flag `unrolled`, else a loop), `@@` (an include's
// argument), `$name[...]` (a buffer), `u.name` (a uniform), and numbers that a kernel chose.
// Knows text. Knows no shader by name, no tensor and no device.

import { BackendError } from "@diffmamba/tensor";

/** What a kernel chose: booleans are flags, numbers are constants of any integer type. */
export type Constants = Readonly<Record<string, number | boolean | undefined>>;

/** How a buffer is declared. Several names may stand for one binding. */
export interface BindingText {
  /** The names that shaders use, the first of which names the variable. */
  readonly names: readonly string[];
  /** "f32", "vec4<u32>", "atomic<u32>" … */
  readonly element: string;
  readonly written: boolean;
}

/** A uniform: u32, or f32. */
export interface UniformText {
  readonly name: string;
  readonly type: "u32" | "f32";
}

export interface ShaderParts {
  readonly name: string;
  readonly text: string;
  readonly constants: Constants;
  readonly bindings: readonly BindingText[];
  readonly uniforms: readonly UniformText[];
  /** Lines that must come first, such as `enable subgroups;`. */
  readonly directives: readonly string[];
}

type Library = Readonly<Record<string, string>>;

function flagsOf({ constants, bindings }: ShaderParts): Set<string> {
  const flags = Object.entries(constants).flatMap(([name, value]) => (value === true ? [name] : []));
  return new Set([...flags, ...bindings.flatMap(({ names }) => names.map((name) => `HAS_${name}`))]);
}

/** The text with its includes, each once for each argument, and without what its conditions leave out. */
function expand(parts: ShaderParts, library: Library): string {
  const { name, text, constants } = parts;
  const flags = flagsOf(parts);
  const included = new Set<string>();
  const out: string[] = [];

  const walk = (file: string, source: string): void => {
    // Whether the lines of each condition around this one count; those of an outer one that does not never do.
    const active: boolean[] = [true];
    const lines = source.split("\n");
    for (let at = 0; at < lines.length; at++) {
      const line = lines[at];
      const found = /^\s*#(\w+)\s*(.*?)\s*$/.exec(line);
      if (found === null) {
        if (active[0]) out.push(line);
        continue;
      }
      const [, directive, rest] = found;
      if (directive === "if") {
        const negated = rest.startsWith("!");
        active.unshift(active[0] && flags.has(negated ? rest.slice(1) : rest) !== negated);
      } else if (directive === "else") {
        active[0] = (active[1] ?? true) && !active[0];
      } else if (directive === "endif") {
        active.shift();
      } else if (directive === "include") {
        if (active[0]) include(file, rest);
      } else if (directive === "repeat") {
        const end = endOfRepeat(lines, at);
        if (end === undefined) throw new BackendError(`webgpu: shader ${name}: ${file} lacks an #endrepeat.`);
        if (active[0]) repeat(file, rest, lines.slice(at + 1, end).join("\n"));
        at = end;
      } else {
        throw new BackendError(`webgpu: shader ${name}: ${file} has an unknown directive, #${directive}.`);
      }
      if (active.length === 0) throw new BackendError(`webgpu: shader ${name}: ${file} has an #endif too many.`);
    }
    if (active.length !== 1) throw new BackendError(`webgpu: shader ${name}: ${file} lacks an #endif.`);
  };

  const repeat = (file: string, rest: string, body: string): void => {
    const [counter, size] = rest.split(/\s+/);
    const count = Number(constants[size] ?? size);
    if (!Number.isInteger(count))
      throw new BackendError(`webgpu: shader ${name}: ${file} repeats ${rest}, which is no count.`);
    const numbered = (number: string): string => body.replaceAll(new RegExp(`@${counter}\\b`, "g"), number);
    if (!flags.has("unrolled")) {
      out.push(`for (var ${counter} = 0u; ${counter} < ${count}u; ${counter}++) {`);
      walk(file, numbered(counter));
      out.push("}");
      return;
    }
    for (let i = 0; i < count; i++) {
      out.push("{");
      walk(file, numbered(`${i}u`));
      out.push("}");
    }
  };

  const include = (file: string, rest: string): void => {
    const found = /^([\w-]+)(?:\((\w+)\))?$/.exec(rest);
    const source = found === null ? undefined : library[found[1]];
    if (found === null || source === undefined) {
      throw new BackendError(`webgpu: shader ${name}: ${file} includes ${rest}, which is no file of wgsl/lib.`);
    }
    if (included.has(rest)) return;
    included.add(rest);
    walk(found[1], found[2] === undefined ? source : source.replaceAll("@@", found[2]));
  };

  walk(name, text);
  return out.join("\n");
}

/** The line that ends what begins at line `begin`. */
function endOfRepeat(lines: readonly string[], begin: number): number | undefined {
  let depth = 0;
  for (let at = begin; at < lines.length; at++) {
    if (/^\s*#repeat\b/.test(lines[at])) depth++;
    if (/^\s*#endrepeat\b/.test(lines[at]) && --depth === 0) return at;
  }
  return undefined;
}

/** The variable that `$name` stands for. */
function accessors(bindings: readonly BindingText[]): Map<string, string> {
  return new Map(bindings.flatMap(({ names }) => names.map((name) => [name, `data_${names[0]}`])));
}

/** WGSL as a device takes it: group 0 has the uniforms at binding 0, if there are any, and then the buffers. */
export function shaderText(parts: ShaderParts, library: Library): string {
  const { name, constants, bindings, uniforms, directives } = parts;
  const body = expand(parts, library);
  const variables = accessors(bindings);
  const code = body.replaceAll(/\$([A-Za-z_]\w*)/g, (_, buffer: string) => {
    const variable = variables.get(buffer);
    if (variable !== undefined) return variable;
    throw new BackendError(`webgpu: shader ${name} uses $${buffer}, which its dispatch does not bind.`);
  });
  const lines = [...directives];
  for (const [key, value] of Object.entries(constants))
    if (typeof value === "number") lines.push(`const ${key} = ${value};`);
  if (uniforms.length > 0) {
    lines.push("struct Uniforms {", ...uniforms.map((uniform) => `  ${uniform.name}: ${uniform.type},`), "}");
    lines.push("@group(0) @binding(0) var<uniform> u: Uniforms;");
  }
  for (const [i, { names, element, written }] of bindings.entries()) {
    const access = written ? "read_write" : "read";
    lines.push(`@group(0) @binding(${i + 1}) var<storage, ${access}> data_${names[0]}: array<${element}>;`);
  }
  return `${lines.join("\n")}\n${code}`;
}
