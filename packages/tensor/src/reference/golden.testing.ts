// Layer: tests of the reference backend. Reads a golden tensor file (safetensors, f32) of the conformance package.
// Knows Node's files; is no part of the package.

import { readFileSync } from "node:fs";
import type { Sample } from "./checks.testing.js";

const folder = new URL("../../../conformance/fixtures/goldens/", import.meta.url);

interface Entry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: readonly [number, number];
}

export interface Golden {
  readonly meta: Readonly<Record<string, unknown>>;
  readonly tensors: Readonly<Record<string, Sample>>;
}

/** The tensors of one golden file as doubles, and its metadata. */
export function golden(name: string): Golden {
  const bytes = Uint8Array.from(readFileSync(new URL(`${name}.safetensors`, folder))).buffer;
  const headerLength = Number(new DataView(bytes).getBigUint64(0, true));
  const { __metadata__, ...entries } = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, headerLength)));
  const tensors: Record<string, Sample> = {};
  for (const [key, { dtype, shape, data_offsets }] of Object.entries<Entry>(entries)) {
    if (dtype !== "F32") throw new Error(`${name}: ${key} is ${dtype}, expected F32`);
    const [start, end] = data_offsets;
    const data = new Float32Array(bytes.slice(8 + headerLength + start, 8 + headerLength + end));
    tensors[key] = { shape, values: Float64Array.from(data) };
  }
  return { meta: JSON.parse(__metadata__.meta), tensors };
}
