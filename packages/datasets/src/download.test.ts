// Layer: datasets, tests. Downloads from a server on this machine: whole, in parts, stopped by every kind of fault; nothing has its name before
// it is whole and checked.
import { createHash } from "node:crypto";
import { writeFileAtomic } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { fetchHub } from "./corpora.js";
import { DownloadError, type DownloadOptions, type DownloadProgress, download } from "./download.js";
import { hubFiles } from "./hub.js";
import { type TestServer, testServer } from "./server.testing.js";

const content = Uint8Array.from({ length: 300_000 }, (_, i) => (i * i) % 251);
const hash = (name: string, bytes: Uint8Array = content) => createHash(name).update(bytes).digest("hex");

let server: TestServer;
beforeAll(async () => {
  server = await testServer();
});
afterAll(() => server.close());
beforeEach(() => {
  server.files.clear();
  server.log.length = 0;
});

const quick = { retries: 2, waitMs: 1 };
function setup(answers: NonNullable<Parameters<TestServer["files"]["set"]>[1]["answers"]>) {
  server.files.set("/data.bin", { content, answers });
  const files = memoryFiles();
  const options: DownloadOptions = { files, ...quick };
  return { files, options, url: `${server.url}/data.bin` };
}
/** Whether the file that was fetched is this. (Comparing as lists would take seconds.) */
const holds = async (files: ReturnType<typeof memoryFiles>, expected: Uint8Array) =>
  Buffer.from(await files.read("d/data.bin")).equals(expected);
const names = async (files: ReturnType<typeof memoryFiles>) => (await files.list("d")).map(({ name }) => name);

describe("download", () => {
  it("fetches a file, checks it, and does not fetch it twice", async () => {
    const { files, options, url } = setup(["whole"]);
    const seen: DownloadProgress[] = [];
    const checks = { size: content.length, sha256: hash("sha256"), sha1: hash("sha1"), md5: hash("md5") };
    const gitSha1 = hash("sha1", Buffer.concat([Buffer.from(`blob ${content.length}\0`), content]));
    await download({ url, ...checks, gitSha1 }, "d/data.bin", { ...options, onProgress: (at) => seen.push(at) });
    expect(await holds(files, content)).toBe(true);
    expect(await names(files)).toEqual(["data.bin"]);
    expect(seen.at(-1)).toEqual({ phase: "check", url, bytes: content.length, total: content.length });
    await download({ url, size: content.length }, "d/data.bin", options);
    expect(server.log).toEqual(["GET /data.bin"]);
  });

  it("goes on where the server stopped half-way", async () => {
    const { files, options, url } = setup([{ stopAfter: 100_000 }, { stopAfter: 50_000 }, "whole"]);
    await download({ url, sha256: hash("sha256") }, "d/data.bin", options);
    expect(await holds(files, content)).toBe(true);
    expect(server.log).toEqual(["GET /data.bin", "GET /data.bin bytes=100000-", "GET /data.bin bytes=150000-"]);
  });

  it("goes on in another call, and says how much is kept", async () => {
    const { files, options, url } = setup([{ stopAfter: 100_000 }, { status: 500 }, { status: 503 }, { status: 500 }]);
    await expect(download({ url }, "d/data.bin", options)).rejects.toThrow(
      `${url}: the server answered 500 Internal Server Error; tried 3 times without another byte. 100000 bytes are kept in d/data.bin.part`,
    );
    expect(await names(files)).toEqual(["data.bin.part", "data.bin.part.json"]);
    server.files.set("/data.bin", { content, answers: ["whole"] });
    await download({ url }, "d/data.bin", options);
    expect(await holds(files, content)).toBe(true);
    expect(server.log.at(-1)).toBe("GET /data.bin bytes=100000-");
  });

  it("starts over where the file is another one by then", async () => {
    const { files, options, url } = setup([{ stopAfter: 100_000 }, { status: 500 }]);
    await expect(download({ url }, "d/data.bin", options)).rejects.toThrow(DownloadError);
    const other = content.map((byte) => byte ^ 1).slice(0, 200_000);
    server.files.set("/data.bin", { content: other, answers: ["whole"] });
    await download({ url }, "d/data.bin", options);
    expect(await holds(files, other)).toBe(true);
  });

  it("starts over where the server has no ranges, and where the part is too long", async () => {
    const plain = setup(["plain"]);
    await plain.files.makeDirectory("d");
    await writeFileAtomic(plain.files, "d/data.bin.part", "something old");
    await download({ url: plain.url }, "d/data.bin", plain.options);
    expect(await holds(plain.files, content)).toBe(true);

    const long = setup([{ stopAfter: 250_000 }, { status: 500 }]);
    await expect(download({ url: long.url }, "d/data.bin", long.options)).rejects.toThrow("250000 bytes are kept");
    const writer = await long.files.writer("d/data.bin.part", { append: true });
    await writer.write(new Uint8Array(60_000));
    await writer.close();
    server.files.set("/data.bin", { content, answers: ["whole"] });
    await download({ url: long.url }, "d/data.bin", long.options);
    expect(await holds(long.files, content)).toBe(true);
  });

  it("needs no request for a part that is whole already", async () => {
    const { files, options, url } = setup(["whole"]);
    const stop = new AbortController();
    const onProgress = ({ phase }: DownloadProgress) => phase === "check" && stop.abort(new Error("stopped"));
    const what = { url, size: content.length, md5: hash("md5") };
    await expect(download(what, "d/data.bin", { ...options, onProgress, signal: stop.signal })).rejects.toThrow(
      "stopped",
    );
    expect(await names(files)).toEqual(["data.bin.part", "data.bin.part.json"]);
    await download(what, "d/data.bin", options);
    expect(await holds(files, content)).toBe(true);
    expect(server.log).toHaveLength(1);
  });

  it.each([
    [404, "the server answered 404 Not Found: the file is not at this address"],
    [403, "the server answered 403 Forbidden: it does not give the file"],
  ])("gives up at once on %i", async (status, message) => {
    const { files, options, url } = setup([{ status }]);
    await expect(download({ url }, "d/data.bin", options)).rejects.toThrow(`${url}: ${message}`);
    expect(server.log).toHaveLength(1);
    expect(await names(files)).toEqual([]);
  });

  it("removes what differs from what was published", async () => {
    for (const wrong of [{ sha256: hash("sha256", Uint8Array.of(1)) }, { md5: hash("md5", Uint8Array.of(1)) }]) {
      const { files, options, url } = setup(["whole"]);
      await expect(download({ url, ...wrong }, "d/data.bin", options)).rejects.toThrow(
        /data\.bin: its (sha256|md5) is [0-9a-f]+, but [0-9a-f]+ was published\. What came was removed; fetch it again/,
      );
      expect(await names(files)).toEqual([]);
    }
    const { files, options, url } = setup(["whole"]);
    await expect(download({ url, size: 5 }, "d/data.bin", options)).rejects.toThrow(
      "the server has 300000 bytes, but 5 were published: another file",
    );
    expect(await names(files)).toEqual([]);
  });

  it("checks the MD5 that a server sends along", async () => {
    const { files, options, url } = setup(["whole"]);
    const md5 = createHash("md5").update(content).digest("base64");
    server.files.set("/data.bin", { content, headers: { "x-goog-hash": `crc32c=abcd==, md5=${md5}` } });
    await download({ url }, "d/data.bin", options);
    const wrong = createHash("md5").update("x").digest("base64");
    server.files.set("/data.bin", { content, headers: { "x-goog-hash": `md5=${wrong}` } });
    await expect(download({ url }, "d/other.bin", options)).rejects.toThrow("its md5 is");
    expect(await names(files)).toEqual(["data.bin"]);
  });

  it("names an answer that makes no sense, and a server that is not there", async () => {
    const { options, url } = setup([{ stopAfter: 1000 }, "other range"]);
    await expect(download({ url }, "d/data.bin", options)).rejects.toThrow(
      "with another range than was asked for (from byte 1000)",
    );
    const lying = setup(["lying length"]);
    await expect(download({ url: lying.url }, "d/data.bin", lying.options)).rejects.toThrow(
      /broke off after 300000 of 300005 bytes|300000 bytes came, but it has 300005/,
    );
    expect(await lying.files.stat("d/data.bin")).toBeUndefined();
    await expect(download({ url: "http://127.0.0.1:1/x" }, "d/x", options)).rejects.toThrow(
      /^http:\/\/127\.0\.0\.1:1\/x: there was no answer \(.*\); tried 3 times/,
    );
  });

  it("keeps what came where it is stopped", async () => {
    const { files, options, url } = setup([{ stopAfter: 200_000 }]);
    const stop = new AbortController();
    const onProgress = ({ bytes }: DownloadProgress) => bytes >= 10_000 && stop.abort(new Error("stopped"));
    await expect(download({ url }, "d/data.bin", { ...options, signal: stop.signal, onProgress })).rejects.toThrow(
      "stopped",
    );
    expect((await files.stat("d/data.bin.part"))?.size).toBeGreaterThanOrEqual(10_000);
    expect(await files.stat("d/data.bin")).toBeUndefined();
    server.files.set("/data.bin", { content, answers: ["whole"] });
    await download({ url }, "d/data.bin", options);
    expect(await holds(files, content)).toBe(true);
  });
});

describe("a data set on the hub", () => {
  const file = (path: string, text: string) => {
    const bytes = new TextEncoder().encode(text);
    server.files.set(`/datasets/own/set/resolve/main/${path}`, { content: bytes });
    return {
      type: "file",
      path,
      size: bytes.length,
      oid: "x",
      lfs: { oid: hash("sha256", bytes), size: bytes.length, pointerSize: 1 },
    };
  };
  const list = (entries: object[], revision = "main") => {
    const bytes = new TextEncoder().encode(JSON.stringify(entries));
    const path = `/api/datasets/own/set/tree/${revision}?recursive=true&expand=false`;
    server.files.set(path, { content: bytes, headers: { "content-type": "application/json" } });
  };
  const options = () => ({ repo: "own/set", hubUrl: server.url });

  it("has the files of its splits found, fetched and checked", async () => {
    list([
      file("README.md", "about train"),
      file("small/train-00000-of-00002.jsonl", '{"text":"a"}'),
      file("small/train-00001-of-00002.jsonl", '{"text":"b"}'),
      file("small/validation.jsonl", '{"text":"c"}'),
      file("large/train.jsonl", '{"text":"d"}'),
      file("small/train.txt", "also there as text"),
    ]);
    const found = await hubFiles({ ...options(), config: "small" }, ["train", "valid"]);
    expect(found.train?.map(({ path }) => path)).toEqual([
      "small/train-00000-of-00002.jsonl",
      "small/train-00001-of-00002.jsonl",
    ]);
    expect(found.valid?.map(({ path }) => path)).toEqual(["small/validation.jsonl"]);
    const files = memoryFiles();
    const fetched = await fetchHub({ ...options(), config: "small" }, ["train", "valid"], "d", { files, ...quick });
    expect(fetched.valid).toEqual(["d/small/validation.jsonl"]);
    expect(new TextDecoder().decode(await files.read("d/small/train-00001-of-00002.jsonl"))).toBe('{"text":"b"}');
    server.files.set("/datasets/own/set/resolve/main/large/train.jsonl", {
      content: new TextEncoder().encode('{"text":"e"}'),
    });
    await expect(fetchHub({ ...options(), config: "large" }, ["train"], "d", { files, ...quick })).rejects.toThrow(
      /large\/train\.jsonl: its sha256 is/,
    );
    expect(await files.stat("d/large/train.jsonl")).toBeUndefined();
  });

  it("is named with what it has where a split is not there, or there is no such data set", async () => {
    list([file("data/train.parquet", "x"), file("../test.parquet", "out of the folder")]);
    await expect(hubFiles(options(), ["test"])).rejects.toThrow(
      'hf:own/set@main: no file of split "test" was found; it has data/train.parquet',
    );
    await expect(hubFiles({ ...options(), repo: "own/none" }, ["train"])).rejects.toThrow(
      "hf:own/none@main: the hub answered 404: there is no such data set or revision",
    );
  });
});
