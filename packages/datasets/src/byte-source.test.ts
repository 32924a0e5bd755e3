// Layer: datasets, tests. Bytes from files, packed and not, and UTF-8 across windows; damaged files by name and place.
import { gzipSync } from "node:zlib";
import { writeFileAtomic } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { describe, expect, it } from "vitest";
import { type ByteSource, fileSource, joinSources, memorySource } from "./byte-source.js";
import { Utf8Decoder, Utf8Error } from "./utf8.js";

async function collect(source: ByteSource): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const part of source.open()) parts.push(part.slice());
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

async function stored(path: string, content: Uint8Array | string) {
  const files = memoryFiles();
  await writeFileAtomic(files, path, content);
  return fileSource(files, path, { windowBytes: 100 });
}

const sample = new TextEncoder().encode("the quick brown fox\n".repeat(200));
/** The sample packed by xz, made once, so that the test needs no xz program. */
const packedXz = Uint8Array.from(
  atob(
    "/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4A+fAC9dADoaCM52x+Xp1gc0w9EOv85V4aq93BCSUrZOPVfdwCLcKFbp1Xn6sGOsK7QnWOAAAAAeBnU907FvrQABS6AfAAAALfaX3rHEZ/sCAAAAAARZWg==",
  ),
  (character) => character.charCodeAt(0),
);

describe("fileSource", () => {
  it("reads in windows, as often as it is opened", async () => {
    const source = await stored("data.txt", sample);
    let windows = 0;
    for await (const window of source.open()) {
      expect(window.length).toBeLessThanOrEqual(100);
      windows++;
    }
    expect(windows).toBe(40);
    expect(await collect(source)).toEqual(sample);
  });

  it("unpacks gzip, also in several members", async () => {
    expect(await collect(await stored("data.txt.gz", gzipSync(sample)))).toEqual(sample);
    const two = Buffer.concat([gzipSync(sample.subarray(0, 1000)), gzipSync(sample.subarray(1000))]);
    expect(await collect(await stored("data.gz", two))).toEqual(sample);
  });

  it("unpacks xz", async () => {
    expect(await collect(await stored("data.txt.XZ", packedXz))).toEqual(sample);
  });

  it.each([
    ["gz", () => gzipSync(sample)],
    ["xz", () => packedXz],
  ])("names a damaged or cut-off .%s", async (extension, pack) => {
    const packed = Uint8Array.from(pack());
    const path = `d.${extension}`;
    await expect(collect(await stored(path, packed.slice(0, packed.length - 12)))).rejects.toThrow(
      /^d\..z: its .* data is damaged/,
    );
    const wrong = packed.slice();
    wrong[40] = (wrong[40] as number) ^ 0xff;
    await expect(collect(await stored(path, wrong))).rejects.toThrow(/^d\..z: its .* data is damaged/);
    await expect(collect(await stored(path, "plain text"))).rejects.toThrow(/but its content is not; rename it/);
    expect(await collect(await stored(path, ""))).toHaveLength(0);
  });

  it("says how to unpack what it does not read, and which file is missing", async () => {
    const files = memoryFiles();
    await files.makeDirectory("folder");
    expect(() => fileSource(files, "text8.bz2").open()).toThrow(
      "text8.bz2: .bz2 files are not read; unpack it first (bunzip2 text8.bz2)",
    );
    for (const path of ["none.txt", "none.xz"]) {
      await expect(collect(fileSource(files, path))).rejects.toThrow(`cannot read ${path}: no such file`);
    }
    await expect(collect(fileSource(files, "folder"))).rejects.toThrow(
      "folder: it is a directory; a data file was expected",
    );
  });

  it("passes on an error of the disk under packed data", async () => {
    const files = memoryFiles();
    await writeFileAtomic(files, "d.gz", gzipSync(sample));
    const broken = {
      ...files,
      readRange: (path: string, at: number, length: number) =>
        length > 10 ? Promise.reject(new Error("disk on fire")) : files.readRange(path, at, length),
    };
    await expect(collect(fileSource(broken, "d.gz"))).rejects.toThrow("disk on fire");
  });
});

describe("memorySource and joinSources", () => {
  it("give texts and bytes in their order", async () => {
    const joined = joinSources("both", [memorySource("a", "né"), memorySource("b", Uint8Array.of(1, 2))]);
    expect(await collect(joined)).toEqual(Uint8Array.of(0x6e, 0xc3, 0xa9, 1, 2));
    expect(await collect(joined)).toHaveLength(5);
  });
});

describe("Utf8Decoder", () => {
  const decode = (bytes: Uint8Array, window: number): string => {
    const decoder = new Utf8Decoder();
    let text = "";
    for (let at = 0; at < bytes.length; at += window) text += decoder.push(bytes.subarray(at, at + window));
    decoder.end();
    return text;
  };

  it("puts characters together across windows of any size", () => {
    const text = "\uFEFFa é — 😀😀 z".repeat(3);
    for (let window = 1; window < 12; window++) expect(decode(new TextEncoder().encode(text), window)).toBe(text);
  });

  it.each([
    ["a lone continuation", [0x61, 0x62, 0x80, 0x63], 2],
    ["a character that breaks off", [0x61, 0xe2, 0x82, 0x41, 0x42], 3],
    ["an overlong form", [0x61, 0x62, 0x63, 0xc0, 0x80], 3],
    ["a byte that never occurs", [0x61, 0xff], 1],
    ["an end inside a character", [0x61, 0x62, 0xf0, 0x9f, 0x98], 2],
  ])("names the place of %s, whatever the windows", (_name, bytes, position) => {
    for (let window = 1; window <= bytes.length; window++) {
      let error: unknown;
      try {
        decode(Uint8Array.from(bytes), window);
      } catch (cause) {
        error = cause;
      }
      expect(error).toBeInstanceOf(Utf8Error);
      expect((error as Utf8Error).position).toBe(position);
    }
  });
});
