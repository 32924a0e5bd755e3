// Layer: tokenizer, tests. Characters and bytes: stable ids, exact round trips, and errors that name the symbol and its place.
import { describe, expect, it } from "vitest";
import { ByteTokenizer } from "./bytes.js";
import { CharacterTokenizer, collectCodePoints, text8Tokenizer } from "./characters.js";
import { type Tokenizer, TokenizerFormatError, UnknownSymbolError, utf8Length } from "./tokenizer.js";

function streamed(tokenizer: Tokenizer, ids: ArrayLike<number>): string[] {
  const stream = tokenizer.stream();
  return [...Array.from(ids, (id) => stream.push(id)), stream.end()];
}

describe("text8's characters", () => {
  const tokenizer = text8Tokenizer();

  it("has 27 symbols with ids that never change", () => {
    expect(tokenizer.vocabSize).toBe(27);
    expect([...tokenizer.encode(" az")]).toEqual([0, 1, 26]);
    expect([...tokenizer.encode("anarchism originated")].slice(0, 10)).toEqual([1, 14, 1, 18, 3, 8, 9, 19, 13, 0]);
  });

  it("reads the paper's underscore as a space", () => {
    expect(tokenizer.encode("one_two")).toEqual(tokenizer.encode("one two"));
    expect(tokenizer.decode(tokenizer.encode("one_two"))).toBe("one two");
  });

  it("names a character that it does not have, and where it is", () => {
    expect(() => tokenizer.encode("some Text")).toThrow(
      /the character "T" \(U\+0054\) at position 5 is not in the tokenizer's vocabulary; it has 27 characters/,
    );
    expect(() => tokenizer.encode("ab😀")).toThrow(/character "😀" \(U\+1F600\) at position 2/);
  });

  it("counts a token a byte", () => {
    expect(tokenizer.byteLength(tokenizer.encode("abc def"))).toBe(7);
    expect(tokenizer.safeCut("abc def")).toBe(7);
  });
});

describe("characters of a text", () => {
  const text = "Größe 😀 — naïve 😀\n";

  it("sorts them by code point and gives the text back", () => {
    const tokenizer = CharacterTokenizer.fromText(text);
    expect(tokenizer.toJSON().alphabet).toBe("\n Gaenrvßïö—😀");
    expect(tokenizer.vocabSize).toBe(13);
    const ids = tokenizer.encode(text);
    expect(ids).toHaveLength([...text].length);
    expect(tokenizer.decode(ids)).toBe(text);
    expect(streamed(tokenizer, ids).join("")).toBe(text);
    expect(tokenizer.byteLength(ids)).toBe(new TextEncoder().encode(text).length);
  });

  it("gathers an alphabet in pieces", () => {
    const points = collectCodePoints(text.slice(0, 10));
    collectCodePoints(text.slice(10), points);
    expect(CharacterTokenizer.fromCodePoints(points).toJSON()).toEqual(CharacterTokenizer.fromText(text).toJSON());
  });

  it("takes an unknown character for the rest, also beyond the first plane", () => {
    const tokenizer = CharacterTokenizer.fromText("abc", { unknown: "?" });
    expect(tokenizer.vocabSize).toBe(4);
    expect(tokenizer.specialTokens).toEqual({ unknown: 3 });
    expect(tokenizer.decode(tokenizer.encode("a😀c!"))).toBe("a?c?");
    expect(tokenizer.decode([0, 3, 1], { skipSpecialTokens: true })).toBe("ab");
    const inside = new CharacterTokenizer("a?b", { unknown: "?" });
    expect([...inside.encode("a?bz")]).toEqual([0, 1, 2, 1]);
  });

  it("shows an id that it does not have", () => {
    const tokenizer = CharacterTokenizer.fromText("ab");
    expect(tokenizer.decode([0, 7, -1, 1])).toBe("a\uFFFD\uFFFDb");
  });

  it("refuses an alphabet that is none", () => {
    expect(() => new CharacterTokenizer("")).toThrow("the alphabet is empty");
    expect(() => new CharacterTokenizer("aba")).toThrow('the character "a" (U+0061) is in the alphabet twice');
    expect(() => new CharacterTokenizer("a??", { unknown: "?" })).toThrow("twice");
    expect(() => new CharacterTokenizer("ab", { unknown: "xy" })).toThrow('"unknown" wants one character');
    expect(() => new CharacterTokenizer("ab", { aliases: { _: " " } })).toThrow(TokenizerFormatError);
    expect(() => new CharacterTokenizer(["a", "bc"])).toThrow('"bc" is not one character');
  });

  it("never cuts a pair of surrogates", () => {
    expect(CharacterTokenizer.fromText("a").safeCut("a\ud83d")).toBe(1);
  });
});

describe("bytes", () => {
  it("is UTF-8, and waits for a character's last byte", () => {
    const tokenizer = new ByteTokenizer();
    expect(tokenizer.vocabSize).toBe(256);
    const ids = tokenizer.encode("aé😀");
    expect([...ids]).toEqual([0x61, 0xc3, 0xa9, 0xf0, 0x9f, 0x98, 0x80]);
    expect(tokenizer.decode(ids)).toBe("aé😀");
    expect(streamed(tokenizer, ids)).toEqual(["a", "", "é", "", "", "", "😀", ""]);
    expect(tokenizer.byteLength(ids)).toBe(7);
  });

  it("puts U+FFFD where bytes are no text, the same streamed as whole", () => {
    const tokenizer = new ByteTokenizer();
    for (const ids of [
      [0xc3],
      [0xc3, 0x41],
      [0xf0, 0x9f, 0x98],
      [0xff, 0x41, 0x80, 0x80],
      [0xef, 0xbb, 0xbf, 0x41],
      [300, -1],
    ]) {
      expect(streamed(tokenizer, ids).join("")).toBe(tokenizer.decode(ids));
    }
    expect(tokenizer.decode([0xc3, 0x41])).toBe("\uFFFDA");
    expect(streamed(tokenizer, [0xf0, 0x9f]).at(-1)).toBe("\uFFFD");
    expect(tokenizer.decode([0x41, 300])).toBe("A\uFFFD");
    expect(tokenizer.decode([0xef, 0xbb, 0xbf, 0x41])).toBe("\uFEFFA");
  });

  it("can have an alphabet of the bytes that a file holds", () => {
    const tokenizer = new ByteTokenizer([0x20, 0x61, 0x62, 0xc3, 0xa9]);
    expect(tokenizer.vocabSize).toBe(5);
    expect([...tokenizer.encode("ab é")]).toEqual([1, 2, 0, 3, 4]);
    expect(tokenizer.decode([1, 2, 0, 3, 4])).toBe("ab é");
    expect(tokenizer.decodeBytes([3, 4])).toEqual(Uint8Array.of(0xc3, 0xa9));
    expect(() => tokenizer.encode("ab\n")).toThrow(/the byte 0x0a at position 2 .* it has 5 of the 256 bytes/);
  });

  it("refuses an alphabet that is none", () => {
    expect(() => new ByteTokenizer([])).toThrow("empty");
    expect(() => new ByteTokenizer([1, 256])).toThrow("256 in the alphabet is not a byte");
    expect(() => new ByteTokenizer([1, 1])).toThrow("byte 1 is in the alphabet twice");
  });
});

describe("what the kinds share", () => {
  it("counts bytes of UTF-8 as an encoder does", () => {
    for (const text of ["", "abc", "é", "—", "😀", "\ud83d", "\ude00x", "a\ud83dé"]) {
      expect(utf8Length(text)).toBe(new TextEncoder().encode(text).length);
    }
  });

  it("moves an error to its place in a larger text", () => {
    const error = new UnknownSymbolError('character "x"', 3, "drop it").within("book.txt", 1000);
    expect(error.message).toContain('book.txt: the character "x" at position 1003');
  });
});
