// Layer: tokenizer, tests. Folders: saved and loaded again, and every wrong folder named with what is wrong in it.
import { readFileSync } from "node:fs";
import { FileError, joinPath, writeFileAtomic } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { describe, expect, it } from "vitest";
import { ByteTokenizer } from "./bytes.js";
import { CharacterTokenizer, text8Tokenizer } from "./characters.js";
import { HuggingFaceTokenizer } from "./hugging-face.js";
import { loadTokenizer, saveTokenizer, tokenizerFile, tokenizerFromJSON } from "./load.js";
import { type Tokenizer, TokenizerFormatError } from "./tokenizer.js";

const tiny = JSON.parse(readFileSync(new URL("__fixtures__/byte-level/tokenizer.json", import.meta.url), "utf8"));

const kinds: [string, Tokenizer, string][] = [
  ["text8", text8Tokenizer(), "the end"],
  ["characters with an unknown", CharacterTokenizer.fromText('é"\\\n', { unknown: "\uFFFD" }), 'é"x\\\n'],
  ["bytes", new ByteTokenizer(), "é"],
  ["some bytes", new ByteTokenizer([32, 97, 98]), "ab ba"],
  ["tokenizer.json", new HuggingFaceTokenizer(tiny), "the end"],
  ["tokenizer.json with a configuration", new HuggingFaceTokenizer(tiny, { eos_token: "<|end|>" }), "the end"],
];

describe("a folder", () => {
  it.each(kinds)("keeps %s", async (_name, tokenizer, text) => {
    const files = memoryFiles();
    await files.makeDirectory("run");
    await saveTokenizer(files, "run", tokenizer);
    const loaded = await loadTokenizer(files, "run");
    expect(loaded.kind).toBe(tokenizer.kind);
    expect(loaded.toJSON()).toEqual(tokenizer.toJSON());
    expect(loaded.specialTokens).toEqual(tokenizer.specialTokens);
    expect(loaded.encode(text)).toEqual(tokenizer.encode(text));
    expect(tokenizerFromJSON(JSON.parse(JSON.stringify(tokenizer))).toJSON()).toEqual(tokenizer.toJSON());
  });

  it("holds one tokenizer: saving another kind removes the files of the first", async () => {
    const files = memoryFiles();
    await files.makeDirectory("run");
    const names = async () => (await files.list("run")).map(({ name }) => name);
    for (const [, tokenizer] of kinds) {
      await saveTokenizer(files, "run", tokenizer);
      expect((await loadTokenizer(files, "run")).toJSON()).toEqual(tokenizer.toJSON());
    }
    expect(await names()).toEqual(["tokenizer.json", "tokenizer_config.json"]);
    await saveTokenizer(files, "run", text8Tokenizer());
    expect(await names()).toEqual([tokenizerFile]);
  });

  it("may be a path to the file itself", async () => {
    const files = memoryFiles();
    await files.makeDirectory("a");
    await saveTokenizer(files, "a", new HuggingFaceTokenizer(tiny, { eos_token: "<|end|>" }));
    expect((await loadTokenizer(files, "a/tokenizer.json")).specialTokens).toEqual({ eos: 260 });
    await saveTokenizer(files, "a", text8Tokenizer());
    expect((await loadTokenizer(files, joinPath("a", tokenizerFile))).vocabSize).toBe(27);
  });
});

describe("a wrong folder", () => {
  const files = memoryFiles();
  const put = async (path: string, content: string) => {
    await files.makeDirectory(path.slice(0, path.indexOf("/")));
    await writeFileAtomic(files, path, content);
    return loadTokenizer(files, path.slice(0, path.indexOf("/")));
  };

  it("that does not exist, or holds no tokenizer", async () => {
    await expect(loadTokenizer(files, "none")).rejects.toThrow(
      "cannot load tokenizer from none: there is no such folder",
    );
    await files.makeDirectory("empty");
    await expect(loadTokenizer(files, "empty")).rejects.toThrow(
      "empty: the folder holds neither tokenizer.json nor diffmamba_tokenizer.json nor vocab.json with merges.txt",
    );
    await expect(loadTokenizer(files, "empty")).rejects.toBeInstanceOf(FileError);
  });

  it("with JSON that is not", async () => {
    await expect(put("j1/tokenizer.json", "{")).rejects.toThrow(/j1\/tokenizer\.json: it does not hold JSON/);
    await expect(put(`j2/${tokenizerFile}`, "")).rejects.toThrow(/j2\/diffmamba_tokenizer\.json: .*the file is empty/);
    await expect(put("j3/tokenizer.json", "[]")).rejects.toThrow("j3/tokenizer.json: it does not hold a JSON object");
    await put("j4/tokenizer.json", JSON.stringify(tiny));
    await expect(put("j4/tokenizer_config.json", "no")).rejects.toThrow(
      /tokenizer_config\.json: it does not hold JSON/,
    );
  });

  it.each([
    [
      "kind",
      { kind: "syllables", version: 1 },
      'its "kind" is "syllables"; expected "characters", "bytes", "words" or "tokenizer.json"',
    ],
    ["version", { kind: "bytes", version: 2 }, 'its "version" is 2; this package reads version 1'],
    ["alphabet", { kind: "characters", version: 1 }, 'its "alphabet" is not a string'],
    ["double", { kind: "characters", version: 1, alphabet: "aa" }, "is in the alphabet twice"],
    ["bytes", { kind: "bytes", version: 1, alphabet: "ab" }, 'its "alphabet" is not a list of bytes'],
    ["range", { kind: "bytes", version: 1, alphabet: [256] }, "256 in the alphabet is not a byte"],
    ["unknown", { kind: "characters", version: 1, alphabet: "a", unknown: 3 }, 'its "unknown" is not a string'],
    ["aliases", { kind: "characters", version: 1, alphabet: "a", aliases: ["b"] }, 'its "aliases" is not an object'],
  ])("with a wrong %s", async (name, json, message) => {
    const loading = put(`wrong-${name}/${tokenizerFile}`, JSON.stringify(json));
    await expect(loading).rejects.toThrow(TokenizerFormatError);
    await expect(loading).rejects.toThrow(`wrong-${name}/${tokenizerFile}: `);
    await expect(loading).rejects.toThrow(message);
  });
});
