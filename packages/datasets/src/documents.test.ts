// Layer: datasets, tests. Documents into shards; interrupted anywhere and taken up again to the same bytes; and what of a damaged store is
// named.
import { type FileSystem, joinPath, writeFileAtomic } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { faultyFiles } from "@diffmamba/files/testing";
import { ByteTokenizer, encodeTexts, type TextsEncoder, type Tokenizer, trainBpe } from "@diffmamba/tokenizer";
import { textsEncoder } from "@diffmamba/tokenizer/node";
import { describe, expect, it } from "vitest";
import { memorySource } from "./byte-source.js";
import { someDocuments } from "./documents.testing.js";
import { prepareText } from "./prepare.js";
import { type PrepareDocumentsOptions, prepareDocuments } from "./prepare-documents.js";
import { TokenStore } from "./store.js";
import type { TextSource } from "./text-source.js";

const listSource = (documents: readonly string[], name = "list"): TextSource => ({
  name,
  async *parts() {
    for (const text of documents) yield { text, ends: true };
  },
});

let trained: Promise<Tokenizer> | undefined;
const bpe = () => {
  trained ??= trainBpe([someDocuments(200).join("\n")], { vocabSize: 320 });
  return trained;
};

/** Every file below a folder with its content. */
async function contentOf(files: FileSystem, folder: string): Promise<Record<string, string>> {
  const content: Record<string, string> = {};
  for (const { name } of await files.list(folder)) {
    content[name] = Buffer.from(await files.read(joinPath(folder, name))).toString("base64");
  }
  return content;
}

/** The documents of a split, from the store. */
async function documentsOf(store: TokenStore, name: string): Promise<string[]> {
  const split = store.split(name);
  const tokenizer = await store.loadTokenizer();
  const texts: string[] = [];
  for (let i = 0; i < (split.documents?.count ?? 0); i++) {
    const [start, end] = (await split.documents?.range(i)) ?? [0, 0];
    texts.push(tokenizer.decode(await split.read(start, end - start), { skipSpecialTokens: true }));
  }
  return texts;
}

const documents = someDocuments(400);
const kept = documents.filter((text) => text !== "");

describe("prepareDocuments", () => {
  it("writes shards with an index, a token behind each document, and where documents begin", async () => {
    const files = memoryFiles();
    const tokenizer = await bpe();
    const store = await prepareDocuments({
      files,
      source: listSource(documents),
      out: "s",
      tokenizer,
      shardTokens: 5000,
    });
    const split = store.split("train");
    const { eos } = tokenizer.specialTokens;
    const expected = kept.flatMap((text) => [...tokenizer.encode(text), eos as number]);
    expect([...(await split.read(0, split.length))]).toEqual(expected);
    expect(await documentsOf(store, "train")).toEqual(kept);
    const { shards = [] } = store.manifest.splits.train ?? {};
    expect(shards.length).toBe(Math.ceil(expected.length / 5000));
    expect(shards.slice(0, -1).every(({ tokens }) => tokens === 5000)).toBe(true);
    expect(store.manifest).toMatchObject({
      version: 2,
      options: { eos },
      splits: { train: { tokens: expected.length } },
    });
    expect(split.bytes).toBe(new TextEncoder().encode(kept.join("")).length);
    // Windows across shards, and boundaries within them.
    expect([...(await split.read(4990, 5020))]).toEqual(expected.slice(4990, 10_010));
    const ends = expected.flatMap((id, i) => (id === eos && i >= 1000 && i + 1 < 1500 ? [i + 1] : []));
    expect(await split.documents?.startsBetween(1000, 1500)).toEqual(ends);
  });

  it("draws splits document by document, and is the same with threads", async () => {
    const tokenizer = await bpe();
    const run = async (more: Partial<PrepareDocumentsOptions>) => {
      const files = memoryFiles();
      const shares = { valid: 0.1, test: 0.2, seed: 5 };
      const store = await prepareDocuments({
        files,
        source: listSource(documents),
        out: "s",
        tokenizer,
        shares,
        ...more,
      });
      return { store, content: await contentOf(files, "s") };
    };
    const { store, content } = await run({});
    const parts = await Promise.all(["train", "valid", "test"].map((name) => documentsOf(store, name)));
    expect(parts.flat().sort()).toEqual([...kept].sort());
    expect((parts[1] as string[]).length / kept.length).toBeCloseTo(0.1, 1);
    expect((parts[2] as string[]).length / kept.length).toBeCloseTo(0.2, 1);
    expect((await run({ encoder: (of) => textsEncoder(of, { threads: 2 }) })).content).toEqual(content);
  });

  it("takes a source for each split, the characters of the texts, and no boundaries where told", async () => {
    const files = memoryFiles();
    const source = { train: listSource(["abc", "cab"]), test: listSource(["bb"]) };
    const store = await prepareDocuments({ files, source, out: "s", boundaries: false, name: "letters" });
    expect(store.splitNames).toEqual(["train", "test"]);
    expect(store.manifest).toMatchObject({ version: 1, name: "letters", vocabSize: 3 });
    expect([...(await store.split("train").read(0, 6))]).toEqual([0, 1, 2, 2, 0, 1]);
    expect(store.split("train").documents).toBeUndefined();
  });

  it("refuses what gives no store", async () => {
    const files = memoryFiles();
    const base = { files, out: "s", tokenizer: new ByteTokenizer() };
    await expect(prepareDocuments({ ...base, source: listSource(["", ""]) })).rejects.toThrow("list: it holds no text");
    await expect(prepareDocuments({ ...base, source: listSource(["a"]), eos: true })).rejects.toThrow(
      "has none for that (eos)",
    );
    await expect(prepareDocuments({ ...base, source: listSource(["a"]), shares: { valid: 2 } })).rejects.toThrow(
      'share "valid" wants',
    );
    await expect(prepareDocuments({ ...base, source: listSource(["a"]), shares: { valid: 0.001 } })).rejects.toThrow(
      'list: split "valid" has no tokens',
    );
    await expect(prepareDocuments({ ...base, source: listSource(["a"]), shardTokens: 0 })).rejects.toThrow(
      '"shardTokens" wants',
    );
    expect(await files.list("")).toEqual([]);
  });
});

describe("an interrupted preparation", () => {
  /** Long enough for many chunks. */
  const long = someDocuments(1500);
  const options = async (files: FileSystem): Promise<PrepareDocumentsOptions> => {
    const shares = { valid: 0.3 };
    return {
      files,
      source: listSource(long),
      out: "s",
      tokenizer: await bpe(),
      shares,
      resume: true,
      shardTokens: 50_000,
    };
  };
  let finished: Promise<Record<string, string>> | undefined;
  const whole = () => {
    finished ??= (async () => {
      const files = memoryFiles();
      await prepareDocuments(await options(files));
      return contentOf(files, "s");
    })();
    return finished;
  };

  it.each([1, 2, 3, 5])("that was stopped after %i chunks ends as one that was not", async (chunks) => {
    const files = memoryFiles();
    const stop = new AbortController();
    let encoded = 0;
    const counted = (of: Tokenizer): TextsEncoder => ({
      size: 1,
      encode: async (texts) => {
        if (++encoded > chunks) stop.abort(new Error("stopped"));
        return encodeTexts(of, texts);
      },
    });
    await expect(
      prepareDocuments({ ...(await options(files)), encoder: counted, signal: stop.signal }),
    ).rejects.toThrow("stopped");
    expect((await files.list("")).map(({ name }) => name)).toEqual(["s.tmp"]);
    await expect(TokenStore.open(files, "s.tmp")).rejects.toThrow("cannot read s.tmp/store.json: no such file");
    const before = encoded;
    encoded = -1_000_000;
    await prepareDocuments({ ...(await options(files)), encoder: counted });
    expect(encoded + 1_000_000).toBeGreaterThan(0);
    expect(before).toBeGreaterThanOrEqual(chunks);
    expect(await contentOf(files, "s")).toEqual(await whole());
    expect((await files.list("")).map(({ name }) => name)).toEqual(["s"]);
  });

  it("does not encode again what is on the disk", async () => {
    const count = async (files: FileSystem, stopAt: number) => {
      const stop = new AbortController();
      let encoded = 0;
      const encoder = (of: Tokenizer): TextsEncoder => ({
        size: 1,
        encode: async (texts) => {
          if (++encoded > stopAt) stop.abort(new Error("stopped"));
          return encodeTexts(of, texts);
        },
      });
      await prepareDocuments({ ...(await options(files)), encoder, signal: stop.signal }).catch(() => undefined);
      return encoded;
    };
    const files = memoryFiles();
    const all = await count(memoryFiles(), Infinity);
    await count(files, 3);
    expect(await count(files, Infinity)).toBeLessThanOrEqual(all - 2);
  });

  it("goes on after the process was killed at any operation", async () => {
    const text = someDocuments(60).join("\n");
    const run = async (files: FileSystem) => {
      const source = memorySource("book.txt", text);
      return prepareText({ files, source, out: "s", tokenizer: await bpe(), resume: true, shardTokens: 700 });
    };
    const expected = memoryFiles();
    const counted = faultyFiles(expected);
    await run(counted);
    for (const mode of ["kill", "partial"] as const) {
      for (let failAt = 1; failAt <= counted.operations; failAt++) {
        const files = memoryFiles();
        await run(faultyFiles(files, { failAt, mode })).catch(() => undefined);
        if (await files.stat("s")) await TokenStore.open(files, "s");
        else await run(files);
        expect(await contentOf(files, "s")).toEqual(await contentOf(expected, "s"));
      }
    }
  });

  it("starts anew where the source, the tokenizer or a file is another than before", async () => {
    const stopped = async () => {
      const files = memoryFiles();
      const stop = new AbortController();
      let encoded = 0;
      const encoder = (of: Tokenizer): TextsEncoder => ({
        size: 1,
        encode: async (texts) => {
          if (++encoded > 3) stop.abort(new Error("stopped"));
          return encodeTexts(of, texts);
        },
      });
      await expect(prepareDocuments({ ...(await options(files)), encoder, signal: stop.signal })).rejects.toThrow(
        "stopped",
      );
      return files;
    };
    const changed = [...long];
    changed[3] = "something else";
    const expected = memoryFiles();
    await prepareDocuments({ ...(await options(expected)), source: listSource(changed) });
    const files = await stopped();
    await prepareDocuments({ ...(await options(files)), source: listSource(changed) });
    expect(await contentOf(files, "s")).toEqual(await contentOf(expected, "s"));

    const shortened = await stopped();
    await shortened.truncate("s.tmp/train.u16", 10);
    await prepareDocuments(await options(shortened));
    expect(await contentOf(shortened, "s")).toEqual(await whole());

    const other = await stopped();
    const store = await prepareDocuments({ ...(await options(other)), tokenizer: new ByteTokenizer() });
    expect(store.vocabSize).toBe(256);
    expect((await documentsOf(store, "train")).length).toBeGreaterThan(1000);
  });
});

describe("a store in shards", () => {
  const prepared = async () => {
    const files = memoryFiles();
    const tokenizer = new ByteTokenizer();
    await prepareDocuments({ files, source: listSource(documents), out: "s", tokenizer, shardTokens: 5000 });
    return files;
  };

  it("is not opened where a shard or the index of documents is cut off, missing or longer", async () => {
    for (const name of ["train.u8", "train.2.u8", "train.docs"]) {
      const files = await prepared();
      const size = (await files.stat(`s/${name}`))?.size ?? 0;
      await files.truncate(`s/${name}`, size - 3);
      await expect(TokenStore.open(files, "s")).rejects.toThrow(`s/${name}: it holds ${size - 3} bytes, but`);
      await files.remove(`s/${name}`);
      await expect(TokenStore.open(files, "s")).rejects.toThrow(`s/${name}: the file of split "train" is missing`);
    }
  });

  it("is not opened where the sum of its shards is not its tokens", async () => {
    const files = await prepared();
    const manifest = JSON.parse(Buffer.from(await files.read("s/store.json")).toString());
    manifest.splits.train.shards.pop();
    await writeFileAtomic(files, "s/store.json", JSON.stringify(manifest));
    await expect(TokenStore.open(files, "s")).rejects.toThrow('its "splits.train" is');
  });

  it("names a document whose place is impossible", async () => {
    const files = await prepared();
    const places = (await files.read("s/train.docs")).slice();
    places.set([255, 255, 255], 16);
    await writeFileAtomic(files, "s/train.docs", places);
    const store = await TokenStore.open(files, "s");
    await expect(store.split("train").documents?.start(0)).rejects.toThrow(
      "s/train.docs: document 2 begins at token 16777215",
    );
    await expect(store.split("train").documents?.start(-1)).rejects.toThrow("document -1 was asked for");
  });
});
