// Layer: datasets, tests. The store: windows, the cache's bounds, and a damaged store named by file, place and value.
import { type FileSystem, joinPath, readJson, writeFileAtomic } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { ByteTokenizer, saveTokenizer, text8Tokenizer } from "@diffmamba/tokenizer";
import { describe, expect, it } from "vitest";
import { TokenStore } from "./store.js";
import { arraySource, packTokens, StoreError, type TokenType, tokenTypeFor } from "./token-source.js";

const ids = Int32Array.from({ length: 1000 }, (_, i) => (i * 7919) % 251);

async function storeOf(type: TokenType, vocabSize: number, values = ids): Promise<FileSystem> {
  const files = memoryFiles();
  await files.makeDirectory("store");
  await writeFileAtomic(files, `store/train.${type}`, packTokens(values, type));
  const manifest = {
    format: "diffmamba-token-store",
    version: 1,
    name: "test",
    dtype: type,
    vocabSize,
    source: { name: "x.txt", bytes: 1000, sha256: "" },
    tokenizer: { kind: "bytes", sha256: "" },
    options: { strip: false, newline: "keep" },
    splits: { train: { file: `train.${type}`, tokens: values.length, bytes: 1000 } },
  };
  await writeFileAtomic(files, "store/store.json", JSON.stringify(manifest));
  return files;
}

async function change(files: FileSystem, edit: (manifest: Record<string, unknown>) => unknown): Promise<void> {
  const manifest = (await readJson(files, "store/store.json")) as Record<string, unknown>;
  await writeFileAtomic(files, "store/store.json", JSON.stringify(edit(manifest)));
}

describe("TokenStore", () => {
  it.each([
    ["u8", 256, 0],
    ["u16", 50_277, 40_000],
    ["u32", 2 ** 31, 2 ** 31 - 300],
  ] as const)("reads any range of %s", async (type, vocabSize, offset) => {
    const values = ids.map((id) => id + offset);
    const files = await storeOf(type, vocabSize, values);
    const split = (await TokenStore.open(files, "store", { windowTokens: 64, cacheBytes: 1 })).split("train");
    expect(split.length).toBe(1000);
    expect(split.bytes).toBe(1000);
    expect(split.vocabSize).toBe(vocabSize);
    for (const [start, count] of [
      [0, 1000],
      [63, 2],
      [64, 64],
      [999, 1],
      [1000, 0],
      [100, 333],
    ] as const) {
      expect(await split.read(start, count)).toEqual(values.slice(start, start + count));
    }
  });

  it("reads each window once while it is in the cache, and no more than fit", async () => {
    const files = await storeOf("u16", 256);
    let reads = 0;
    const counted: FileSystem = {
      ...files,
      readRange: (path, start, count) => {
        reads++;
        return files.readRange(path, start, count);
      },
    };
    const split = (await TokenStore.open(counted, "store", { windowTokens: 100, cacheBytes: 3 * 200 })).split("train");
    await Promise.all([split.read(0, 10), split.read(20, 10), split.read(90, 20)]);
    expect(reads).toBe(2);
    await split.read(200, 100);
    await split.read(0, 100);
    expect(reads).toBe(3);
    await split.read(300, 1); // pushes out window 1, which was used longest ago
    await split.read(0, 1);
    await split.read(250, 1);
    expect(reads).toBe(4);
    await split.read(100, 1);
    expect(reads).toBe(5);
  });

  it("tries a failed read again", async () => {
    const files = await storeOf("u8", 256);
    let fails = true;
    const flaky: FileSystem = {
      ...files,
      readRange: (path, start, count) =>
        fails ? Promise.reject(new Error("gone")) : files.readRange(path, start, count),
    };
    const split = (await TokenStore.open(flaky, "store")).split("train");
    await expect(split.read(0, 1)).rejects.toThrow("gone");
    fails = false;
    expect(await split.read(0, 1)).toHaveLength(1);
  });

  it("names the file, the place and the value of a token outside the vocabulary", async () => {
    const values = ids.slice();
    values[777] = 251;
    const split = (await TokenStore.open(await storeOf("u8", 251, values), "store", { windowTokens: 100 })).split(
      "train",
    );
    await split.read(0, 700);
    await expect(split.read(790, 5)).rejects.toThrow(
      "store/train.u8: token 777 is 251, outside the vocabulary of 251 (0 to 250); the data is damaged",
    );
    await expect(split.read(790, 5)).rejects.toThrow(StoreError);
  });

  it("refuses a range outside the split", async () => {
    const split = (await TokenStore.open(await storeOf("u8", 256), "store")).split("train");
    await expect(split.read(990, 11)).rejects.toThrow(
      "store/train.u8: tokens 990 to 1001 were asked for, but it holds 1000",
    );
    await expect(split.read(-1, 1)).rejects.toThrow(RangeError);
  });

  it("names a file that is cut off or missing", async () => {
    const files = await storeOf("u16", 256);
    await files.truncate("store/train.u16", 1999);
    await expect(TokenStore.open(files, "store")).rejects.toThrow(
      "store/train.u16: it holds 1999 bytes, but 1000 tokens of u16 are 2000; prepare the store again",
    );
    await files.remove("store/train.u16");
    await expect(TokenStore.open(files, "store")).rejects.toThrow(
      'store/train.u16: the file of split "train" is missing',
    );
  });

  it("names a folder that is none, a split that is none, and a manifest that is none", async () => {
    const files = await storeOf("u8", 256);
    await expect(TokenStore.open(files, "elsewhere")).rejects.toThrow("cannot read elsewhere/store.json: no such file");
    const store = await TokenStore.open(files, "store");
    expect(store.splitNames).toEqual(["train"]);
    expect(() => store.split("valid")).toThrow('store: there is no split "valid"; it has train');
    expect(() => store.split("toString")).toThrow("there is no split");
    await writeFileAtomic(files, "store/store.json", "{");
    await expect(TokenStore.open(files, "store")).rejects.toThrow("store/store.json: it does not hold JSON");
  });

  it.each([
    ["format", { format: "other" }, 'its "format" is "other"; expected "diffmamba-token-store"'],
    ["version", { version: 3 }, 'its "version" is 3; expected 1 or 2'],
    ["dtype", { dtype: "f32" }, 'its "dtype" is "f32"'],
    ["vocabSize", { vocabSize: 0 }, 'its "vocabSize" is 0'],
    ["name", { name: 1 }, 'its "name" is 1'],
    ["no splits", { splits: {} }, 'its "splits" is {}'],
    ["a split without tokens", { splits: { train: { file: "train.u8", bytes: 1 } } }, 'its "splits.train" is'],
    ["a path out of the folder", { splits: { train: { file: "../x", tokens: 1, bytes: 1 } } }, 'its "splits.train" is'],
  ])("refuses a manifest with a wrong %s", async (_name, wrong, message) => {
    const files = await storeOf("u8", 256);
    await change(files, (manifest) => ({ ...manifest, ...wrong }));
    await expect(TokenStore.open(files, "store")).rejects.toThrow(`store/store.json: ${message}`);
  });

  it("gives its tokenizer, and notices another one", async () => {
    const files = await storeOf("u8", 256);
    await saveTokenizer(files, "store", new ByteTokenizer());
    const store = await TokenStore.open(files, "store");
    expect((await store.loadTokenizer()).kind).toBe("bytes");
    await saveTokenizer(files, "store", text8Tokenizer());
    await expect(store.loadTokenizer()).rejects.toThrow("its tokenizer has 27 tokens, but the store was made with 256");
    expect(joinPath(store.path, "x")).toBe("store/x");
  });
});

describe("arraySource", () => {
  it("reads copies, and checks its ids once", async () => {
    const values = Int32Array.of(1, 2, 3);
    const source = arraySource(values, { name: "three", vocabSize: 4, bytes: 3 });
    const read = await source.read(1, 2);
    read[0] = 99;
    expect([...values]).toEqual([1, 2, 3]);
    expect(source).toMatchObject({ length: 3, vocabSize: 4, bytes: 3 });
    expect(() => arraySource(values, { name: "three", vocabSize: 3 })).toThrow(
      "three: token 2 is 3, outside the vocabulary of 3",
    );
    expect(() => arraySource(Int32Array.of(-1), { vocabSize: 3 })).toThrow("token 0 is -1");
    await expect(source.read(2, 2)).rejects.toThrow("three: tokens 2 to 4 were asked for");
  });
});

describe("tokenTypeFor", () => {
  it("is the smallest that holds every id", () => {
    expect([27, 256, 257, 65_536, 65_537].map(tokenTypeFor)).toEqual(["u8", "u8", "u16", "u16", "u32"]);
  });
});
