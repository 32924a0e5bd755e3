// Layer: datasets, tests. Preparation: the same ids whatever the windows, splits to the byte, nothing left behind by a failure.
import { createHash } from "node:crypto";
import { type FileSystem, writeFileAtomic } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { faultyFiles } from "@diffmamba/files/testing";
import { CharacterTokenizer, HuggingFaceTokenizer, type Tokenizer, text8Tokenizer } from "@diffmamba/tokenizer";
import { describe, expect, it } from "vitest";
import { type ByteSource, memorySource } from "./byte-source.js";
import { dataSets, prepareDataSet } from "./data-sets.js";
import { type PrepareTextOptions, prepareBytes, prepareText } from "./prepare.js";
import { TokenStore } from "./store.js";
import { StoreError } from "./token-source.js";

const encoder = new TextEncoder();

/** A source that comes in windows of a given size. */
function inWindows(content: string | Uint8Array, size: number, name = "in/book.txt"): ByteSource {
  const bytes = typeof content === "string" ? encoder.encode(content) : content;
  return {
    name,
    async *open() {
      for (let at = 0; at < bytes.length; at += size) yield bytes.slice(at, at + size);
    },
  };
}

async function splitIds(store: TokenStore, name: string): Promise<Int32Array> {
  const split = store.split(name);
  return split.read(0, split.length);
}

async function splitText(store: TokenStore, name: string): Promise<string> {
  return (await store.loadTokenizer()).decode(await splitIds(store, name));
}

const text = "Größe 😀 — naïve\ncafé, “quoted”. ".repeat(40);

/** A byte-level tokenizer.json: 256 bytes and one merge, that of " t". */
function byteLevel(): object {
  const vocab: Record<string, number> = {};
  let moved = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    vocab[String.fromCharCode(printable ? byte : moved++)] = byte;
  }
  const level = { type: "ByteLevel", add_prefix_space: false };
  const model = { type: "BPE", vocab: { ...vocab, Ġt: 256 }, merges: ["Ġ t"] };
  return { model, normalizer: { type: "NFC" }, pre_tokenizer: level, decoder: level };
}

describe("prepareText", () => {
  it.each([1, 2, 3, 7, 64, 100_000])("gives the same store whatever the windows (%i bytes)", async (size) => {
    const files = memoryFiles();
    const splits = { valid: { fraction: 0.1 }, test: { bytes: 101 } };
    const store = await prepareText({ files, source: inWindows(text, size), out: "out/store", splits });
    const parts = await Promise.all(store.splitNames.map((name) => splitText(store, name)));
    expect(store.splitNames).toEqual(["train", "valid", "test"]);
    expect(parts.join("")).toBe(text);
    const total = encoder.encode(text).length;
    const [train, valid, test] = parts.map((part) => encoder.encode(part).length) as [number, number, number];
    // Boundaries move forward to the end of a character, by 3 bytes at most.
    expect(train - (total - Math.floor(total * 0.1) - 101)).toBeGreaterThanOrEqual(0);
    expect(train - (total - Math.floor(total * 0.1) - 101)).toBeLessThanOrEqual(3);
    expect(test).toBeGreaterThan(97);
    expect(test).toBeLessThanOrEqual(101);
    for (const [name, bytes] of [
      ["train", train],
      ["valid", valid],
      ["test", test],
    ] as const) {
      expect(store.split(name).bytes).toBe(bytes);
      expect(store.split(name).length).toBe([...(parts[store.splitNames.indexOf(name)] as string)].length);
    }
    expect(store.manifest).toMatchObject({
      name: "book.txt",
      dtype: "u8",
      vocabSize: new Set(text).size,
      source: {
        name: "book.txt",
        bytes: total,
        sha256: createHash("sha256").update(text).digest("hex"),
      },
      tokenizer: { kind: "characters" },
      options: { strip: false, newline: "keep" },
    });
    expect((await files.list("out")).map(({ name }) => name)).toEqual(["store"]);
    expect((await files.list("out/store")).map(({ name }) => name)).toEqual([
      "diffmamba_tokenizer.json",
      "store.json",
      "test.u8",
      "train.u8",
      "valid.u8",
    ]);
  });

  it("has a twentieth each for valid and test unless told, and may have no split at all", async () => {
    const files = memoryFiles();
    const source = memorySource("a", "abcdefghij".repeat(100));
    const store = await prepareText({ files, source, out: "a" });
    expect(store.splitNames.map((name) => store.split(name).length)).toEqual([900, 50, 50]);
    const whole = await prepareText({ files, source, out: "b", splits: {}, name: "letters" });
    expect(whole.splitNames).toEqual(["train"]);
    expect(whole.name).toBe("letters");
  });

  it.each([
    ["u16", new HuggingFaceTokenizer(byteLevel())],
    ["u8", CharacterTokenizer.fromText(`${text} the then\n`)],
  ] as [string, Tokenizer][])("encodes in windows as whole (%s)", async (dtype, tokenizer) => {
    const files = memoryFiles();
    const long = `${text} the then  the\n\n`.repeat(120); // more than one look for a place to cut
    const store = await prepareText({ files, source: inWindows(long, 1000), out: "s", splits: {}, tokenizer });
    expect(store.manifest.dtype).toBe(dtype);
    expect(await splitIds(store, "train")).toEqual(tokenizer.encode(long));
    expect((await store.loadTokenizer()).toJSON()).toEqual(tokenizer.toJSON());
  });

  it("gives up on a tokenizer that cannot be cut, once too much waits", async () => {
    const stubborn: Tokenizer = { ...CharacterTokenizer.fromText("a"), safeCut: () => 0 } as never;
    const files = memoryFiles();
    const source = inWindows("a".repeat(9_000_000), 1 << 20);
    await expect(prepareText({ files, source, out: "s", tokenizer: stubborn, splits: {} })).rejects.toThrow(
      /no place was found in \d+ characters/,
    );
  });

  it("strips each split, wherever the windows end", async () => {
    const padded = `  \n a b  c ${" ".repeat(50)}${" d e ".repeat(4)}   `;
    for (const size of [1, 2, 5, 1000]) {
      const files = memoryFiles();
      const source = inWindows(padded, size);
      const store = await prepareText({ files, source, out: "s", strip: true, splits: { test: { bytes: 23 } } });
      expect(await splitText(store, "train")).toBe("a b  c");
      expect(await splitText(store, "test")).toBe("d e  d e  d e  d e");
      expect(store.split("test").bytes).toBe(18);
    }
  });

  it("reports progress and can be stopped", async () => {
    const files = memoryFiles();
    const seen: string[] = [];
    const options = { files, source: inWindows(text, 500), splits: {} };
    await prepareText({
      ...options,
      out: "s",
      onProgress: ({ phase, bytes, total }) => seen.push(`${phase} ${bytes} ${total}`),
    });
    const total = encoder.encode(text).length;
    expect(seen[0]).toBe("measure 500 undefined");
    expect(seen.at(-1)).toBe(`encode ${total} ${total}`);
    const controller = new AbortController();
    const stopped = prepareText({
      ...options,
      out: "t",
      signal: controller.signal,
      onProgress: ({ phase }) => phase === "encode" && controller.abort(),
    });
    await expect(stopped).rejects.toThrow(/abort/i);
    expect((await files.list("")).map(({ name }) => name)).toEqual(["s"]);
  });
});

describe("prepareBytes", () => {
  const binary = Uint8Array.from({ length: 1000 }, (_, i) => (i * i) % 200);

  it("keeps every byte, with all 256 ids or those that occur", async () => {
    const files = memoryFiles();
    const source = inWindows(binary, 77, "b.bin");
    const all = await prepareBytes({ files, source, out: "all", splits: {} });
    expect(all.vocabSize).toBe(256);
    expect(Uint8Array.from(await splitIds(all, "train"))).toEqual(binary);
    const seen = await prepareBytes({ files, source, out: "seen", splits: {}, alphabet: "seen" });
    const values = [...new Set(binary)].sort((a, b) => a - b);
    expect(seen.vocabSize).toBe(values.length);
    expect([...(await splitIds(seen, "train"))]).toEqual([...binary].map((value) => values.indexOf(value)));
  });

  it("leaves newlines out as the reference does, and counts the bytes that stay", async () => {
    const files = memoryFiles();
    const source = inWindows("ab\n\nc\n".repeat(10), 7);
    const splits = { test: { bytes: 12 } };
    const store = await prepareBytes({ files, source, out: "s", splits, alphabet: "seen", newline: "drop" });
    expect(store.vocabSize).toBe(3);
    expect(await splitText(store, "train")).toBe("abc".repeat(8));
    expect(store.split("test")).toMatchObject({ length: 6, bytes: 6 });
    await expect(prepareBytes({ files, source: memorySource("n", "\n\n"), out: "t", newline: "drop" })).rejects.toThrow(
      "n: it holds nothing but newlines",
    );
  });

  it("splits inside a character, which bytes may", async () => {
    const files = memoryFiles();
    const store = await prepareBytes({
      files,
      source: memorySource("x", "aé"),
      out: "s",
      splits: { test: { bytes: 1 } },
    });
    expect([...(await splitIds(store, "train"))]).toEqual([0x61, 0xc3]);
  });
});

describe("what cannot be prepared", () => {
  const prepare = (content: string | Uint8Array, options: Partial<PrepareTextOptions> = {}, files = memoryFiles()) =>
    prepareText({ files, source: inWindows(content, 10), out: "s", ...options });

  it.each([
    ["an empty file", "", {}, "in/book.txt: it is empty (0 bytes): there is nothing to prepare"],
    [
      "no UTF-8",
      Uint8Array.of(0x61, 0x62, 0xff),
      {},
      "in/book.txt: byte 2 is not UTF-8 text; convert the file, or prepare it as bytes",
    ],
    [
      "a character outside the vocabulary",
      "some Text here",
      { tokenizer: text8Tokenizer(), splits: {} },
      'in/book.txt (split "train"): the character "T" (U+0054) at position 5 is not',
    ],
    [
      "splits that take everything",
      "abcdef",
      { splits: { valid: { bytes: 3 }, test: { bytes: 3 } } },
      "nothing is left to train on: valid (3 bytes) and test (3) take all of the source's 6 bytes",
    ],
    ["a split that would be empty", "abcdef", {}, 'split "valid" would be empty: the source has 6 bytes'],
    ["a split of half a character", "abc😀", { splits: { test: { bytes: 2 } } }, 'split "test" would be empty'],
    ["a split of spaces", "abc   ", { splits: { test: { bytes: 2 } }, strip: true }, 'split "test" has no tokens'],
    ["a share that is none", "abcdef", { splits: { test: { fraction: 1.5 } } }, 'split "test" wants { bytes'],
    ["a share of nothing", "abcdef", { splits: { valid: { bytes: 0 } } }, 'split "valid" wants { bytes'],
  ] as [string, string | Uint8Array, Partial<PrepareTextOptions>, string][])(
    "%s",
    async (_name, content, options, message) => {
      const files = memoryFiles();
      await expect(prepare(content, options, files)).rejects.toThrow(message);
      expect(await files.list("")).toEqual([]);
    },
  );

  it("a text with the wrong byte in the second pass only", async () => {
    const files = memoryFiles();
    await expect(
      prepare(Uint8Array.of(0x61, 0x62, 0xff), { tokenizer: text8Tokenizer(), splits: {} }, files),
    ).rejects.toThrow('in/book.txt (split "train"): byte 2 is not UTF-8');
  });

  it("a source that changes between the passes", async () => {
    const files = memoryFiles();
    let pass = 0;
    const source: ByteSource = { name: "x", open: () => memorySource("x", "ab".repeat(50 + pass++)).open() };
    await expect(prepareText({ files, source, out: "s" })).rejects.toThrow(
      "x: it changed while it was read: 100 bytes at first, then 102",
    );
  });

  it("a folder where something is, unless it may be overwritten", async () => {
    const files = memoryFiles();
    await prepare("abc".repeat(100), {}, files);
    await expect(prepare("xyz".repeat(100), {}, files)).rejects.toThrow(
      "s: something is already there; choose another folder",
    );
    const store = await prepare("xyz".repeat(100), { overwrite: true }, files);
    expect((await splitText(store, "train")).startsWith("xyz")).toBe(true);
    expect((await files.list("")).map(({ name }) => name)).toEqual(["s"]);
  });
});

describe("a preparation that fails at any operation", () => {
  const run = async (files: FileSystem, content: string) =>
    prepareText({ files, source: inWindows(content, 50), out: "s", overwrite: true });
  const begin = async () => {
    const inner = memoryFiles();
    await run(inner, "old ".repeat(100));
    return inner;
  };

  it.each(["error", "kill", "partial"] as const)(
    "leaves the old store or the new one, or none; never a part (%s)",
    async (mode) => {
      const counted = faultyFiles(await begin());
      await run(counted, "new ".repeat(100));
      let none = 0;
      for (let failAt = 1; failAt <= counted.operations; failAt++) {
        const inner = await begin();
        await run(faultyFiles(inner, { failAt, mode }), "new ".repeat(100)).catch(() => undefined);
        if (await inner.stat("s"))
          expect(["old ", "new "]).toContain((await splitText(await TokenStore.open(inner, "s"), "train")).slice(0, 4));
        else {
          none++;
          // Killed between moving the old store away and the new one in: both are whole under their other names.
          expect((await splitText(await TokenStore.open(inner, "s.old"), "train")).slice(0, 4)).toBe("old ");
          expect((await splitText(await TokenStore.open(inner, "s.tmp"), "train")).slice(0, 4)).toBe("new ");
        }
        // And the next run needs no help.
        expect((await splitText(await run(inner, "new ".repeat(100)), "train")).slice(0, 4)).toBe("new ");
      }
      expect(none).toBe(mode === "error" ? 0 : 1);
    },
  );

  it("says that the disk is full, and cleans up", async () => {
    const files = memoryFiles({ capacity: 500 });
    await expect(run(files, "more ".repeat(200))).rejects.toMatchObject({ code: "full", path: "s.tmp/train.u8" });
    expect(await files.list("")).toEqual([]);
  });
});

describe("prepareDataSet", () => {
  it("knows the paper's splits", () => {
    expect(Object.keys(dataSets)).toEqual(["text8", "enwik8", "wiki8"]);
    for (const { bytes, validBytes, testBytes } of Object.values(dataSets)) {
      expect(validBytes).toBe(bytes / 20);
      expect(testBytes).toBe(bytes / 20);
    }
  });

  it.each(["text8", "enwik8", "wiki8"])("refuses a file that is not the whole of %s", async (name) => {
    const files = memoryFiles();
    await writeFileAtomic(files, "part", "the first words ".repeat(10));
    await expect(prepareDataSet(name, { files, source: "part", out: "s" })).rejects.toThrow(
      new RegExp(
        `^part: this is not ${name}: it holds 160 bytes, and ${name} has \\d+,000,000\\. A part, or another text, must not carry the name of the whole`,
      ),
    );
    expect(await files.stat("s")).toBeUndefined();
  });

  it("refuses names and options that there are not", async () => {
    const files = memoryFiles();
    const options = { files, source: memorySource("x", "abc"), out: "s" };
    await expect(prepareDataSet("text9", options)).rejects.toThrow(
      "no data set has this name; there are text8, enwik8, wiki8",
    );
    await expect(prepareDataSet("text8", { ...options, newline: "drop" })).rejects.toThrow(StoreError);
  });
});
