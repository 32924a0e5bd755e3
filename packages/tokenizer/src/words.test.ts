// Layer: tokenizer, tests. Words: line ends, the unknown, a vocabulary from counts, and the known counts of WikiText's test text.
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { writeFileAtomic } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { describe, expect, it } from "vitest";
import { loadTokenizer, saveTokenizer } from "./load.js";
import { paddedVocabSize } from "./tokenizer.js";
import { countWords, WordTokenizer } from "./words.js";

const text = " = Title = \n \n the cat , the <unk> sat \n";

describe("WordTokenizer", () => {
  const tokenizer = WordTokenizer.fromCounts(countWords(text));

  it("has the line's end first, then the words by count, then by where they came first", () => {
    expect(tokenizer.toJSON().words).toEqual(["<eos>", "=", "the", "Title", "cat", ",", "<unk>", "sat"]);
    expect(tokenizer.specialTokens).toEqual({ eos: 0, unknown: 6 });
  });

  it("ends every line, empty ones too, with a token", () => {
    expect([...tokenizer.encode(text)]).toEqual([1, 3, 1, 0, 0, 2, 4, 5, 2, 6, 7, 0]);
    expect(tokenizer.decode(tokenizer.encode(text))).toBe("= Title =\n\nthe cat , the <unk> sat\n");
    expect([...tokenizer.encode("the cat")]).toEqual([2, 4]);
    expect(tokenizer.decode(tokenizer.encode(text), { skipSpecialTokens: true })).not.toContain("\n");
  });

  it("ends lines that hold a word twice where it is told to", () => {
    const doubled = new WordTokenizer(tokenizer.toJSON().words, { lineEnds: "doubled" });
    expect([...doubled.encode(text)]).toEqual([1, 3, 1, 0, 0, 0, 2, 4, 5, 2, 6, 7, 0, 0]);
  });

  it("reads a word that it lacks as the unknown one, or names it", () => {
    expect([...tokenizer.encode("the dog")]).toEqual([2, 6]);
    const strict = new WordTokenizer(["<eos>", "the"]);
    expect(() => strict.encode("the dog")).toThrow(
      'the word "dog" at position 4 is not in the tokenizer\'s vocabulary; it has 2 words and none that stands for the unknown',
    );
    expect(strict.decode([1, 7])).toBe("the \uFFFD");
  });

  it("takes the white space of Python's split() for its bounds", () => {
    expect(countWords("a\u00a0b\u3000c\u001cd\u0085e\ufefff\u200bg")).toEqual(
      new Map([..."abcd", "e\ufefff\u200bg"].map((word) => [word, 1])),
    );
  });

  it("may be cut behind a line", () => {
    expect(tokenizer.safeCut("the cat\nthe")).toBe(8);
    expect(tokenizer.safeCut("the cat")).toBe(0);
  });

  it("comes from a vocabulary file, with counts or without, and keeps its kind in a folder", async () => {
    const files = memoryFiles();
    await files.makeDirectory("v");
    await writeFileAtomic(files, "v/vocab.txt", "<eos> 10\nthe 5\ncat\n");
    const loaded = await loadTokenizer(files, "v/vocab.txt");
    expect([...loaded.encode("cat the\n")]).toEqual([2, 1, 0]);
    await saveTokenizer(files, "v", new WordTokenizer(["<eos>", "a"], { lineEnds: "doubled" }));
    expect([...(await loadTokenizer(files, "v")).encode("a\n")]).toEqual([1, 0, 0]);
    await writeFileAtomic(files, "v/vocab.txt", "the\ncat\n");
    await expect(loadTokenizer(files, "v/vocab.txt")).rejects.toThrow(
      'v/vocab.txt: as a vocabulary, a word a line: word tokenizer: the vocabulary lacks "<eos>"',
    );
  });

  it("refuses words that are none, or are there twice", () => {
    expect(() => new WordTokenizer(["<eos>", "a b"])).toThrow('"a b" (id 1) is not a word');
    expect(() => new WordTokenizer(["<eos>", "a", "a"])).toThrow('"a" is in the vocabulary twice');
    expect(() => new WordTokenizer(["a"], { eos: "x" })).toThrow('the vocabulary lacks "x"');
  });
});

describe("paddedVocabSize", () => {
  it("rounds up to a multiple", () => {
    expect([paddedVocabSize(50_257, 64), paddedVocabSize(50_277, 16), paddedVocabSize(27, 1)]).toEqual([
      50_304, 50_288, 27,
    ]);
    expect(() => paddedVocabSize(27, 0)).toThrow(
      "a vocabulary is padded to a multiple of a whole number above 0, got 0",
    );
  });
});

const wiki = `${process.env.DIFFMAMBA_DATA ?? ""}/wiki.test.raw.gz`;

describe.skipIf(!existsSync(wiki))("WikiText's raw test text (needs DIFFMAMBA_DATA with wiki.test.raw.gz)", () => {
  it("has 241,211 words in 4,358 lines", () => {
    const raw = gunzipSync(readFileSync(wiki)).toString("utf8");
    const counts = countWords(raw);
    expect([...counts.values()].reduce((sum, count) => sum + count, 0)).toBe(241_211);
    const tokenizer = WordTokenizer.fromCounts(counts);
    const ids = tokenizer.encode(raw);
    expect(ids.filter((id) => id === 0)).toHaveLength(4_358);
    expect(ids).toHaveLength(241_211 + 4_358);
  });
});
