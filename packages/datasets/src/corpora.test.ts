// Layer: datasets, tests. The corpora known by name: their forms read, their wholeness checked, fetched from a server on this machine; and on
// real data where DIFFMAMBA_DATA names a folder that holds it.
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { writeFileAtomic } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { nodeFiles } from "@diffmamba/files/node";
import { ByteTokenizer } from "@diffmamba/tokenizer";
import { zipSync } from "fflate";
import { parquetWriteBuffer } from "hyparquet-writer";
import { packTar } from "modern-tar";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { tarFiles, zipEntrySource } from "./archives.js";
import { babiSamples, babiSources, babiText } from "./babi.js";
import { type ByteSource, fileSource, memorySource } from "./byte-source.js";
import { fetchDataSet, pg19Counts, pg19Sources } from "./corpora.js";
import { prepareDataSet } from "./data-sets.js";
import { prepareDocuments } from "./prepare-documents.js";
import { type TestServer, testServer } from "./server.testing.js";
import { countedLines, prepareWikiText, wikiText103 } from "./wikitext.js";

const data = process.env.DIFFMAMBA_DATA ?? "";
const has = (name: string) => data !== "" && existsSync(`${data}/${name}`);
const utf8 = (text: string) => new TextEncoder().encode(text);

async function collect(source: ByteSource): Promise<string> {
  const parts: Uint8Array[] = [];
  for await (const part of source.open()) parts.push(part.slice());
  return Buffer.concat(parts).toString();
}

describe("archives", () => {
  const files = memoryFiles();
  const content = "some text\n".repeat(50_000);

  it("give a file of a zip, or its only one", async () => {
    await writeFileAtomic(files, "one.zip", zipSync({ "folder/text8": utf8(content), "__MACOSX/x": utf8("?") }));
    expect((await collect(fileSource(files, "one.zip"))) === content).toBe(true);
    await writeFileAtomic(
      files,
      "two.zip",
      zipSync({ "a.txt": utf8("first"), "b.txt": [utf8("second"), { level: 0 }] }),
    );
    expect(await collect(zipEntrySource(files, "two.zip", (name) => name === "b.txt"))).toBe("second");
    await expect(collect(fileSource(files, "two.zip"))).rejects.toThrow(
      "two.zip: it holds more than one file (a.txt, b.txt, ...)",
    );
    await expect(collect(zipEntrySource(files, "two.zip", () => false))).rejects.toThrow("is not in this zip");
  });

  it("name a zip that is cut off, or none", async () => {
    const zip = zipSync({ text8: utf8(content) });
    for (const length of [100, zip.length - 200]) {
      await writeFileAtomic(files, "cut.zip", zip.slice(0, length));
      await expect(collect(fileSource(files, "cut.zip"))).rejects.toThrow(
        /cut\.zip: its zip data is damaged or cut off/,
      );
    }
    await writeFileAtomic(files, "no.zip", "no zip at all");
    await expect(collect(fileSource(files, "no.zip"))).rejects.toThrow(
      "no.zip: its name says zip, but its content is not",
    );
  });

  it("give the files of a tar, and name one that is cut off", async () => {
    const entry = (name: string, text: string) => ({
      header: { name, size: utf8(text).length, type: "file" as const },
      body: text,
    });
    const tar = await packTar([
      { header: { name: "d/", size: 0, type: "directory" } },
      entry("d/a.txt", "first"),
      entry("d/b.txt", content),
    ]);
    const found: string[] = [];
    for await (const { name, content: bytes } of tarFiles(memorySource("a.tar", tar)))
      found.push(`${name} ${bytes.length}`);
    expect(found).toEqual(["d/a.txt 5", `d/b.txt ${content.length}`]);
    const read = async (bytes: Uint8Array) => {
      for await (const _ of tarFiles(memorySource("a.tar", bytes)));
    };
    await expect(read(tar.slice(0, 100_000))).rejects.toThrow(/a\.tar: its tar data is damaged or cut off/);
    const wrong = tar.slice();
    wrong[700] = 0x41;
    await expect(read(wrong)).rejects.toThrow(/a\.tar: its tar data is damaged or cut off/);
  });
});

describe("a stand-in for text8", () => {
  it("of its size and its symbols is told by its checksum", { timeout: 300_000 }, async () => {
    const window = utf8("anarchism originated as a term of abuse ".repeat(25_000));
    const source: ByteSource = {
      name: "text8",
      async *open() {
        for (let i = 0; i < 100; i++) yield window;
      },
    };
    const files = memoryFiles();
    await expect(prepareDataSet("text8", { files, source, out: "s" })).rejects.toThrow(
      /^text8: this is not text8: its md5 is [0-9a-f]{32}, but 3bea1919949baf155f99411df5fada7e was published/,
    );
    expect(await files.list("")).toEqual([]);
  });
});

/** A WikiText of a few lines, and its counts by hand. */
const lines = {
  train: [" \n", " = One = \n", " \n", " the cat <unk> sat , the cat sat . \n", " the mat \n"],
  valid: [" the mat @-@ cat \n", " \n"],
  test: [" = Two = \n", " a dog \n"],
};
const counts = {
  train: { words: 3 + 9 + 2, lines: 5 },
  valid: { words: 4, lines: 2 },
  test: { words: 3 + 2, lines: 2 },
};

describe("WikiText-103", () => {
  const parquetOf = (rows: readonly string[]) =>
    new Uint8Array(parquetWriteBuffer({ columnData: [{ name: "text", data: [...rows], type: "STRING" }] }));
  /** Rows as the hub has them: empty lines are empty. */
  const rowsOf = (split: keyof typeof lines) => lines[split].map((line) => (line === " \n" ? "" : line));

  async function inEveryForm(kind: "tokens" | "raw") {
    const files = memoryFiles();
    const names = Object.keys(lines) as (keyof typeof lines)[];
    const entries = names.map((split) => [`wikitext-103/wiki.${split}.${kind}`, utf8(lines[split].join(""))] as const);
    await writeFileAtomic(files, "w.zip", zipSync(Object.fromEntries(entries)));
    await files.makeDirectory("plain");
    for (const split of names) await writeFileAtomic(files, `plain/wiki.${split}.${kind}`, lines[split].join(""));
    const folder = `hub/wikitext-103-${kind === "raw" ? "raw-" : ""}v1`;
    await files.makeDirectory(folder);
    await writeFileAtomic(files, `${folder}/train-00000-of-00002.parquet`, parquetOf(rowsOf("train").slice(0, 3)));
    await writeFileAtomic(files, `${folder}/train-00001-of-00002.parquet`, parquetOf(rowsOf("train").slice(3)));
    await writeFileAtomic(files, `${folder}/validation-00000-of-00001.parquet`, parquetOf(rowsOf("valid")));
    await writeFileAtomic(files, `${folder}/test-00000-of-00001.parquet`, parquetOf(rowsOf("test")));
    return files;
  }
  const words = (rows: readonly string[], ends: number) =>
    rows.flatMap((line) => {
      const found = line.split(/\s+/).filter((word) => word !== "");
      return [...found, ...Array<string>(found.length > 0 ? ends : 1).fill("<eos>")];
    });

  it.each(["w.zip", "plain", "hub"])("is the same word by word from %s", async (from) => {
    const files = await inEveryForm("tokens");
    for (const [lineEnds, ends] of [
      ["standard", 1],
      ["doubled", 2],
    ] as const) {
      const store = await prepareWikiText({ files, from, out: "s", level: "words", lineEnds, overwrite: true }, counts);
      const tokenizer = await store.loadTokenizer();
      const vocabulary = (tokenizer.toJSON() as { words: string[] }).words;
      expect(vocabulary).toEqual(["<eos>", "the", "=", "cat", "sat", "One", "<unk>", ",", ".", "mat"]);
      for (const split of ["train", "valid", "test"] as const) {
        const known = words(lines[split], ends).map((word) => (vocabulary.includes(word) ? word : "<unk>"));
        const ids = await store.split(split).read(0, store.split(split).length);
        expect([...ids].map((id) => vocabulary[id])).toEqual(known);
      }
      expect(store.name).toBe(lineEnds === "standard" ? "wikitext-103" : "wikitext-103-doubled");
      expect(store.split("valid").length).toBe(counts.valid.words + counts.valid.lines + (ends - 1));
    }
  });

  it.each(["w.zip", "plain", "hub"])("is the archive's text for any tokenizer from %s", async (from) => {
    const files = await inEveryForm("raw");
    const store = await prepareWikiText(
      { files, from, out: "s", level: "raw", tokenizer: new ByteTokenizer() },
      counts,
    );
    const tokenizer = await store.loadTokenizer();
    for (const split of ["train", "valid", "test"] as const) {
      const ids = await store.split(split).read(0, store.split(split).length);
      expect(tokenizer.decode(ids)).toBe(lines[split].join(""));
    }
  });

  it("is nothing else, and nothing less", async () => {
    const files = await inEveryForm("tokens");
    const prepare = (from: string) => prepareWikiText({ files, from, out: "s", level: "words" });
    await expect(prepare("plain")).rejects.toThrow(
      "this is not WikiText-103: its train split has 14 words in 5 lines, and WikiText-103 has 101425671 in 1801350",
    );
    await files.remove("plain/wiki.valid.tokens");
    await expect(prepare("plain")).rejects.toThrow(
      "plain: it has neither wiki.valid.tokens nor wikitext-103-v1/valid-*.parquet",
    );
    await writeFileAtomic(files, "w.txt", "x");
    await expect(prepare("w.txt")).rejects.toThrow(
      "w.txt: a .zip or a folder with the files of WikiText-103 was expected",
    );
    expect(await files.stat("s")).toBeUndefined();
    // The published counts of tokens are those of words and lines.
    const tokens = Object.values(wikiText103).map((split) => split.words + split.lines);
    expect(tokens).toEqual([103_227_021, 217_646, 245_569]);
  });

  it.skipIf(!has("wiki.test.raw.gz"))(
    "has the known counts in its test text (needs DIFFMAMBA_DATA with wiki.test.raw.gz)",
    async () => {
      const raw = gunzipSync(readFileSync(`${data}/wiki.test.raw.gz`)).toString();
      const source = (text: string) => ({
        name: "wiki.test.raw",
        async *parts() {
          for (const line of text.split("\n").slice(0, -1)) yield { text: `${line}\n`, ends: false };
        },
      });
      const read = async (text: string) => {
        for await (const _ of countedLines(source(text), "test", wikiText103).parts());
      };
      await read(raw);
      await expect(read(raw.replace("Robert", "Ro bert"))).rejects.toThrow("has 241212 words in 4358 lines");
    },
  );
});

describe("bAbI", () => {
  const story =
    "1 Mary moved to the bathroom.\n2 John went to the hall.\n3 Where is Mary? \tbathroom\t1\n4 Mary left.\n5 Where is John? \thall\t2\n1 New.\n2 What? \tnew,old\t1\n";
  const samples = async (text: string) => {
    const found = [];
    for await (const sample of babiSamples(memorySource("qa1.txt", text), 1)) found.push(sample);
    return found;
  };

  it("is read question by question", async () => {
    expect(await samples(story)).toEqual([
      {
        task: 1,
        facts: ["Mary moved to the bathroom.", "John went to the hall."],
        question: "Where is Mary?",
        answer: "bathroom",
        support: [0],
      },
      {
        task: 1,
        facts: ["Mary moved to the bathroom.", "John went to the hall.", "Mary left."],
        question: "Where is John?",
        answer: "hall",
        support: [1],
      },
      { task: 1, facts: ["New."], question: "What?", answer: "new,old", support: [0] },
    ]);
    const [first] = await samples(story);
    expect(first && babiText(first)).toBe(
      "<context> \nMary moved to the bathroom. John went to the hall.\n</context>\n\nQuestion: Where is Mary? Answer: bathroom",
    );
    await expect(samples("no number\n")).rejects.toThrow("qa1.txt: line 1 does not begin with its number");
    await expect(samples("1 A.\n2 Q? \ta\t7\n")).rejects.toThrow("line 2 is supported by line 7, which is no sentence");
  });

  const place = (task: number, split: string) => `tasks_1-20_v1-2/en/qa${task}_some-name_${split}.txt`;

  it("is prepared from the archive, and refused where a task is missing", async () => {
    const files = memoryFiles();
    const entries = [1, 2].flatMap((task) =>
      ["train", "test"].map((split) => ({
        header: { name: place(task, split), size: story.length, type: "file" as const },
        body: story,
      })),
    );
    await writeFileAtomic(files, "babi.tar", await packTar(entries));
    const source = await babiSources(files, "babi.tar", { tasks: [1, 2] });
    const store = await prepareDocuments({ files, source, out: "s", name: "babi", tokenizer: new ByteTokenizer() });
    expect(store.splitNames).toEqual(["train", "test"]);
    expect(store.split("train").documents?.count).toBe(6);
    await expect(babiSources(files, "babi.tar")).rejects.toThrow(
      `babi.tar: this is not all of bAbI's "en": it lacks qa3 (train), qa4 (train), qa5 (train), qa6 (train), qa7 (train), qa8 (train), ...`,
    );
  });

  const archive = "babi_tasks_v1-2_en.tar.xz";
  it.skipIf(!has(archive))(
    `has 1,000 questions a task and split (needs DIFFMAMBA_DATA with ${archive})`,
    { timeout: 300_000 },
    async () => {
      const files = nodeFiles();
      const sources = await babiSources(files, `${data}/${archive}`);
      for (const split of ["train", "test"]) {
        let [questions, sample] = [0, ""];
        for await (const { text } of sources[split]?.parts() ?? []) {
          questions++;
          sample ||= text;
        }
        expect(questions).toBe(20_000);
        expect(sample).toMatch(/^<context> \n\w.*\.\n<\/context>\n\nQuestion: Where is \w+\? Answer: \w+$/);
      }
      await expect(babiSources(files, `${data}/${archive}`, { variant: "en-10k" })).rejects.toThrow(
        "it lacks qa3 (train)",
      );
    },
  );
});

describe("PG19", () => {
  const few = { train: { folder: "train", books: 2 }, test: { folder: "test", books: 1 } };

  it("is prepared book by book, and refused where one is missing", async () => {
    const files = memoryFiles();
    for (const [path, text] of [
      ["train/10.txt", "the tenth"],
      ["train/9.txt", "the ninth"],
      ["test/1.txt", "the first"],
      ["train/notes.md", "no"],
    ]) {
      await files.makeDirectory(`p/${path?.split("/")[0]}`);
      await writeFileAtomic(files, `p/${path}`, text as string);
    }
    const source = await pg19Sources(files, "p", few as never);
    const store = await prepareDocuments({ files, source, out: "s", name: "pg19", tokenizer: new ByteTokenizer() });
    const split = store.split("train");
    expect((await store.loadTokenizer()).decode(await split.read(0, split.length))).toBe("the ninththe tenth");
    expect(await split.documents?.range(1)).toEqual([9, 18]);
    await expect(pg19Sources(files, "p")).rejects.toThrow(
      "p/train: this is not all of PG19: it has 2 books, and PG19's train split has 28602",
    );
    expect(Object.values(pg19Counts).reduce((sum, { books }) => sum + books, 0)).toBe(28_752);
  });
});

describe("fetchDataSet", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await testServer();
  });
  afterAll(() => server.close());
  beforeEach(() => server.files.clear());
  const options = () => ({
    files: memoryFiles(),
    retries: 0,
    waitMs: 1,
    hubUrl: server.url,
    booksUrl: `${server.url}/books`,
  });

  it("finds WikiText-103's files on the hub and checks them", async () => {
    const config = "wikitext-103-raw-v1";
    const entries = ["train", "validation", "test"].map((split) => {
      const path = `${config}/${split}-00000-of-00001.parquet`;
      const content = utf8(`rows of ${split}`);
      server.files.set(`/datasets/Salesforce/wikitext/resolve/main/${path}`, { content });
      return { type: "file", path, size: content.length, oid: "0" };
    });
    // A file of git's own, whose name is its checksum.
    const { createHash } = await import("node:crypto");
    for (const entry of entries) {
      const { content } = server.files.get(`/datasets/Salesforce/wikitext/resolve/main/${entry.path}`) as {
        content: Uint8Array;
      };
      entry.oid = createHash("sha1").update(`blob ${content.length}\0`).update(content).digest("hex");
    }
    const listed = [...entries, { ...entries[0], path: "wikitext-103-v1/train-00000-of-00001.parquet" }];
    const tree = "/api/datasets/Salesforce/wikitext/tree/main?recursive=true&expand=false";
    server.files.set(tree, { content: utf8(JSON.stringify(listed)), headers: { "content-type": "application/json" } });
    const fetching = options();
    expect(await fetchDataSet("wikitext-103", "d", { ...fetching, level: "raw" })).toBe(`d/wikitext/${config}`);
    expect((await fetching.files.list(`d/wikitext/${config}`)).map(({ name }) => name)).toHaveLength(3);
  });

  it("refuses a list of PG19's books that is not whole", async () => {
    server.files.set("/datasets/deepmind/pg19/resolve/main/data/train_files.txt", { content: utf8("train/10.txt\n") });
    await expect(fetchDataSet("pg19", "d", options())).rejects.toThrow("it lists 1 books; PG19 has 28602");
  });

  it("says which data has no address", async () => {
    await expect(fetchDataSet("wiki8", "d", options())).rejects.toThrow(
      "wiki8: this data has no public address that is known here",
    );
  });
});
