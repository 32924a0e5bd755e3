// Layer: apps/cli, tests. `data prepare` and `tokenizer` as they are typed: files of every kind, a mirror, a server on this machine, and Ctrl-C.
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { smallest, someText, type Workplace, workplace } from "./command.testing.js";

let place: Workplace;
let hub: Server;
let requests: string[] = [];
let hubUrl = "";

const documents = Array.from({ length: 60 }, (_, i) => someText(40 + 37 * i));
const jsonl = documents.map((text) => JSON.stringify({ text })).join("\n");

beforeAll(async () => {
  place = workplace();
  place.write("text.txt", someText(20_000));
  place.write("docs.jsonl", jsonl);
  mkdirSync(place.at("mirror/tokenizers"), { recursive: true });
  place.write("mirror/novel.txt", someText(3000));
  await place.json([
    "tokenizer",
    "train",
    "--from",
    "text.txt",
    "--out",
    "mirror/tokenizers/own",
    "--vocab-size",
    "300",
  ]);
  const content = Buffer.from(jsonl);
  hub = createServer((request, response) => {
    const url = request.url ?? "";
    requests.push(`${url} ${request.headers.range ?? ""}`.trim());
    if (url.startsWith("/api/datasets/own/set/tree/main")) {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify([{ type: "file", path: "data/train.jsonl", size: content.length }]));
    } else if (url === "/datasets/own/set/resolve/main/data/train.jsonl") {
      const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
      const half = from === 0;
      const headers = { etag: '"1"', "content-length": content.length - from };
      const range = { "content-range": `bytes ${from}-${content.length - 1}/${content.length}` };
      response.writeHead(half ? 200 : 206, { ...headers, ...(half ? {} : range) });
      if (half) response.write(content.subarray(0, 10_000), () => setTimeout(() => response.destroy(), 50));
      else response.end(content.subarray(from));
    } else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => hub.listen(0, "127.0.0.1", resolve));
  hubUrl = `http://127.0.0.1:${(hub.address() as AddressInfo).port}`;
});
afterAll(async () => {
  place?.dispose();
  hub?.closeAllConnections();
  await new Promise((resolve) => hub?.close(resolve));
});

interface Made {
  readonly store: string;
  readonly name: string;
  readonly vocabSize: number;
  readonly splits: Record<string, { tokens: number; documents?: { count: number }; shards?: unknown[] }>;
}

const contentOf = (store: string) =>
  readdirSync(place.at(store)).map((name) => [name, readFileSync(place.at(store, name)).toString("base64")]);

describe("data prepare", () => {
  it("takes a path, a mirror's file and a mirror's tokenizer", async () => {
    const env = { DIFFMAMBA_DATA: place.at("mirror") };
    const flags = ["--tokenizer", "own", "--shard-tokens", "4000", "--threads", "2"];
    const made = await place.json<Made>(["data", "prepare", "docs.jsonl", "--out", "docs", ...flags], env);
    expect(made).toMatchObject({ name: "docs.jsonl", vocabSize: 300 });
    const counted = Object.values(made.splits).reduce((sum, split) => sum + (split.documents?.count ?? 0), 0);
    expect(counted).toBe(documents.length);
    expect(made.splits.train?.shards?.length).toBeGreaterThan(1);
    const novel = await place.json<Made>(["data", "prepare", "text", "--from", "novel", "--out", "novel"], env);
    expect(novel).toMatchObject({ name: "novel.txt", tokenizer: "characters" });
    const { stdout } = await place.run(["tokenizer", "show", "own", "the state", "--multiple", "64"], env);
    expect(stdout).toMatch(/^own: tokenizer\.json, 300 tokens; eos 0\npadded to a multiple of 64: 320\n\d+ "the"/);
  });

  it("gives the same store with any number of threads", async () => {
    const flags = ["--tokenizer", "mirror/tokenizers/own"];
    await place.json(["data", "prepare", "docs.jsonl", "--out", "one", "--threads", "1", ...flags]);
    await place.json(["data", "prepare", "docs.jsonl", "--out", "two", "--threads", "3", ...flags]);
    expect(contentOf("one")).toEqual(contentOf("two"));
  });

  it("fetches a data set of the hub, going on where the server stops", async () => {
    requests = [];
    const flags = ["--downloads", "cache", "--valid", "0.2", "--test", "0"];
    const made = await place.json<Made>(["data", "prepare", "hf:own/set", "--out", "hub", ...flags], {
      HF_ENDPOINT: hubUrl,
    });
    expect(made.name).toBe("own/set");
    expect(Object.keys(made.splits)).toEqual(["train", "valid"]);
    // On a busy machine the first answer may break off before anything has come.
    expect(requests.at(-1)).toBe("/datasets/own/set/resolve/main/data/train.jsonl bytes=10000-");
    expect(readFileSync(place.at("cache/hub/own--set/main/data/train.jsonl"), "utf8")).toBe(jsonl);
  });

  it.each([
    [
      ["wikitext-103", "--from", "mirror"],
      1,
      "mirror: it has neither wiki.train.tokens nor wikitext-103-v1/train-*.parquet",
    ],
    [["babi", "--from", "mirror"], 1, `mirror: this is not all of bAbI's "en": it lacks qa1 (train)`],
    [["pg19", "--from", "mirror"], 1, "cannot list mirror/train: no such file or directory"],
    [["text8", "--from", "text.txt"], 1, "text.txt: this is not text8: it holds"],
    [["text8", "--tokenizer", "own"], 2, "--tokenizer does not go with data prepare text8."],
    [["text"], 2, "data prepare text wants --from, a file or a folder."],
    [["text.txt", "--from", "other"], 2, "data prepare text.txt: --from names the data a second time."],
    [["wikitext-103", "--tokenizer", "own"], 2, "--tokenizer wants --level raw"],
    [["babi", "--tasks", "0"], 2, "It must be numbers of tasks from 1 to 20"],
    [["docs.jsonl", "--field", "body"], 1, 'docs.jsonl: line 1 has no text in "body"; it has "text"'],
    [["hf:own/none"], 1, "hf:own/none@main: the hub answered 404"],
  ] as const)("%j is refused", async (args, code, message) => {
    const outcome = await place.run(["data", "prepare", ...args, "--out", "never"], { HF_ENDPOINT: hubUrl });
    expect(outcome.stderr).toContain(message);
    expect(outcome).toMatchObject({ code, stdout: "" });
    expect(existsSync(place.at("never"))).toBe(false);
    expect(existsSync(place.at("never.tmp"))).toBe(false);
  });
});

describe("training on packed documents", () => {
  it("of several stores mixed by weight", async () => {
    const made = (from: string, out: string) =>
      place.json(["data", "prepare", from, "--out", out, "--tokenizer", "mirror/tokenizers/own", "--name", out]);
    place.write(
      "more.jsonl",
      documents
        .slice(0, 30)
        .map((text) => JSON.stringify({ text }))
        .join("\n"),
    );
    await made("docs.jsonl", "first");
    await made("more.jsonl", "second");
    const flags = (mix: string) => [
      ...smallest,
      "--data",
      "first",
      "--set",
      "order=packed",
      "--set",
      `mix=${mix}`,
      "--steps",
      "4",
    ];
    const trained = await place.json(["train", ...flags("second:0.5"), "--out", "mixed"]);
    expect(trained).toMatchObject({ step: 4, vocabSize: 300 });
    const state = readFileSync(place.at("mixed/step-4/training/state.json"), "utf8");
    // 8 windows: 2 of 3 from the first store.
    expect(JSON.parse(state).data).toMatchObject({ kind: "packed", taken: [5, 3] });
    expect((await place.run(["train", ...flags("second"), "--out", "never"])).stderr).toContain(
      'data.mix: "second" is not a store and its weight, such as stores/books:0.5.',
    );
    await place.json(["data", "prepare", "docs.jsonl", "--out", "letters"]);
    expect((await place.run(["train", ...flags("letters:1"), "--out", "never"])).stderr).toContain(
      "letters: it was made with another tokenizer than first",
    );
  });
});

describe("Ctrl-C", () => {
  const until = async (there: () => boolean, ended: () => boolean) => {
    while (!there() && !ended()) await new Promise((resolve) => setTimeout(resolve, 2));
  };

  it("keeps what has been prepared: the same command ends as one that was not stopped", async () => {
    place.write("long.txt", someText(6_000_000));
    const flags = (out: string) => [
      "data",
      "prepare",
      "long.txt",
      "--out",
      out,
      "--tokenizer",
      "mirror/tokenizers/own",
      "--threads",
      "1",
      "--json",
    ];
    await place.json(flags("whole").slice(0, -1));
    const run = place.start(flags("stopped"));
    let over = false;
    void run.ended.then(() => {
      over = true;
    });
    const size = () =>
      existsSync(place.at("stopped.tmp/train.u16")) ? readFileSync(place.at("stopped.tmp/train.u16")).length : 0;
    await until(
      () => size() > 0,
      () => over,
    );
    run.process.kill("SIGINT");
    const { code, stderr } = await run.ended;
    expect({ code, stderr }).toMatchObject({ code: 130 });
    expect(stderr).toContain(
      "stopped by SIGINT; the store is not there yet. The same command goes on from where it was.",
    );
    expect(existsSync(place.at("stopped"))).toBe(false);
    const kept = JSON.parse(readFileSync(place.at("stopped.tmp/progress.json"), "utf8"));
    expect(kept.chunks).toBeGreaterThan(0);
    await place.json(flags("stopped").slice(0, -1));
    expect(contentOf("stopped")).toEqual(contentOf("whole"));
    expect(existsSync(place.at("stopped.tmp"))).toBe(false);
  });

  it("leaves nothing of a tokenizer", async () => {
    const run = place.start([
      "tokenizer",
      "train",
      "--from",
      "long.txt",
      "--out",
      "half",
      "--vocab-size",
      "30000",
      "--threads",
      "1",
    ]);
    await new Promise((resolve) => setTimeout(resolve, 700));
    run.process.kill("SIGTERM");
    const { code } = await run.ended;
    expect([143, 0, "SIGTERM"]).toContain(code);
    if (code !== 0) expect(existsSync(place.at("half"))).toBe(false);
  });
});
