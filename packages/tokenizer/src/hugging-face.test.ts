// Layer: tokenizer, tests. tokenizer.json: a tiny one of each decoding kind made here, and GPT-NeoX's where the data folder is set.
import { existsSync, readFileSync } from "node:fs";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { describe, expect, it } from "vitest";
import { HuggingFaceTokenizer } from "./hugging-face.js";
import type { Tokenizer } from "./tokenizer.js";

interface TinyJSON {
  added_tokens: { id: number; content: string }[];
  [key: string]: unknown;
}
const fixture = (name: string): TinyJSON =>
  JSON.parse(readFileSync(new URL(`__fixtures__/${name}/tokenizer.json`, import.meta.url), "utf8"));
/** 256 bytes, three merges that make " the", two spaces, and two special tokens; NFC. */
const tinyByteLevel = () => fixture("byte-level");
/** Word marks, a few letters, bytes for everything else. */
const sentencePieceLike = () => fixture("sentencepiece");

function streamed(tokenizer: Tokenizer, ids: ArrayLike<number>): string {
  const stream = tokenizer.stream();
  return Array.from(ids, (id) => stream.push(id)).join("") + stream.end();
}

/** Encodes a text in pieces cut at safe places, as text that comes in windows is. */
function inPieces(tokenizer: Tokenizer, text: string, window: number): number[] {
  const ids: number[] = [];
  let rest = "";
  for (let at = 0; at < text.length; at += window) {
    rest += text.slice(at, at + window);
    const cut = tokenizer.safeCut(rest);
    ids.push(...tokenizer.encode(rest.slice(0, cut)));
    rest = rest.slice(cut);
  }
  return [...ids, ...tokenizer.encode(rest)];
}

const texts = [
  "the theme then\n\n  the  end <|end|> the",
  "naïve 😀 the — the\u0301 e\u0301",
  " leading and trailing  ",
  "\t\n\r\n the\n",
  "thethe<|end|>the the<|pad|>",
  "",
];

describe("a byte-level tokenizer.json", () => {
  const json = tinyByteLevel();
  const tokenizer = new HuggingFaceTokenizer(json);
  const library = new Library(json, {});

  it("merges, and gives what the library gives", () => {
    expect(tokenizer.vocabSize).toBe(262);
    expect([...tokenizer.encode("the the")]).toEqual([257, 258]);
    for (const text of texts) {
      const ids = library.encode(text, { add_special_tokens: false }).ids;
      expect([...tokenizer.encode(text)]).toEqual(ids);
      expect([...tokenizer.encode(text)]).toEqual(ids); // from the cache
    }
  });

  it("gives the text back, whole and streamed, and counts its bytes", () => {
    for (const text of texts) {
      const ids = tokenizer.encode(text);
      expect(tokenizer.decode(ids)).toBe(text.normalize("NFC"));
      expect(streamed(tokenizer, ids)).toBe(text.normalize("NFC"));
      expect(tokenizer.byteLength(ids)).toBe(new TextEncoder().encode(text.normalize("NFC")).length);
    }
  });

  it("keeps spaces before punctuation, which the library would clean up", () => {
    expect(tokenizer.decode(tokenizer.encode("what , the . do n't"))).toBe("what , the . do n't");
  });

  it("never gives half a character", () => {
    const stream = tokenizer.stream();
    const ids = tokenizer.encode("😀");
    expect(ids).toHaveLength(4);
    expect(Array.from(ids, (id) => stream.push(id))).toEqual(["", "", "", "😀"]);
    stream.push(ids[0] as number);
    expect(stream.end()).toBe("\uFFFD");
    expect(stream.push(257)).toBe("the");
  });

  it("is the same in pieces as whole", () => {
    const text = texts.join(" the ").repeat(3);
    const whole = [...tokenizer.encode(text)];
    for (const window of [1, 2, 7, 64]) expect(inPieces(tokenizer, text, window)).toEqual(whole);
  });

  it("knows its special tokens by well-known names, or from the configuration", () => {
    const named = tinyByteLevel();
    expect(tokenizer.specialTokens).toEqual({});
    const configured = new HuggingFaceTokenizer(named, { eos_token: "<|end|>", pad_token: { content: "<|pad|>" } });
    expect(configured.specialTokens).toEqual({ eos: 260, pad: 261 });
    for (const token of named.added_tokens) if (token.content === "<|end|>") token.content = "<|endoftext|>";
    expect(new HuggingFaceTokenizer(named).specialTokens).toEqual({ eos: 260 });
    expect(tokenizer.decode([257, 260, 258], { skipSpecialTokens: true })).toBe("the the");
    const stream = tokenizer.stream({ skipSpecialTokens: true });
    expect([257, 260, 258].map((id) => stream.push(id)).join("")).toBe("the the");
  });

  it("adds special tokens when asked", () => {
    const template = { id: "<|end|>", ids: [260], tokens: ["<|end|>"] };
    const started = new HuggingFaceTokenizer({
      ...tinyByteLevel(),
      post_processor: {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "<|end|>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        pair: [],
        special_tokens: { "<|end|>": template },
      },
    });
    expect([...started.encode("the")]).toEqual([257]);
    expect([...started.encode("the", { addSpecialTokens: true })]).toEqual([260, 257]);
  });

  it("shows ids beyond the vocabulary", () => {
    expect(tokenizer.decode([257, 9999, -1, 257])).toBe("the\uFFFD\uFFFDthe");
    expect(streamed(tokenizer, [257, 9999, 257])).toBe("the\uFFFDthe");
  });
});

describe("a tokenizer.json that decodes by rules", () => {
  const tokenizer = new HuggingFaceTokenizer(sentencePieceLike());

  it("gives the text back, whole and streamed", () => {
    for (const text of ["the the", "a😀b the é", "the  end"]) {
      const ids = tokenizer.encode(text);
      expect(tokenizer.decode(ids)).toBe(text);
      expect(streamed(tokenizer, ids)).toBe(text);
      expect(tokenizer.byteLength(ids)).toBe(new TextEncoder().encode(text).length);
    }
    expect(tokenizer.decode([])).toBe("");
    expect(tokenizer.decode([9999])).toBe("\uFFFD");
  });

  it("waits for a character's last byte, but not for ever", () => {
    const stream = tokenizer.stream();
    const ids = [...tokenizer.encode("a😀")];
    const pieces = ids.map((id) => stream.push(id));
    expect(pieces.filter((piece) => piece !== "")).toEqual(["a", "😀"]);
    const first = ids.at(-4) as number;
    const broken = tokenizer.stream();
    expect([first, first, first, first, first].map((id) => broken.push(id)).join("")).toContain("\uFFFD");
  });

  it("is not cut where it would be another text", () => {
    // It writes a word mark at the start of every text, so a second part is never what it was in the whole.
    expect(tokenizer.safeCut("the the ".repeat(200))).toBe(0);
  });

  it("is cut where trying shows that nothing changes", () => {
    const { normalizer: _dropped, ...rest } = sentencePieceLike();
    const metaspace = new HuggingFaceTokenizer({
      ...rest,
      normalizer: null,
      pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
    });
    const text = "the end a b ".repeat(300);
    expect(metaspace.safeCut(text)).toBeGreaterThan(2000);
    expect(inPieces(metaspace, text, 1000)).toEqual([...metaspace.encode(text)]);
  });
});

describe("a tokenizer.json that cannot be used", () => {
  const refuse = (json: unknown) => () => new HuggingFaceTokenizer(json, undefined, "model/tokenizer.json");

  it("is named, with what is wrong", () => {
    expect(refuse([])).toThrow("model/tokenizer.json: it does not hold a JSON object");
    expect(refuse({})).toThrow('model/tokenizer.json: it has no "model" with a "vocab"');
    expect(refuse({ model: { type: "BPE", vocab: {}, merges: [] } })).toThrow("or is empty");
    expect(refuse({ model: { type: "BPE", vocab: { a: "x" }, merges: [] } })).toThrow("no whole number");
    expect(refuse({ ...tinyByteLevel(), pre_tokenizer: { type: "Nonsense" } })).toThrow(
      /model\/tokenizer\.json: the tokenizer library refuses it: .*Nonsense/,
    );
  });

  it("names a token that it lacks", () => {
    const model = { type: "WordPiece", vocab: { a: 0, b: 1 }, continuing_subword_prefix: "##" };
    const tokenizer = new HuggingFaceTokenizer({ model, pre_tokenizer: { type: "WhitespaceSplit" } });
    expect([...tokenizer.encode("a b")]).toEqual([0, 1]);
    expect(() => tokenizer.encode("a x b")).toThrow(
      /"a x b" .* is not in the tokenizer's vocabulary; its tokenizer.json has no token for the/,
    );
  });
});

const data = process.env.DIFFMAMBA_DATA ?? "";
const neox = `${data}/tokenizers/gpt-neox-20b/tokenizer.json`;

describe.skipIf(!existsSync(neox))("GPT-NeoX (needs DIFFMAMBA_DATA with tokenizers/gpt-neox-20b)", () => {
  it("encodes, decodes and streams real text as the library does", () => {
    const json = JSON.parse(readFileSync(neox, "utf8"));
    const tokenizer = new HuggingFaceTokenizer(json, undefined, neox);
    expect(tokenizer.vocabSize).toBe(50277);
    expect(tokenizer.specialTokens).toEqual({ eos: 0, pad: 1 });
    expect([...tokenizer.encode("Hello world<|endoftext|>")]).toEqual([12092, 1533, 0]);
    expect([...tokenizer.encode("      return x  # naïve")]).toEqual(
      new Library(json, {}).encode("      return x  # naïve", { add_special_tokens: false }).ids,
    );
    const path = `${data}/tinyshakespeare.txt`;
    const sample = existsSync(path) ? readFileSync(path, "utf8").slice(0, 40_000) : "To be, or not to be:\n\n  that";
    const text = `${sample}\n    indented\n\n\ttabbed   spaces — “quotes” 😀 日本語 text  \n`;
    const ids = tokenizer.encode(text);
    expect([...ids]).toEqual(new Library(json, {}).encode(text, { add_special_tokens: false }).ids);
    expect(tokenizer.decode(ids)).toBe(text);
    expect(streamed(tokenizer, ids)).toBe(text);
    expect(inPieces(tokenizer, text, 5000)).toEqual([...ids]);
  });
});
