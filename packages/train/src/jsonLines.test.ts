// Layer: train, tests of line files: windows, cutting behind a step, half-written lines, appending.
import { memoryFiles } from "@diffmamba/files/memory";
import { describe, expect, it } from "vitest";
import { differences, toJson } from "./json.js";
import { cutJsonLines, JsonLinesWriter, readJsonLines } from "./jsonLines.js";
import { errorOf, put } from "./runs.testing.js";

async function stepsIn(files: ReturnType<typeof memoryFiles>): Promise<number[]> {
  const steps: number[] = [];
  for await (const { step } of readJsonLines(files, "lines")) steps.push(step);
  return steps;
}

describe("line files", () => {
  it("are written in batches and read in windows, whatever the text", async () => {
    const files = memoryFiles();
    const writer = new JsonLinesWriter(files, "lines");
    const long = "\u00e9\u{1f40d}\n".repeat(9000); // beyond a window, with characters that windows cut
    writer.add({ step: 1, text: long });
    await writer.flush();
    await writer.flush();
    writer.add({ step: 2 });
    writer.add({ step: 3, text: long });
    await writer.flush();
    const lines: { step: number; text?: string }[] = [];
    for await (const line of readJsonLines<{ step: number; text?: string }>(files, "lines")) lines.push(line);
    expect(lines).toEqual([{ step: 1, text: long }, { step: 2 }, { step: 3, text: long }]);
  });

  it("are cut behind a step", async () => {
    const files = memoryFiles();
    await put(files, "lines", '{"step":1}\n{"step":2}\n{"step":4}\n');
    await cutJsonLines(files, "lines", 3);
    expect(await stepsIn(files)).toEqual([1, 2]);
    await cutJsonLines(files, "lines", 2);
    expect((await files.stat("lines"))?.size).toBe(22);
    await cutJsonLines(files, "lines", 0);
    expect((await files.stat("lines"))?.size).toBe(0);
    await cutJsonLines(files, "none", 3);
    expect(await files.stat("none")).toBeUndefined();
  });

  it.each([
    ["half-written", '{"step":3,"lo'],
    ["without its newline", '{"step":3}'],
    ["damaged", '{"step":\n{"step":3}\n'],
    ["without a step", '{"loss":1}\n'],
  ])("lose a last line that is %s", async (_, tail) => {
    const files = memoryFiles();
    await put(files, "lines", `{"step":1}\n{"step":2}\n${tail}`);
    expect(await stepsIn(files)).toEqual([1, 2]);
    await cutJsonLines(files, "lines", 9);
    expect((await files.stat("lines"))?.size).toBe(22);
  });

  it("name the file that is full", async () => {
    const writer = new JsonLinesWriter(memoryFiles({ capacity: 5 }), "lines");
    writer.add({ step: 1 });
    expect(await errorOf(writer.flush())).toMatchObject({ code: "full", path: "lines" });
  });
});

describe("settings as JSON", () => {
  it("keep infinities as words and drop what is undefined", () => {
    expect(toJson({ a: [1, Number.POSITIVE_INFINITY], b: undefined, c: Number.NaN })).toEqual({
      a: [1, "Infinity"],
      c: "NaN",
    });
    expect(toJson(undefined)).toBe(null);
  });

  it("are compared member by member", () => {
    expect(differences({ a: { b: 1, c: [1] }, d: 2 }, { a: { b: 2, c: [1] }, e: null })).toEqual([
      { path: "a.b", before: 1, now: 2 },
      { path: "d", before: 2, now: undefined },
      { path: "e", before: undefined, now: null },
    ]);
  });
});
