// Checkpoint formats: pytorch_model.bin: what CPython and PyTorch wrote, every way a hostile file can lie, and damaged copies.
import { memoryFiles } from "@diffmamba/files/memory";
import type { HostTensor } from "@diffmamba/tensor";
import { describe, expect, it } from "vitest";
import {
  dict,
  emptyTuple,
  flipped,
  global,
  join,
  reduce,
  tensor,
  torchFile,
  tuple,
  zip,
} from "./__fixtures__/build.js";
import { FormatError } from "./errors.js";
import { TorchBinFile } from "./torchBin.js";

const path = "m/pytorch_model.bin";

async function open(bytes: Uint8Array): Promise<TorchBinFile> {
  const files = memoryFiles();
  await files.makeDirectory("m");
  await files.createExclusive(path, bytes);
  return TorchBinFile.open(files, path);
}

async function readAll(bytes: Uint8Array): Promise<Record<string, HostTensor>> {
  const file = await open(bytes);
  const out: Record<string, HostTensor> = {};
  for (const name of file.names) out[name] = await file.read(name);
  return out;
}

const raw = (data: ArrayBufferView) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
const six = raw(Float32Array.of(0, 1, 2, 3, 4, 5));
const base64 = (encoded: string) => Uint8Array.from(atob(encoded), (char) => char.charCodeAt(0));

/** One tensor over a storage of six floats. */
const one = (shape: readonly number[], strides: readonly number[], offset = 0, length = 6) =>
  torchFile(dict({ w: tensor({ length, offset, shape, strides }) }), { 0: six });

describe("tensors", () => {
  it.each([
    ["contiguous", [2, 3], [3, 1], 0, [0, 1, 2, 3, 4, 5]],
    ["transposed", [3, 2], [1, 3], 0, [0, 3, 1, 4, 2, 5]],
    ["a slice", [2, 2], [3, 1], 1, [1, 2, 4, 5]],
    ["a part", [2], [1], 4, [4, 5]],
    ["every other", [3], [2], 1, [1, 3, 5]],
    ["three axes", [1, 2, 3], [6, 1, 2], 0, [0, 2, 4, 1, 3, 5]],
    ["an axis of one with any stride", [2, 1, 3], [3, 999, 1], 0, [0, 1, 2, 3, 4, 5]],
    ["repeated by a stride of 0", [2, 3], [0, 1], 3, [3, 4, 5, 3, 4, 5]],
    ["a scalar", [], [], 3, [3]],
    ["empty", [0, 3], [3, 1], 0, []],
    ["empty at the end", [0], [1], 6, []],
  ])("%s", async (_, shape, strides, offset, values) => {
    const { w } = await readAll(one(shape, strides, offset));
    expect(w).toEqual({ dtype: "f32", shape, data: Float32Array.from(values) });
  });

  it.each<readonly [string, ArrayBufferView, HostTensor["dtype"], HostTensor["data"]]>([
    ["DoubleStorage", Float64Array.of(Math.PI, 2), "f64", Float64Array.of(Math.PI, 2)],
    ["HalfStorage", Uint16Array.of(0x3c00, 0xfc00), "f16", Uint16Array.of(0x3c00, 0xfc00)],
    ["BFloat16Storage", Uint16Array.of(0x3f80, 0x7fc1), "bf16", Uint16Array.of(0x3f80, 0x7fc1)],
    ["LongStorage", BigInt64Array.of(-5n, 2147483647n), "i32", Int32Array.of(-5, 2147483647)],
    ["IntStorage", Int32Array.of(-5, 6), "i32", Int32Array.of(-5, 6)],
    ["ByteStorage", Uint8Array.of(5, 255), "u8", Uint8Array.of(5, 255)],
    ["BoolStorage", Uint8Array.of(0, 1), "u8", Uint8Array.of(0, 1)],
  ])("of a %s", async (storage, stored, dtype, data) => {
    const pickle = dict({ w: tensor({ storage, length: 2, shape: [2], strides: [1] }) });
    expect(await readAll(torchFile(pickle, { 0: raw(stored) }))).toEqual({ w: { dtype, shape: [2], data } });
  });

  it("that share a storage", async () => {
    const pickle = dict({
      a: tensor({ length: 6, shape: [2, 3], strides: [3, 1] }),
      b: tensor({ length: 6, shape: [2], strides: [1], offset: 4 }),
    });
    const { a, b } = await readAll(torchFile(pickle, { 0: six }));
    expect([...(a?.data ?? [])]).toEqual([0, 1, 2, 3, 4, 5]);
    expect([...(b?.data ?? [])]).toEqual([4, 5]);
  });

  it("wrapped as parameters or with attributes of their own", async () => {
    const plain = tensor({ length: 6, shape: [6], strides: [1] });
    const hooks = [...global("collections", "OrderedDict"), emptyTuple, reduce];
    const parameter = [...global("torch._utils", "_rebuild_parameter"), ...tuple(plain, [0x88], hooks), reduce];
    const inner = tuple(plain, [0x88], hooks);
    const fromType = [
      ...global("torch._tensor", "_rebuild_from_type_v2"),
      ...tuple(global("torch._utils", "_rebuild_parameter"), global("torch.nn.parameter", "Parameter"), inner, [0x7d]),
      reduce,
    ];
    const { p, q } = await readAll(torchFile(dict({ p: parameter, q: fromType }), { 0: six }));
    expect(p?.data).toEqual(Float32Array.of(0, 1, 2, 3, 4, 5));
    expect(q).toEqual(p);
  });

  it("of a type without a host form are refused alone", async () => {
    const pickle = dict({ w: tensor({ storage: "ShortStorage", length: 2, shape: [2], strides: [1] }) });
    const file = await open(torchFile(pickle, { 0: new Uint8Array(4) }));
    await expect(file.read("w")).rejects.toThrow(`${path}: tensor "w" has type I16, which is not read`);
    await expect(file.read("v")).rejects.toThrow(`${path}: has no tensor "v"`);
  });

  it("from LONG1 sizes, an empty dict, and describe before reading", async () => {
    const sized = [...tensor({ length: 6, shape: [6], strides: [1] })];
    const file = await open(torchFile(dict({ w: sized }), { 0: six }));
    expect(file.describe("w")).toEqual({ dtype: "f32", shape: [6] });
    expect(await readAll(torchFile(dict({})))).toEqual({});
  });
});

describe("archives", () => {
  const pickle = dict({ w: tensor({ length: 6, shape: [6], strides: [1] }) });
  const expected = Float32Array.of(0, 1, 2, 3, 4, 5);

  it.each([
    ["zip64 fields", { zip64: true }],
    ["data descriptors", { descriptors: true }],
    ["both", { zip64: true, descriptors: true }],
    ["a comment", { comment: "x".repeat(60_000) }],
  ])("with %s", async (_, options) => {
    expect((await readAll(torchFile(pickle, { 0: six }, options))).w?.data).toEqual(expected);
  });

  it("without a root folder and without a byte order", async () => {
    const bytes = zip([
      ["data.pkl", pickle],
      ["data/0", six],
    ]);
    expect((await readAll(bytes)).w?.data).toEqual(expected);
  });

  it.each<readonly [string, Uint8Array, string]>([
    [
      "big-endian storages",
      torchFile(pickle, { 0: six }, { order: "big" }),
      'its byte order is "big"; only "little" is read',
    ],
    ["compression", torchFile(pickle, { 0: six }, { method: 8 }), 'entry "archive/data.pkl" is compressed'],
    ["encryption", torchFile(pickle, { 0: six }, { flags: 1 }), 'entry "archive/data.pkl" is encrypted'],
    ["no pickle", zip([["archive/data/0", six]]), "a zip archive without exactly one data.pkl"],
    [
      "two pickles",
      zip([
        ["a/data.pkl", pickle],
        ["b/data.pkl", pickle],
      ]),
      "without exactly one data.pkl",
    ],
    [
      "entries of one name",
      zip([
        ["a/data.pkl", pickle],
        ["a/data.pkl", pickle],
      ]),
      'two entries are named "a/data.pkl"',
    ],
    ["the form before 1.6", join([0x80, 2, 0x8a, 10], "lots of old pickle"), "the form of PyTorch before 1.6"],
    ["a Git LFS pointer", join("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"],
    ["text", join("<html>not found</html>"), "22 bytes without the directory that ends a zip archive"],
    ["an empty file", new Uint8Array(0), "0 bytes without the directory"],
    ["a storage that is missing", torchFile(pickle, {}), 'tensor "w": the archive has no "archive/data/0"'],
    [
      "a storage that is short",
      torchFile(pickle, { 0: six.subarray(0, 20) }),
      '"archive/data/0" has 20 bytes, but 6 elements of F32 are 24',
    ],
    ["a storage that is long", torchFile(pickle, { 0: join(six, [0]) }), "has 25 bytes"],
  ])("refuses %s", async (_, bytes, message) => {
    await expect(open(bytes)).rejects.toThrow(FormatError);
    await expect(open(bytes)).rejects.toThrow(message);
    await expect(open(bytes)).rejects.toThrow(/^m\/pytorch_model\.bin: /);
  });

  it("names a file that is missing", async () => {
    await expect(TorchBinFile.open(memoryFiles(), "none.bin")).rejects.toThrow("none.bin: no such file");
  });
});

describe("pickles that CPython wrote", () => {
  // {"a": (2, 3), "b": (3, 2) transposed over a's storage, "c": (300, 2) with gaps}, an OrderedDict with `_metadata`
  const two =
    "gAJjY29sbGVjdGlvbnMKT3JkZXJlZERpY3QKcQApUnEBKFgBAAAAYXECY3RvcmNoLl91dGlscwpfcmVidWlsZF90ZW5zb3JfdjIKcQMoKFgHAAAAc3RvcmFnZXEEY3RvcmNoCkZsb2F0U3RvcmFnZQpxBVgBAAAAMHEGWAMAAABjcHVxB0sGdHEIUUsASwJLA4ZxCUsDSwGGcQqJaAApUnELdHEMUnENWAEAAABicQ5oAygoaARoBWgGaAdLBnRxD1FLAEsDSwKGcRBLAUsDhnERiWgAKVJxEnRxE1JxFFgBAAAAY3EVaAMoKGgEaAVYAQAAADFxFmgHSnARAQB0cRdRSwVNLAFLAoZxGGgKiWgAKVJxGXRxGlJxG3V9cRxYCQAAAF9tZXRhZGF0YXEdaAApUnEeWAAAAABxH31xIFgHAAAAdmVyc2lvbnEhSwFzc3NiLg==";
  const four =
    "gASVHgEAAAAAAACMC2NvbGxlY3Rpb25zlIwLT3JkZXJlZERpY3SUk5QpUpQojAFhlIwMdG9yY2guX3V0aWxzlIwSX3JlYnVpbGRfdGVuc29yX3YylJOUKCiMB3N0b3JhZ2WUjAV0b3JjaJSMDEZsb2F0U3RvcmFnZZSTlIwBMJSMA2NwdZRLBnSUUUsASwJLA4aUSwNLAYaUiWgCKVKUdJRSlIwBYpRoBygoaAhoC2gMaA1LBnSUUUsASwNLAoaUSwFLA4aUiWgCKVKUdJRSlIwBY5RoBygoaAhoC4wBMZRoDUpwEQEAdJRRSwVNLAFLAoaUaBCJaAIpUpR0lFKUdX2UjAlfbWV0YWRhdGGUaAIpUpSMAJR9lIwHdmVyc2lvbpRLAXNzc2Iu";
  const withProtocol = (encoded: string, protocol: number) => {
    const bytes = base64(encoded);
    bytes[1] = protocol;
    return bytes;
  };

  it.each([
    [2, withProtocol(two, 2)],
    [3, withProtocol(two, 3)],
    [4, withProtocol(four, 4)],
    [5, withProtocol(four, 5)],
  ])("protocol %d", async (_, pickle) => {
    const large = Float32Array.from({ length: 70_000 }, (_, i) => i);
    const { a, b, c } = await readAll(torchFile(pickle, { 0: six, 1: raw(large) }));
    expect(a?.data).toEqual(Float32Array.of(0, 1, 2, 3, 4, 5));
    expect(b).toEqual({ dtype: "f32", shape: [3, 2], data: Float32Array.of(0, 3, 1, 4, 2, 5) });
    expect(c?.shape).toEqual([300, 2]);
    expect([...(c?.data.slice(0, 4) ?? [])]).toEqual([5, 6, 8, 9]);
    expect(c?.data.at(-1)).toBe(5 + 299 * 3 + 1);
  });

  it.each([
    ["posix.system", "gAJ9cQBYAQAAAHdxAWNwb3NpeApzeXN0ZW0KcQJYCgAAAGVjaG8gcHduZWRxA4VxBFJxBXMu"],
    ["__builtin__.eval", "gAJ9cQBYAQAAAHdxAWNfX2J1aWx0aW5fXwpldmFsCnECWAMAAAAxKzFxA4VxBFJxBXMu"],
    ["posix.system", "gASVLAAAAAAAAAB9lIwBd5SMBXBvc2l4lIwGc3lzdGVtlJOUjAplY2hvIHB3bmVklIWUUpRzLg=="],
    ["builtins.eval", "gAWVJgAAAAAAAAB9lIwBd5SMCGJ1aWx0aW5zlIwEZXZhbJSTlIwDMSsxlIWUUpRzLg=="],
  ])("that call %s are refused", async (name, encoded) => {
    await expect(open(torchFile(base64(encoded)))).rejects.toThrow(
      `${path}: asks to call ${name}; refused: only tensors are read`,
    );
  });
});

describe("damaged files", () => {
  const pickle = dict({
    a: tensor({ length: 6, shape: [3, 2], strides: [1, 3] }),
    b: tensor({ storage: "BFloat16Storage", key: "1", length: 2, shape: [2], strides: [1] }),
  });
  const storages = { 0: six, 1: new Uint8Array(4) };
  const forms = [torchFile(pickle, storages), torchFile(pickle, storages, { zip64: true, descriptors: true })];

  it("are refused when cut at any byte", async () => {
    for (const bytes of forms) {
      for (let length = 0; length < bytes.length; length++) {
        await expect(readAll(bytes.subarray(0, length)), `cut at ${length}`).rejects.toThrow(FormatError);
      }
    }
  });

  it("end in tensors or a FormatError that names the file", async () => {
    let read = 0;
    for (const bytes of forms) {
      for (const damaged of flipped(bytes, 2500, 2)) {
        try {
          await readAll(damaged);
          read++;
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
          expect(String(error)).toContain(path);
        }
      }
    }
    expect(read).toBeGreaterThan(100);
    expect(read).toBeLessThan(4900);
  });

  it("end so too when only the pickle is damaged", async () => {
    let read = 0;
    for (const damaged of flipped(pickle, 2500, 3)) {
      try {
        await readAll(torchFile(damaged, storages));
        read++;
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError);
      }
    }
    expect(read).toBeGreaterThan(5);
  });
});
