// Layer: eval, tests. Documents from folders: found by name, packed or not; damaged lines named; and, where DIFFMAMBA_DATA names the
// real data, every task on it.
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import path from "node:path";
import process from "node:process";
import { arraySource } from "@diffmamba/datasets";
import type { FileSystem } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { nodeFiles } from "@diffmamba/files/node";
import { parquetWriteBuffer } from "hyparquet-writer";
import { describe, expect, it } from "vitest";
import {
  type ContinuationRequest,
  type EvaluatedModel,
  exampleSplit,
  fetchDocuments,
  findTasks,
  loadDocuments,
  longDocuments,
  measuredSplit,
  parseTask,
  readDocuments,
  render,
  runTask,
  shippedTasks,
} from "./index.js";

async function put(files: FileSystem, name: string, content: string | Uint8Array): Promise<void> {
  await files.makeDirectory(path.dirname(name));
  const writer = await files.writer(name);
  await writer.write(typeof content === "string" ? new TextEncoder().encode(content) : content);
  await writer.close();
}

async function gzip(text: string): Promise<Uint8Array> {
  const packed = new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(packed).arrayBuffer());
}

describe("documents", () => {
  const [piqa] = findTasks("piqa");

  it("are those of the split that a task is measured on", async () => {
    expect(measuredSplit(piqa)).toBe("validation");
    expect(exampleSplit(piqa)).toBe("train");
    expect(exampleSplit(findTasks("lambada")[0])).toBeUndefined();
  });

  it("are found by the task's names, then by its own, packed or not", async () => {
    const files = memoryFiles();
    expect(await loadDocuments(files, "data", piqa)).toBeUndefined();
    await put(files, "data/piqa/validation.jsonl", '{"a":3}\n');
    await put(files, "data/piqa/train.jsonl", '{"a":4}\n{"a":5}');
    const found = async (split?: string) => (await loadDocuments(files, "data", piqa, split))?.documents;
    expect(await found()).toEqual([{ a: 3 }]);
    expect(await found("train")).toEqual([{ a: 4 }, { a: 5 }]);
    await put(files, "data/mc_eval/piqa_val.jsonl.gz", await gzip('{"a":"é"}\n\n{"a":2}\n'));
    const first = await loadDocuments(files, "data", piqa);
    expect(first?.documents).toEqual([{ a: "é" }, { a: 2 }]);
    expect(first?.file).toBe("data/mc_eval/piqa_val.jsonl.gz");
    await put(files, "plain.jsonl", '{"a":"é"}\n\n{"a":2}\n');
    expect((await readDocuments(files, "plain.jsonl")).sha256).toBe(first?.sha256);
  });

  it("that are none are named with their line", async () => {
    const files = memoryFiles();
    await put(files, "bad.jsonl", '{"a":1}\n{"a":\n');
    await expect(readDocuments(files, "bad.jsonl")).rejects.toThrow("bad.jsonl: line 2 is no JSON: ");
    await put(files, "list.jsonl", "[1]\n");
    await expect(readDocuments(files, "list.jsonl")).rejects.toThrow("list.jsonl: line 1 holds no JSON object.");
  });
});

describe("fetched documents", () => {
  const [piqa] = findTasks("piqa");
  const label = [0n, 1n, 1n];
  const columnData = [
    { name: "goal", data: ["one", "two", "three"], type: "STRING" as const },
    { name: "sol1", data: ["a", "b", "c"], type: "STRING" as const },
    { name: "sol2", data: ["d", "é", "f"], type: "STRING" as const },
    { name: "label", data: label, type: "INT64" as const },
  ];
  const content = new Uint8Array(parquetWriteBuffer({ columnData }));

  /** A hub with one data set. */
  const hub = (bytes: Uint8Array): typeof fetch => {
    const entry = { type: "file", path: "data/validation-00000-of-00001.parquet", size: content.length, oid: "0" };
    entry.oid = createHash("sha1").update(`blob ${content.length}\0`).update(content).digest("hex");
    return async (input) => {
      const { pathname } = new URL(input instanceof Request ? input.url : input);
      if (pathname === "/api/datasets/baber/piqa/tree/main") return Response.json([entry]);
      if (pathname.endsWith(`/resolve/main/${entry.path}`)) return new Response(bytes.slice());
      return new Response("", { status: 404 });
    };
  };
  const documents = ["one", "two", "three"].map((goal, i) => ({
    ...{ goal, sol1: "abc"[i], sol2: ["d", "é", "f"][i], label: Number(label[i]) },
  }));

  it("are the hub's rows, found again without it", async () => {
    const files = memoryFiles();
    const options = { files, fetch: hub(content), retries: 0 };
    const fetched = await fetchDocuments(piqa, "data", options);
    expect(fetched).toMatchObject({ file: "data/piqa_validation.jsonl", documents });
    expect(await loadDocuments(files, "data", piqa)).toEqual(fetched);
    await put(files, "other/piqa/validation.parquet", content);
    expect((await loadDocuments(files, "other", piqa))?.documents).toEqual(documents);
  });

  it("that come damaged are not kept, and what cannot be fetched is named", async () => {
    const files = memoryFiles();
    const damaged = content.slice();
    damaged[20] ^= 0xff;
    await expect(fetchDocuments(piqa, "data", { files, fetch: hub(damaged), retries: 0, waitMs: 1 })).rejects.toThrow(
      /validation-00000-of-00001\.parquet/,
    );
    expect(await loadDocuments(files, "data", piqa)).toBeUndefined();
    const [arc] = findTasks("arc_easy");
    await expect(fetchDocuments(arc, "data", { files, fetch: hub(content), retries: 0 })).rejects.toThrow(
      "hf:allenai/ai2_arc@main: the hub answered 404",
    );
    const nowhere = parseTask("task: t\noutput_type: loglikelihood\ndoc_to_target: a");
    await expect(fetchDocuments(nowhere, "data", { files })).rejects.toThrow("t: it names no data set (dataset_path)");
    await put(files, "cut.parquet", content.subarray(0, content.length - 30));
    await expect(readDocuments(files, "cut.parquet")).rejects.toThrow("cut.parquet: its parquet data is damaged");
  });
});

describe("long documents", () => {
  const all = async (source: Parameters<typeof longDocuments>[0], length: number, limit?: number) => {
    const found: number[][] = [];
    for await (const ids of longDocuments(source, { length, ...(limit && { limit }) })) found.push([...ids]);
    return found;
  };
  const source = arraySource(
    Int32Array.from({ length: 10 }, (_, i) => i),
    { name: "ten" },
  );
  const starts = [0, 2, 6];
  const documents = { count: 3, range: async (i: number) => [starts[i], starts[i + 1] ?? 10] as const };

  it("are stretches side by side, or a source's own that are long enough", async () => {
    expect(await all(source, 3)).toEqual([
      [0, 1, 2, 3],
      [4, 5, 6, 7],
    ]);
    expect(await all(source, 3, 1)).toEqual([[0, 1, 2, 3]]);
    expect(await all({ ...source, documents }, 2)).toEqual([
      [2, 3, 4],
      [6, 7, 8],
    ]);
    await expect(all(source, 10)).rejects.toThrow("ten: a document of 11 tokens is asked for, but it holds 10");
    await expect(all({ ...source, documents }, 4)).rejects.toThrow("none of its 3 documents has as many");
  });
});

const root = process.env.DIFFMAMBA_DATA ?? "";
const real = existsSync(path.join(root, "mc_eval"));

/** Likelihoods by the length of the continuation, so that accuracies are those of a rule that can be computed by itself. */
const shortest: EvaluatedModel = {
  loglikelihood: async (requests: readonly ContinuationRequest[]) =>
    requests.map(({ continuation }) => ({ logLikelihood: -continuation.length, greedy: continuation.length < 5 })),
  loglikelihoodRolling: async () => [],
  generateUntil: async () => [],
};

describe.skipIf(!real)(real ? "the real data" : "the real data (skipped: DIFFMAMBA_DATA has no mc_eval)", () => {
  const counts = {
    lambada_openai: 5153,
    hellaswag: 1000,
    piqa: 1838,
    arc_easy: 570,
    winogrande: 1267,
    boolq: 3270,
    openbookqa: 500,
  };

  it.each(Object.entries(counts))(
    "of %s is %i documents, each with its requests and an answer",
    async (name, count) => {
      const [task] = findTasks(name);
      const found = await loadDocuments(nodeFiles(), root, task);
      expect(found?.documents).toHaveLength(count);
      for (const document of found?.documents ?? []) {
        const { requests, gold, choices } = render(task, document);
        for (const { context, continuation } of requests) {
          expect(context).toMatch(/\S/);
          expect(continuation).toMatch(/^ \s*\S/);
        }
        if (name !== "lambada_openai") {
          expect(choices.length).toBe(requests.length);
          expect(gold).toHaveLength(1);
        }
      }
      const own = (found?.documents ?? []).map((document) => render(task, document));
      const right = own.filter(({ requests, gold: [answer] }) => {
        const lengths = requests.map(({ continuation }) => continuation.length);
        return name === "lambada_openai" ? lengths[0] < 5 : lengths.indexOf(Math.min(...lengths)) === answer;
      });
      const { metrics } = await runTask(shortest, task, found?.documents ?? [], { bootstrap: 0 });
      expect(metrics.acc.value).toBeCloseTo(right.length / count, 12);
    },
  );

  it("has every shipped task but ARC's challenge", () => {
    expect(
      shippedTasks()
        .map(({ name }) => name)
        .filter((name) => !(name in counts)),
    ).toEqual(["arc_challenge"]);
  });
});
