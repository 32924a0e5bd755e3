// Layer: tokenizer, tests. Training: merges by hand, the same with workers as without, in any pieces, within its bound on words; and the
// file that it writes, read by the library.
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { describe, expect, it } from "vitest";
import { trainBpe } from "./bpe.js";
import { learnMerges } from "./bpe-merges.js";
import type { HuggingFaceTokenizer } from "./hugging-face.js";
import { hardCases, straightEncoder, wellFormed } from "./merge-rule.testing.js";
import { textsEncoder, wordCounter } from "./node.js";

const mergesOf = (tokenizer: HuggingFaceTokenizer) =>
  (tokenizer.toJSON().tokenizer as { model: { merges: [string, string][] } }).model.merges;

/** Text with words of different frequencies, the same every time. */
function someText(words: number): string {
  const syllables = ["ba", "na", "di", "fer", "en", "ti", "al", "mam", "é", "日本"];
  let state = 7;
  const draw = (below: number) => {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    return Math.floor(((state >> 8) * below) / 2 ** 23);
  };
  let text = "";
  for (let i = 0; i < words; i++) {
    for (let k = draw(3); k >= 0; k--) text += syllables[Math.min(draw(10), draw(10))];
    text += draw(12) === 0 ? ".\n" : " ";
  }
  return text;
}

/** The rule itself: all pairs counted anew before every merge. */
function straightMerges(words: ReadonlyMap<string, number>, wanted: number): [string, string][] {
  const rows = [...words].map(([word, count]) => ({ parts: [...word], count }));
  const alphabet = [...new Set(rows.flatMap(({ parts }) => parts))].sort();
  const order = new Map(alphabet.map((character, id) => [character, id]));
  const merges: [string, string][] = [];
  while (merges.length < wanted) {
    const counts = new Map<string, number>();
    for (const { parts, count } of rows) {
      for (let i = 0; i + 1 < parts.length; i++) {
        const pair = `${parts[i]} ${parts[i + 1]}`;
        counts.set(pair, (counts.get(pair) ?? 0) + count);
      }
    }
    const idOf = (part: string | undefined) => order.get(part ?? "") ?? -1;
    const best = [...counts]
      .map(([pair, count]) => ({ pair: pair.split(" ") as [string, string], count }))
      .sort((a, b) => b.count - a.count || idOf(a.pair[0]) - idOf(b.pair[0]) || idOf(a.pair[1]) - idOf(b.pair[1]))[0];
    if (best === undefined) break;
    const [left, right] = best.pair;
    merges.push(best.pair);
    order.set(left + right, order.size);
    for (const row of rows) {
      const merged: string[] = [];
      for (const part of row.parts) {
        // A part that is the left one stays open for the right one; what has been joined is closed.
        if (merged.at(-1) === `${left}\u0000` && part === right) merged[merged.length - 1] = left + right;
        else merged.push(part === left ? `${part}\u0000` : part);
      }
      row.parts = merged.map((part) => part.replace("\u0000", ""));
    }
  }
  return merges;
}

describe("learnMerges", () => {
  it("learns what counting all pairs anew each time gives", async () => {
    const words = new Map<string, number>();
    for (const word of someText(2000)
      .replace(/[^a-z\s]/g, "")
      .split(/\s+/))
      words.set(word, (words.get(word) ?? 0) + 1);
    words.set("aaaaaaa", 40).set("aabaab", 17);
    words.delete("");
    const { merges } = await learnMerges(words, { vocabSize: 256 + 60, specialTokens: [], minCount: 1 });
    expect(merges).toEqual(straightMerges(words, 60));
  });

  it("ends where no pair is there often enough", async () => {
    const words = new Map([
      ["ab", 3],
      ["cd", 1],
    ]);
    const learn = (minCount: number) => learnMerges(words, { vocabSize: 1000, specialTokens: ["<x>"], minCount });
    expect((await learn(2)).merges).toEqual([["a", "b"]]);
    const { merges, vocab } = await learn(1);
    expect(merges).toEqual([
      ["a", "b"],
      ["c", "d"],
    ]);
    expect([vocab["<x>"], vocab["!"], vocab.ab, vocab.cd]).toEqual([0, 1, 257, 258]);
  });
});

describe("trainBpe", () => {
  const text = someText(20_000);

  it("writes a tokenizer.json that the library reads, with the ids of the merge rule", async () => {
    const tokenizer = await trainBpe([text], { vocabSize: 400, nfc: true });
    const json = JSON.parse(JSON.stringify(tokenizer.toJSON().tokenizer));
    expect(tokenizer.vocabSize).toBe(400);
    expect(tokenizer.specialTokens).toEqual({ eos: 0 });
    const library = new Library(json, {});
    const straight = straightEncoder(json);
    for (const sample of [text.slice(0, 5000), ...hardCases]) {
      expect([...tokenizer.encode(sample)]).toEqual(straight(sample));
      expect(tokenizer.decode(tokenizer.encode(sample))).toBe(wellFormed(sample).normalize("NFC"));
    }
    expect(library.encode(text, { add_special_tokens: false }).ids).toEqual([...tokenizer.encode(text)]);
  });

  it("is the same in any parts and with any number of workers", async () => {
    const long = text.repeat(40); // several pieces
    const whole = await trainBpe([long], { vocabSize: 500 });
    const parts = Array.from({ length: Math.ceil(long.length / 70_001) }, (_, i) =>
      long.slice(i * 70_001, (i + 1) * 70_001),
    );
    const counter = wordCounter({ threads: 2 });
    try {
      const shared = await trainBpe(parts, { vocabSize: 500, counter });
      expect(shared.toJSON()).toEqual(whole.toJSON());
    } finally {
      await counter[Symbol.asyncDispose]();
    }
  });

  it("keeps no more words than it may, and loses the rare ones", async () => {
    const rare = Array.from({ length: 5000 }, (_, i) => ` zq${i.toString(36)}`).join("");
    const rankOf = async (maxWords: number) => {
      const trained = await trainBpe([text, rare, text], { vocabSize: 330, maxWords });
      return mergesOf(trained).findIndex((pair) => pair.join("") === "zq");
    };
    // 5,000 words that are there once each: all of them count, or no more than there is room for.
    expect(await rankOf(100_000)).toBeLessThan(await rankOf(1500));
  });

  it("says how far it is, and stops when told", async () => {
    const seen: string[] = [];
    await trainBpe([text], { vocabSize: 700, onProgress: ({ phase }) => seen.push(phase) });
    expect(seen).toContain("count");
    expect(seen).toContain("merge");
    const reason = new Error("stopped");
    await expect(trainBpe([text], { vocabSize: 700, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  it("refuses a vocabulary that does not hold the bytes", async () => {
    await expect(trainBpe([text], { vocabSize: 256 })).rejects.toThrow("vocabSize is 256; it wants at least 257");
  });
});

describe("textsEncoder", () => {
  it("gives on workers what the tokenizer gives, and names what the vocabulary lacks", async () => {
    const tokenizer = await trainBpe([someText(3000)], { vocabSize: 300 });
    const encoder = textsEncoder(tokenizer, { threads: 2 });
    try {
      const texts = ["banana", "", ...hardCases];
      const encoded = await encoder.encode(texts);
      if (!("ids" in encoded)) throw new Error("the symbol was not to be missing");
      expect(encoded.lengths).toEqual(texts.map((text) => tokenizer.encode(text).length));
      expect([...encoded.ids]).toEqual(texts.flatMap((text) => [...tokenizer.encode(text)]));
    } finally {
      await encoder[Symbol.asyncDispose]();
    }
    const { text8Tokenizer } = await import("./characters.js");
    const letters = textsEncoder(text8Tokenizer(), { threads: 1 });
    try {
      expect(await letters.encode(["abc", "xy!"])).toMatchObject({ unknown: { position: 2 }, text: 1 });
    } finally {
      await letters[Symbol.asyncDispose]();
    }
  });
});

const wiki = `${process.env.DIFFMAMBA_DATA ?? ""}/wiki.test.raw.gz`;

describe.skipIf(!existsSync(wiki))("training on real text (needs DIFFMAMBA_DATA with wiki.test.raw.gz)", () => {
  it("gives a tokenizer that gives the text back, in far fewer tokens than bytes", { timeout: 300_000 }, async () => {
    const raw = gunzipSync(readFileSync(wiki)).toString("utf8");
    const tokenizer = await trainBpe([raw], { vocabSize: 4000 });
    const ids = tokenizer.encode(raw);
    expect(tokenizer.decode(ids) === raw).toBe(true);
    expect(tokenizer.byteLength(ids) / ids.length).toBeGreaterThan(3.2);
  });
});
