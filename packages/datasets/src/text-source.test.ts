// Layer: datasets, tests. Documents from JSONL, parquet, folders and files; every damaged source is named with its place.
import { type FileSystem, writeFileAtomic } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { ByteTokenizer } from "@diffmamba/tokenizer";
import { parquetWriteBuffer } from "hyparquet-writer";
import { describe, expect, it } from "vitest";
import { fileSource, memorySource } from "./byte-source.js";
import { someDocuments } from "./documents.testing.js";
import { prepareText } from "./prepare.js";
import { prepareDocuments } from "./prepare-documents.js";
import { jsonLinesSource, parquetSource, type TextSource, textKind, textSource } from "./text-source.js";

const documents = someDocuments(400);

describe("sources of documents", () => {
  const collect = async (source: TextSource): Promise<string[]> => {
    const found: string[] = [];
    let rest = "";
    for await (const { text, ends } of source.parts()) {
      rest += text;
      if (ends) found.push(rest);
      if (ends) rest = "";
    }
    return rest === "" ? found : [...found, `unfinished ${rest}`];
  };
  const jsonl = documents.map((text, id) => JSON.stringify({ id, text })).join("\n");

  it("are the lines of JSONL", async () => {
    expect(await collect(jsonLinesSource(memorySource("a.jsonl", `${jsonl}\n\n`)))).toEqual(documents);
    const source = jsonLinesSource(memorySource("a.jsonl", '{"body":"x"}\n{"id":2}\n'), { field: "body" });
    await expect(collect(source)).rejects.toThrow('a.jsonl: line 2 has no text in "body"; it has "id"');
    await expect(collect(jsonLinesSource(memorySource("a.jsonl", '{"text":"x"}\n{"text":\n')))).rejects.toThrow(
      /a\.jsonl: line 2 is not JSON/,
    );
    await expect(collect(jsonLinesSource(memorySource("a.jsonl", Uint8Array.of(0x7b, 0xff))))).rejects.toThrow(
      "a.jsonl: byte 1 is not UTF-8 text",
    );
  });

  const parquet = async (files: FileSystem, path: string, texts: readonly string[], more = {}) => {
    const columnData = [
      { name: "id", data: texts.map((_, i) => i) },
      { name: "text", data: [...texts], type: "STRING" as const },
    ];
    await writeFileAtomic(files, path, new Uint8Array(parquetWriteBuffer({ columnData, rowGroupSize: 150, ...more })));
  };

  it("are the rows of parquet files", async () => {
    const files = memoryFiles();
    for (const codec of ["SNAPPY", "UNCOMPRESSED"] as const) {
      await parquet(files, "a.parquet", documents, { codec });
      expect(await collect(parquetSource(files, "a.parquet"))).toEqual(documents);
    }
    await expect(collect(parquetSource(files, "a.parquet", { field: "body" }))).rejects.toThrow(
      'a.parquet: there is no column "body"; it has id, text',
    );
    await expect(collect(parquetSource(files, "a.parquet", { field: "id" }))).rejects.toThrow(
      'row 0 has no text in "id"',
    );
    await expect(collect(parquetSource(files, "b.parquet"))).rejects.toThrow("cannot read b.parquet: no such file");
  });

  it("name the rows of a damaged page, and prepare nothing of them", async () => {
    const files = memoryFiles();
    await parquet(files, "a.parquet", documents);
    const whole = await files.read("a.parquet");
    for (const [name, bytes, message] of [
      [
        "cut",
        whole.slice(0, whole.length >> 1),
        /cut\.parquet: the file's end: its parquet data is damaged or cut off/,
      ],
      [
        "no",
        new TextEncoder().encode("no parquet at all, but long enough"),
        /no\.parquet: the file's end: its parquet data is/,
      ],
    ] as const) {
      await writeFileAtomic(files, `${name}.parquet`, bytes);
      await expect(collect(parquetSource(files, `${name}.parquet`))).rejects.toThrow(message);
    }
    // Zeros over a page in the middle: neither its header nor its compressed data can be read.
    const holed = whole.slice();
    holed.fill(0, Math.floor(whole.length * 0.5), Math.floor(whole.length * 0.6));
    await writeFileAtomic(files, "holed.parquet", holed);
    const source = parquetSource(files, "holed.parquet");
    await expect(prepareDocuments({ files, source, out: "s", tokenizer: new ByteTokenizer() })).rejects.toThrow(
      /holed\.parquet: rows \d+ to \d+: its parquet data is damaged or cut off/,
    );
    expect(await files.stat("s")).toBeUndefined();
    expect(await files.stat("s.tmp")).toBeUndefined();
    // A byte that is no UTF-8, in a page that is not compressed.
    await parquet(files, "plain.parquet", ["abc", "wxyz", "def"], { codec: "UNCOMPRESSED" });
    const plain = (await files.read("plain.parquet")).slice();
    plain[Buffer.from(plain).indexOf("wxyz")] = 0xff;
    await writeFileAtomic(files, "plain.parquet", plain);
    await expect(collect(parquetSource(files, "plain.parquet"))).rejects.toThrow(
      /plain\.parquet: rows 0 to 3: its parquet data/,
    );
  });

  it("are the files of a folder, by their kind and in the order of their names", async () => {
    const files = memoryFiles();
    await files.makeDirectory("f/deep");
    await files.makeDirectory("f/.git");
    await files.makeDirectory("empty");
    await writeFileAtomic(files, "f/b.txt", "second");
    await writeFileAtomic(files, "f/a.jsonl", '{"text":"first"}\n{"text":"also first"}');
    await writeFileAtomic(files, "f/deep/z.txt", "last");
    await writeFileAtomic(files, "f/.git/config", "hidden");
    await parquet(files, "f/c.parquet", ["third"]);
    expect(await collect(await textSource(files, "f"))).toEqual(["first", "also first", "second", "third", "last"]);
    expect(await collect(await textSource(files, "f/b.txt"))).toEqual(["second"]);
    await expect(textSource(files, "none")).rejects.toThrow("cannot read none: no such file or folder");
    await expect(textSource(files, "empty")).rejects.toThrow("empty: the folder holds no files");
    expect(["a.jsonl.gz", "b.NDJSON", "c.parquet", "d.txt.xz", "e"].map(textKind)).toEqual([
      "jsonl",
      "jsonl",
      "parquet",
      "text",
      "text",
    ]);
  });

  it("say which byte of a file is not UTF-8", async () => {
    const files = memoryFiles();
    await writeFileAtomic(files, "x.txt", Uint8Array.of(0x61, 0xc3, 0x28));
    await expect(collect(await textSource(files, "x.txt"))).rejects.toThrow("x.txt: byte 2 is not UTF-8 text");
    const out = { files, source: fileSource(files, "x.txt"), out: "s", splits: {} };
    await expect(prepareText(out)).rejects.toThrow(
      "x.txt: byte 2 is not UTF-8 text; convert the file, or prepare it as bytes",
    );
  });
});
