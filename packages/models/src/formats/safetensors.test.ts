// Checkpoint formats: safetensors in and out, every check of the header, and damaged copies.

import { type FileSystem, parentPath } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { faultyFiles } from "@diffmamba/files/testing";
import type { HostTensor } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import { flipped, join, le } from "./__fixtures__/build.js";
import { FormatError } from "./errors.js";
import { parseSafetensors, SafetensorsFile } from "./safetensors.js";
import { serializeSafetensors, writeSafetensors } from "./safetensorsWrite.js";

const path = "runs/x/model.safetensors";

async function stored(bytes: Uint8Array, at = path): Promise<FileSystem> {
  const files = memoryFiles();
  await files.makeDirectory(parentPath(at));
  await files.createExclusive(at, bytes);
  return files;
}

/** A file with any header and any number of data bytes. */
function file(header: unknown, dataBytes: number): Uint8Array {
  const json = join(typeof header === "string" ? header : JSON.stringify(header));
  return join(le(json.length, 8), json, new Uint8Array(dataBytes));
}

const samples: readonly (readonly [string, HostTensor])[] = [
  ["w", { dtype: "f32", shape: [2, 3], data: Float32Array.of(1, -2.5, Number.NaN, Number.POSITIVE_INFINITY, 0, -0) }],
  ["d", { dtype: "f64", shape: [2], data: Float64Array.of(Math.PI, -1e300) }],
  ["b", { dtype: "bf16", shape: [3], data: Uint16Array.of(0x3f80, 0xff80, 1) }],
  ["h", { dtype: "f16", shape: [1, 1], data: Uint16Array.of(0x3c00) }],
  ["i", { dtype: "i32", shape: [2], data: Int32Array.of(-(2 ** 31), 2 ** 31 - 1) }],
  ["u", { dtype: "u8", shape: [3], data: Uint8Array.of(0, 1, 255) }],
  ["scalar", { dtype: "f32", shape: [], data: Float32Array.of(7) }],
  ["empty", { dtype: "f32", shape: [0, 4], data: new Float32Array(0) }],
];

describe("round trip", () => {
  it("gives every type and shape back, from memory and from a file", async () => {
    const bytes = serializeSafetensors(samples, { format: "pt", note: 'é "q"' });
    const parsed = parseSafetensors(bytes, "x");
    const opened = await SafetensorsFile.open(await stored(bytes), path);
    expect(Object.fromEntries(parsed.metadata)).toEqual({ format: "pt", note: 'é "q"' });
    expect(opened.metadata).toEqual(parsed.metadata);
    expect([...opened.names].sort()).toEqual(samples.map(([name]) => name).sort());
    for (const [name, tensor] of samples) {
      expect(parsed.tensors.get(name)).toEqual(tensor);
      expect(await opened.read(name)).toEqual(tensor);
      expect(opened.describe(name)).toEqual({ dtype: tensor.dtype, shape: tensor.shape });
    }
    await opened.close();
  });

  it("gives the same bytes whatever the order, streamed or not, eager or lazy", async () => {
    const bytes = serializeSafetensors(samples);
    expect(serializeSafetensors([...samples].reverse())).toEqual(bytes);
    const files = memoryFiles();
    const lazy = samples.map(
      ([name, { dtype, shape, data }]) => [name, { dtype, shape, load: async () => data }] as const,
    );
    expect(await writeSafetensors(files, "m", new Map(lazy))).toBe(bytes.length);
    expect(await files.read("m")).toEqual(bytes);
  });

  it("aligns the data to 8 bytes and every tensor to its type", () => {
    const bytes = serializeSafetensors(samples);
    const length = new DataView(bytes.buffer).getUint32(0, true);
    expect(length % 8).toBe(0);
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
    for (const [name, { dtype, data }] of samples) {
      expect(header[name].data_offsets[0] % data.BYTES_PER_ELEMENT, `${name} ${dtype}`).toBe(0);
    }
  });

  it("reads tensors that are not aligned, and files without tensors", () => {
    const header = {
      a: { dtype: "U8", shape: [1], data_offsets: [0, 1] },
      b: { dtype: "F32", shape: [1], data_offsets: [1, 5] },
    };
    const bytes = file(header, 5);
    bytes.set([9, 0, 0, 0x80, 0x3f], bytes.length - 5);
    const { tensors } = parseSafetensors(bytes, "x");
    expect(tensors.get("a")?.data).toEqual(Uint8Array.of(9));
    expect(tensors.get("b")?.data).toEqual(Float32Array.of(1));
    expect(parseSafetensors(serializeSafetensors([]), "x").tensors.size).toBe(0);
  });

  it("keeps what it read when the file's bytes change later", async () => {
    const bytes = serializeSafetensors([["w", { dtype: "f32", shape: [1], data: Float32Array.of(3) }]]);
    const { tensors } = parseSafetensors(bytes, "x");
    bytes.fill(0);
    expect(tensors.get("w")?.data).toEqual(Float32Array.of(3));
  });
});

describe("types without a host form of their own", () => {
  const wide = (values: readonly bigint[]) => {
    const bytes = file(
      { n: { dtype: "I64", shape: [values.length], data_offsets: [0, 8 * values.length] } },
      8 * values.length,
    );
    values.forEach((value, i) => {
      new DataView(bytes.buffer).setBigInt64(bytes.length - 8 * (values.length - i), value, true);
    });
    return bytes;
  };

  it("reads I64 as i32 where it fits, and BOOL as u8", () => {
    const values = [0n, -1n, 2n ** 31n - 1n, -(2n ** 31n)];
    expect(parseSafetensors(wide(values), "x").tensors.get("n")).toEqual({
      dtype: "i32",
      shape: [4],
      data: Int32Array.from(values.map(Number)),
    });
    const bool = parseSafetensors(file({ n: { dtype: "BOOL", shape: [2], data_offsets: [0, 2] } }, 2), "x");
    expect(bool.tensors.get("n")).toEqual({ dtype: "u8", shape: [2], data: new Uint8Array(2) });
  });

  it.each([2n ** 31n, -(2n ** 31n) - 1n, 2n ** 32n, 2n ** 63n - 1n])("refuses the I64 value %s", (value) => {
    expect(() => parseSafetensors(wide([1n, value]), "x")).toThrow(
      `x: tensor "n" is I64 and is read as i32, but element 1 is ${value}: outside i32`,
    );
  });

  it("opens a file that holds a type without a form, and refuses only that tensor", async () => {
    const header = {
      a: { dtype: "F8_E4M3", shape: [4], data_offsets: [0, 4] },
      b: { dtype: "F32", shape: [1], data_offsets: [4, 8] },
    };
    const opened = await SafetensorsFile.open(await stored(file(header, 8)), path);
    expect((await opened.read("b")).data).toEqual(new Float32Array(1));
    await expect(opened.read("a")).rejects.toThrow(`${path}: tensor "a" has type F8_E4M3, which is not read; F64, F32`);
    expect(() => opened.describe("a")).toThrow(FormatError);
  });
});

describe("bad input", () => {
  const info = (change: object = {}) => ({ w: { dtype: "F32", shape: [2, 2], data_offsets: [0, 16], ...change } });

  it.each<readonly [string, Uint8Array, string]>([
    ["an empty file", new Uint8Array(0), "0 bytes: too short"],
    ["a Git LFS pointer", join("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"],
    [
      "a huge header",
      join(le(2 ** 40, 8), "{}"),
      "says its header has 1,099,511,627,776 bytes; the limit is 100,000,000",
    ],
    ["a length of 2^64 - 1", join(Array(8).fill(255), "{}"), "the limit is 100,000,000"],
    [
      "a header that is cut",
      join(le(1000, 8), '{"w":'),
      "13 bytes, but its header alone needs 1,008: the file is cut short",
    ],
    ["no object", file("[1]", 0), 'does not begin with "{"'],
    ["a space first", file(" {}", 0), 'does not begin with "{"'],
    ["JSON that is not", file('{"w": }', 0), "(header): line 1, column 7: expected a value"],
    [
      "a duplicate",
      file('{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w":1}', 0),
      'the key "w" stands here twice',
    ],
    ["an entry that is no object", file({ w: 1 }, 0), 'tensor "w": the header does not describe it with an object'],
    ["metadata that is no object", file({ __metadata__: 5 }, 0), "__metadata__ is not an object of strings"],
    ["metadata that is no text", file({ __metadata__: { a: 1 } }, 0), '__metadata__: "a" is not a string'],
    ["no dtype", file(info({ dtype: undefined }), 16), 'tensor "w": dtype is missing'],
    ["an unknown dtype", file(info({ dtype: "F12" }), 16), 'tensor "w": dtype "F12" is not known; known are F64, F32'],
    ["a dtype of the prototype", file(info({ dtype: "constructor" }), 16), 'dtype "constructor" is not known'],
    ["a negative size", file(info({ shape: [-2, -2] }), 16), "shape is not a list of sizes"],
    ["a fraction", file(info({ shape: [0.5, 8] }), 16), "shape is not a list of sizes"],
    ["NaN", file('{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}', 16), "expected a value"],
    [
      "infinite sizes",
      file('{"w":{"dtype":"F32","shape":[1e999],"data_offsets":[0,16]}}', 16),
      "shape is not a list of sizes",
    ],
    ["sizes as text", file(info({ shape: ["4"] }), 16), "shape is not a list of sizes"],
    ["too many axes", file(info({ shape: Array(33).fill(1) }), 16), "shape has 33 axes"],
    ["a product that overflows", file(info({ shape: [2 ** 30, 2 ** 30] }), 16), "is larger than any file"],
    ["an overflow before a 0", file(info({ shape: [2 ** 40, 2 ** 40, 0] }), 16), "is larger than any file"],
    ["no offsets", file(info({ data_offsets: undefined }), 16), "data_offsets is not a pair"],
    ["negative offsets", file(info({ data_offsets: [-16, 0] }), 16), "data_offsets is not a pair"],
    ["offsets backwards", file(info({ data_offsets: [16, 0] }), 16), "are -16 bytes"],
    [
      "a shape that lies",
      file(info({ shape: [2, 3] }), 16),
      "data_offsets 0 to 16 are 16 bytes, but F32 of shape (2, 3) is 24",
    ],
    ["a dtype that lies", file(info({ dtype: "BF16" }), 16), "are 16 bytes, but BF16 of shape (2, 2) is 8"],
    ["data that does not begin at 0", file(info({ data_offsets: [8, 24] }), 24), "it leaves a hole"],
    [
      "a hole",
      file({ ...info(), v: { dtype: "U8", shape: [1], data_offsets: [17, 18] } }, 18),
      'tensor "v" begins at byte 17',
    ],
    [
      "an overlap",
      file({ ...info(), v: { dtype: "U8", shape: [8], data_offsets: [8, 16] } }, 16),
      "it overlaps another tensor",
    ],
    ["two tensors in one place", file({ ...info(), v: info().w }, 16), "it overlaps another tensor"],
    ["one byte more", file(info(), 17), "the file is longer than it should be"],
    ["one byte less", file(info(), 15), "the file is cut short. Nothing was loaded."],
  ])("refuses %s", async (_, bytes, message) => {
    const opening = SafetensorsFile.open(await stored(bytes), path);
    await expect(opening).rejects.toThrow(FormatError);
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toThrow(path);
    expect(() => parseSafetensors(bytes, "memory")).toThrow(message);
  });

  it("says how short a file is", async () => {
    const bytes = serializeSafetensors([["w", { dtype: "f32", shape: [1000, 1000], data: new Float32Array(1e6) }]]);
    const files = await stored(bytes.subarray(0, 1_204_224));
    await expect(SafetensorsFile.open(files, path)).rejects.toThrow(
      `runs/x/model.safetensors: 1,204,224 bytes, but its header describes ${bytes.length.toLocaleString("en-US")}: the file is cut short. Nothing was loaded.`,
    );
  });

  it("names a missing file, a folder in its place and a missing tensor", async () => {
    const files = await stored(serializeSafetensors(samples));
    await expect(SafetensorsFile.open(files, "none")).rejects.toThrow("none: no such file");
    await expect(SafetensorsFile.open(files, "runs/x")).rejects.toThrow("runs/x: no such file");
    const opened = await SafetensorsFile.open(files, path);
    await expect(opened.read("nope")).rejects.toThrow(`${path}: has no tensor "nope"`);
    expect(() => opened.describe("constructor")).toThrow(FormatError);
  });

  it("escapes what a hostile name would do to a terminal", () => {
    const bytes = file({ "\u001b[2J": { dtype: "F32", shape: [1], data_offsets: [0, 1] } }, 1);
    expect(() => parseSafetensors(bytes, "x")).toThrow('tensor "\\u001b[2J"');
  });

  const small = serializeSafetensors(samples, { format: "pt" });
  async function readAll(bytes: Uint8Array): Promise<void> {
    const opened = await SafetensorsFile.open(await stored(bytes), path);
    for (const name of opened.names) await opened.read(name);
  }

  it("refuses a file cut at any byte", async () => {
    for (let length = 0; length < small.length; length++) {
      await expect(readAll(small.subarray(0, length)), `cut at ${length}`).rejects.toThrow(FormatError);
    }
  });

  it("ends every damaged file in tensors or a FormatError that names it", async () => {
    let read = 0;
    for (const bytes of flipped(small, 3000, 1)) {
      try {
        await readAll(bytes);
        read++;
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError);
        expect(String(error)).toContain(path);
      }
    }
    expect(read).toBeGreaterThan(50);
    expect(read).toBeLessThan(2950);
  });
});

describe("writing", () => {
  const w: HostTensor = { dtype: "f32", shape: [2], data: Float32Array.of(1, 2) };

  it.each<readonly [string, readonly (readonly [string, HostTensor])[], string]>([
    [
      "two of one name",
      [
        ["w", w],
        ["w", w],
      ],
      'm: cannot write tensor "w": two tensors have this name',
    ],
    ["a reserved name", [["__metadata__", w]], "a tensor must not have this name"],
    [
      "too little data",
      [["w", { ...w, shape: [3] }]],
      "f32 of shape (3) is 12 bytes of a Float32Array; its data is a Float32Array of 2",
    ],
    ["data of another type", [["w", { ...w, data: Int32Array.of(1, 2) }]], "its data is a Int32Array of 2 elements"],
    ["a bad shape", [["w", { ...w, shape: [-1] }]], "bad shape (-1)"],
  ])("refuses %s and leaves no file", async (_, tensors, message) => {
    const files = memoryFiles();
    await expect(writeSafetensors(files, "m", tensors)).rejects.toThrow(FormatError);
    await expect(writeSafetensors(files, "m", tensors)).rejects.toThrow(message);
    expect(await files.list("")).toEqual([]);
    expect(() => serializeSafetensors(tensors, undefined, "m")).toThrow(message);
  });

  it("keeps the old file when an atomic write fails at any operation", async () => {
    const old = serializeSafetensors([["w", w]]);
    const fresh = [
      ["v", w],
      ["w", w],
    ] as const;
    const counted = faultyFiles(await stored(old));
    await writeSafetensors(counted, path, fresh, { atomic: true });
    for (let failAt = 1; failAt <= counted.operations; failAt++) {
      const files = await stored(old);
      await expect(writeSafetensors(faultyFiles(files, { failAt }), path, fresh, { atomic: true })).rejects.toThrow(
        "runs/x",
      );
      const renamed = failAt === counted.operations; // the last one is the sync of the folder, after the rename
      expect(await files.read(path)).toEqual(renamed ? serializeSafetensors(fresh) : old);
      expect(await files.stat(`${path}.tmp`)).toBe(undefined);
    }
  });
});
