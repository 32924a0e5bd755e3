// Layer: WebGPU shaders. From the dialect of wgsl/ to WGSL: `#include name` or `#include name(argument)`, `#if [!]FLAG`, `#else`,
// `#endif`, `@@` (an include's argument), `$name[...]` (a buffer), `u.name` (a uniform), and numbers that a kernel chose.
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
function expand(name: string, text: string, library: Library, flags: ReadonlySet<string>): string {
  const included = new Set<string>();
  const out: string[] = [];

  const walk = (file: string, source: string): void => {
    // Whether the lines of each condition around this one count; those of an outer one that does not never do.
    const active: boolean[] = [true];
    for (const line of source.split("\n")) {
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
      } else {
        throw new BackendError(`webgpu: shader ${name}: ${file} has an unknown directive, #${directive}.`);
      }
      if (active.length === 0) throw new BackendError(`webgpu: shader ${name}: ${file} has an #endif too many.`);
    }
    if (active.length !== 1) throw new BackendError(`webgpu: shader ${name}: ${file} lacks an #endif.`);
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

/** The variable that `$name` stands for. */
function accessors(bindings: readonly BindingText[]): Map<string, string> {
  return new Map(bindings.flatMap(({ names }) => names.map((name) => [name, `data_${names[0]}`])));
}

/** WGSL as a device takes it: group 0 has the uniforms at binding 0, if there are any, and then the buffers. */
export function shaderText(parts: ShaderParts, library: Library): string {
  const { name, constants, bindings, uniforms, directives } = parts;
  const body = expand(name, parts.text, library, flagsOf(parts));
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
