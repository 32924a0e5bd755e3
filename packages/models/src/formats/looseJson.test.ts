// Checkpoint formats: JSON with bare Infinity and NaN, its round trip, and the place that errors name.
import { memoryFiles } from "@diffmamba/files/memory";
import { describe, expect, it } from "vitest";
import { random } from "./__fixtures__/build.js";
import { FormatError } from "./errors.js";
import { parseLooseJson, parseLooseJsonBytes, readLooseJson, stringifyLooseJson } from "./looseJson.js";

const parse = (text: string) => parseLooseJson(text, "config.json");

describe("parseLooseJson", () => {
  it("reads Infinity, -Infinity and NaN as values", () => {
    expect(parse('{"limit": [0.0, Infinity], "low": -Infinity, "n": NaN}')).toEqual({
      limit: [0, Number.POSITIVE_INFINITY],
      low: Number.NEGATIVE_INFINITY,
      n: Number.NaN,
    });
    expect(parse("Infinity")).toBe(Number.POSITIVE_INFINITY);
  });

  it("leaves the same words alone inside strings and keys", () => {
    expect(parse('{"Infinity": "NaN, -Infinity and \\"Infinity\\""}')).toEqual({
      Infinity: 'NaN, -Infinity and "Infinity"',
    });
  });

  it("agrees with JSON.parse on JSON", () => {
    const samples = [
      "null",
      " [] ",
      "{}",
      "-0",
      "1e-5",
      "-12.5E+2",
      '"\\u00e9\\n\\/\\\\\\ud83d\\ude00 é \u007f"',
      '[1,[2,[3]],{"a":{"b":[true,false,null]}}]',
      '{"a":1,"a":2}',
      "\t\r\n 7 \n",
    ];
    for (const sample of samples) expect(parse(sample)).toEqual(JSON.parse(sample));
  });

  it("does not let a key change the prototype", () => {
    const value = parse('{"__proto__": {"polluted": 1}}');
    expect(Object.keys(value as object)).toEqual(["__proto__"]);
    expect(Reflect.get(value as object, "polluted")).toBeUndefined();
  });

  it("refuses equal keys where asked", () => {
    expect(() => parseLooseJson('{"a": 1,\n "a": 2}', "x.json", { duplicates: "error" })).toThrow(
      'x.json: line 2, column 2: the key "a" stands here twice',
    );
  });

  it("refuses the bare words where asked", () => {
    expect(() => parseLooseJson("[Infinity]", "x.json", { nonFinite: false })).toThrow(
      "x.json: line 1, column 2: expected a value",
    );
  });

  it.each([
    ['{\n  "a": 1,\n  "b": infinity\n}', "line 3, column 8: expected a value"],
    ['{"a": 1,}', "line 1, column 9: expected a key in double quotes"],
    ["{'a': 1}", "line 1, column 2: expected a key in double quotes"],
    ["[1 2]", 'line 1, column 4: expected "," or "]"'],
    ['{"a" 1}', 'line 1, column 6: expected ":"'],
    ["", "line 1, column 1: expected a value; the file ends here"],
    ["[1,\n2", 'line 2, column 2: expected "," or "]"; the file ends here'],
    ['"abc', "a string that does not end"],
    ['"a\nb"', "a control character in a string"],
    ['"\\x41"', "no such escape"],
    ['"\\constructor"', "no such escape"],
    ['"\\u12g4"', "four hexadecimal digits"],
    ["01", "expected the end of the file"],
    ["+1", "expected a value"],
    ["1.", "expected the end of the file"],
    ["--Infinity", "expected a value"],
    ["Infinityx", "expected the end of the file"],
    ["nul", "expected a value"],
    ["{} {}", "expected the end of the file"],
    ["<html>", 'line 1, column 1: expected a value; found "<html>"'],
  ])("names the place in %j", (text, message) => {
    expect(() => parse(text)).toThrow(FormatError);
    expect(() => parse(text)).toThrow(message);
    expect(() => parse(text)).toThrow(/^config\.json: line \d+, column \d+: /);
  });

  it("survives hostile depth and long strings", () => {
    expect(() => parse("[".repeat(1_000_000))).toThrow("nested more than 256 deep");
    expect(() => parse('{"a":'.repeat(1_000_000))).toThrow("nested more than 256 deep");
    expect(parse(`"${"x".repeat(5_000_000)}"`)).toHaveLength(5_000_000);
  });

  it("ends every damaged text in a value or a FormatError", () => {
    const next = random(5);
    const alphabet = [
      '{"',
      '"}',
      "[",
      "]",
      ",",
      ":",
      "Infinity",
      "-",
      "NaN",
      "1e5",
      "\\u00",
      "\\",
      " ",
      "\n",
      "null",
      '"',
      "a",
      "0",
    ];
    let valid = 0;
    for (let i = 0; i < 5000; i++) {
      const text = Array.from({ length: 1 + next() * 8 }, () => alphabet[Math.floor(next() * alphabet.length)]).join(
        "",
      );
      try {
        parse(text);
        valid++;
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError);
      }
    }
    expect(valid).toBeGreaterThan(50);
  });

  it("names the file whose bytes are not text, and skips a byte order mark", () => {
    expect(() => parseLooseJsonBytes(Uint8Array.of(0x22, 0xff, 0x22), "runs/x/config.json")).toThrow(
      "runs/x/config.json: not JSON: its bytes are not UTF-8 text",
    );
    expect(parseLooseJsonBytes(Uint8Array.of(0xef, 0xbb, 0xbf, 0x31), "x")).toBe(1);
  });

  it("reads a file", async () => {
    const files = memoryFiles();
    await files.createExclusive("c.json", new TextEncoder().encode('{"a": Infinity}'));
    expect(await readLooseJson(files, "c.json")).toEqual({ a: Number.POSITIVE_INFINITY });
    await expect(readLooseJson(files, "none.json")).rejects.toThrow("none.json");
  });
});

describe("stringifyLooseJson", () => {
  it("writes the bare words and reads them back", () => {
    const value = {
      b: [0, Number.POSITIVE_INFINITY],
      a: Number.NEGATIVE_INFINITY,
      n: Number.NaN,
      s: 'NaN "x"',
      e: {},
      l: [],
    };
    const text = stringifyLooseJson(value);
    expect(text).toBe(
      '{\n  "a": -Infinity,\n  "b": [\n    0,\n    Infinity\n  ],\n  "e": {},\n  "l": [],\n  "n": NaN,\n  "s": "NaN \\"x\\""\n}',
    );
    expect(parse(text)).toEqual(value);
    expect(stringifyLooseJson(value, { indent: 0, sortKeys: false })).toBe(
      '{"b":[0,Infinity],"a":-Infinity,"n":NaN,"s":"NaN \\"x\\"","e":{},"l":[]}',
    );
  });

  it("gives the same text for the same value, whatever the order of its keys", () => {
    expect(stringifyLooseJson({ x: 1, a: { d: 1, c: 2 } })).toBe(stringifyLooseJson({ a: { c: 2, d: 1 }, x: 1 }));
  });

  it("leaves out what is undefined, and refuses what JSON has no form for", () => {
    expect(stringifyLooseJson({ a: undefined, b: 1 }, { indent: 0 })).toBe('{"b":1}');
    expect(() => stringifyLooseJson({ a: 1n })).toThrow("no form for a value of type bigint");
    expect(() => stringifyLooseJson([undefined])).toThrow(TypeError);
    const loop: { self?: unknown } = {};
    loop.self = loop;
    expect(() => stringifyLooseJson(loop)).toThrow("does the value contain itself?");
  });
});
