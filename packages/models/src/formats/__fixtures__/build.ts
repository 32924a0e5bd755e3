// Checkpoint formats, for tests: builds zip archives, pickles and damaged copies byte by byte, so that no fixture needs Python.
// Knows the formats from their descriptions, not from the readers under test.

/** Bytes of text, lists and arrays, joined. */
export function join(...parts: readonly (string | readonly number[] | Uint8Array)[]): Uint8Array {
  const all = parts.map((part) => (typeof part === "string" ? new TextEncoder().encode(part) : part));
  const out = new Uint8Array(all.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of all) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** A little-endian integer of `width` bytes, in two's complement where it is negative. */
export function le(value: number, width: number): number[] {
  const bits = BigInt.asUintN(8 * width, BigInt(value));
  return Array.from({ length: width }, (_, i) => Number((bits >> BigInt(8 * i)) & 0xffn));
}

export interface ZipOptions {
  /** Sizes only in the central directory and after the data, as a streaming writer leaves them. */
  readonly descriptors?: boolean;
  /** Sizes and positions in zip64 fields. */
  readonly zip64?: boolean;
  /** Compression method of every entry (0: stored). */
  readonly method?: number;
  /** Extra general-purpose flags. */
  readonly flags?: number;
  readonly comment?: string;
}

/** A zip archive of stored entries. */
export function zip(entries: readonly (readonly [string, Uint8Array])[], options: ZipOptions = {}): Uint8Array {
  const { descriptors = false, zip64 = false, method = 0, flags = 0, comment = "" } = options;
  const bits = flags | (descriptors ? 8 : 0);
  const parts: Uint8Array[] = [];
  const central: Uint8Array[] = [];
  let at = 0;
  const add = (part: Uint8Array) => {
    parts.push(part);
    at += part.length;
  };
  for (const [name, data] of entries) {
    const headerAt = at;
    const sizes = descriptors ? le(0, 8) : [...le(data.length, 4), ...le(data.length, 4)];
    const padding = [0x46, 0x42, 5, 0, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a]; // as PyTorch aligns its storages
    const fixed = [...le(45, 2), ...le(bits, 2), ...le(method, 2), ...le(0, 8)];
    add(join([0x50, 0x4b, 3, 4], fixed, sizes, le(name.length, 2), le(padding.length, 2), name, padding, data));
    if (descriptors) add(join([0x50, 0x4b, 7, 8], le(0, 4), le(data.length, 4), le(data.length, 4)));
    const narrow = zip64 ? le(0xffffffff, 4) : undefined;
    const extra = zip64 ? [1, 0, 24, 0, ...le(data.length, 8), ...le(data.length, 8), ...le(headerAt, 8)] : [];
    const size = narrow ?? le(data.length, 4);
    const lengths = [...le(name.length, 2), ...le(extra.length, 2), ...le(0, 10)];
    central.push(
      join([0x50, 0x4b, 1, 2], le(45, 2), fixed, size, size, lengths, narrow ?? le(headerAt, 4), name, extra),
    );
  }
  const directoryAt = at;
  const directory = join(...central);
  add(directory);
  const n = entries.length;
  if (zip64) {
    const endAt = at;
    const counts = [...le(n, 8), ...le(n, 8), ...le(directory.length, 8), ...le(directoryAt, 8)];
    add(join([0x50, 0x4b, 6, 6], le(44, 8), le(45, 2), le(45, 2), le(0, 8), counts));
    add(join([0x50, 0x4b, 6, 7], le(0, 4), le(endAt, 8), le(1, 4)));
  }
  const counts = zip64 ? le(0xffff, 2) : le(n, 2);
  const place = zip64
    ? [...le(0xffffffff, 4), ...le(0xffffffff, 4)]
    : [...le(directory.length, 4), ...le(directoryAt, 4)];
  add(join([0x50, 0x4b, 5, 6], le(0, 4), counts, counts, place, le(comment.length, 2), comment));
  return join(...parts);
}

// Pickle opcodes, protocol 2, as far as the tests need them.

export const text = (value: string): number[] => [0x58, ...le(value.length, 4), ...new TextEncoder().encode(value)];
export const int = (value: number): number[] =>
  value >= 0 && value < 256 ? [0x4b, value] : [0x8a, 8, ...le(value, 8)];
export const global = (module: string, name: string): number[] => [...join("c", `${module}\n${name}\n`)];
export const tuple = (...items: readonly (readonly number[])[]): number[] => [0x28, ...items.flat(), 0x74];
export const ints = (values: readonly number[]): number[] => tuple(...values.map(int));
export const reduce = 0x52;
export const emptyTuple = 0x29;
export const persistentId = 0x51;

export interface PickledTensor {
  readonly storage?: string;
  readonly key?: string;
  readonly length: number;
  readonly offset?: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

/** The opcodes of one tensor, as torch.save writes them. */
export function tensor({
  storage = "FloatStorage",
  key = "0",
  length,
  offset = 0,
  shape,
  strides,
}: PickledTensor): number[] {
  const id = tuple(text("storage"), global("torch", storage), text(key), text("cpu"), int(length));
  const hooks = [...global("collections", "OrderedDict"), emptyTuple, reduce];
  const args = tuple([...id, persistentId], int(offset), ints(shape), ints(strides), [0x89], hooks);
  return [...global("torch._utils", "_rebuild_tensor_v2"), ...args, reduce];
}

/** A pickled dict of name and value. */
export function dict(items: Readonly<Record<string, readonly number[]>>): Uint8Array {
  return join(
    [0x80, 2, 0x7d, 0x28],
    ...Object.entries(items).flatMap(([key, value]) => [text(key), value]),
    [0x75, 0x2e],
  );
}

/** A whole `pytorch_model.bin` of a pickle and its storages. */
export function torchFile(
  pickle: Uint8Array,
  storages: Readonly<Record<string, Uint8Array>> = {},
  options: ZipOptions & { readonly order?: string } = {},
): Uint8Array {
  const data = Object.entries(storages).map(([key, bytes]) => [`archive/data/${key}`, bytes] as const);
  const order = ["archive/byteorder", join(options.order ?? "little")] as const;
  return zip([["archive/data.pkl", pickle], order, ...data, ["archive/version", join("3\n")]], options);
}

/** A small deterministic generator (mulberry32): numbers in [0, 1). */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Copies of `bytes` with one to four bytes changed. */
export function* flipped(bytes: Uint8Array, copies: number, seed: number): Generator<Uint8Array> {
  const next = random(seed);
  for (let copy = 0; copy < copies; copy++) {
    const damaged = bytes.slice();
    for (let n = 1 + Math.floor(next() * 4); n > 0; n--) {
      const at = Math.floor(next() * bytes.length);
      damaged[at] = next() < 0.25 ? 0xff : Math.floor(next() * 256);
    }
    yield damaged;
  }
}
