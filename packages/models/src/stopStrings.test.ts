import { describe, expect, it } from "vitest";
import { StopFilter } from "./stopStrings.js";

/** All that comes out, piece by piece, and what was found. */
function run(stops: readonly string[], pieces: readonly string[]): { text: string[]; stopped: string | undefined } {
  const filter = new StopFilter(stops);
  const text = pieces.map((piece) => filter.push(piece));
  return { text: [...text, filter.end()], stopped: filter.stopped };
}

describe("StopFilter", () => {
  it("ends the text before a stop string that straddles pieces", () => {
    expect(run(["</s>"], ["ab", "c<", "/", "s", ">def", "ghi"])).toEqual({
      text: ["ab", "c", "", "", "", "", ""],
      stopped: "</s>",
    });
  });

  it("lets what looked like a beginning pass once it is none", () => {
    expect(run(["<end>"], ["a<", "en", "x", "<", "<e", "y"])).toEqual({
      text: ["a", "", "<enx", "", "<", "<ey", ""],
      stopped: undefined,
    });
    expect(run(["aab"], ["aa", "ab"])).toEqual({ text: ["", "a", ""], stopped: "aab" });
  });

  it("gives what waits when the text is over", () => {
    expect(run(["STOP"], ["xS", "TO"])).toEqual({ text: ["x", "", "STO"], stopped: undefined });
  });

  it("finds one inside a piece, and lets no more text through", () => {
    expect(run(["\n"], ["one\ntwo", "three"])).toEqual({ text: ["one", "", ""], stopped: "\n" });
    expect(run([], ["one\ntwo"])).toEqual({ text: ["one\ntwo", ""], stopped: undefined });
  });

  it("stops at the one that is complete first and, of those, at the longest; whatever the pieces are", () => {
    const text = "xxabcdyy";
    for (const [stops, rest, stopped] of [
      [["abcd", "c"], "xxab", "c"],
      [["c", "abc", "bc"], "xx", "abc"],
      [["yy", "abcde"], "xxabcd", "yy"],
    ] as const) {
      for (let size = 1; size <= text.length; size++) {
        const pieces = text.match(new RegExp(`.{1,${size}}`, "g")) ?? [];
        const found = run(stops, pieces);
        expect([found.text.join(""), found.stopped, size]).toEqual([rest, stopped, size]);
      }
    }
  });

  it("never shows a part of a stop string: what has come out is a beginning of what may ever come out", () => {
    const stops = ["aba", "bb"];
    for (let code = 0; code < 3 ** 7; code++) {
      const text = code.toString(3).padStart(7, "0").replaceAll("0", "a").replaceAll("1", "b").replaceAll("2", "c");
      const ends = stops.map((stop) => text.indexOf(stop) + stop.length + (text.includes(stop) ? 0 : 99));
      const end = Math.min(...ends);
      const stop = stops[ends.indexOf(end)];
      const expected = end < 90 ? text.slice(0, end - stop.length) : text;
      expect(run(stops, [...text]).text.join("")).toBe(expected);
    }
  });
});
