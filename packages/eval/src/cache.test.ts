// Layer: eval, tests. Answers on disk: nothing is asked twice, an interrupted evaluation goes on, a damaged end is cut off.

import { readText } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { describe, expect, it } from "vitest";
import { cachedModel, type EvaluatedModel, findTasks, runTask } from "./index.js";
import { TableModel } from "./table.testing.js";

const requests = Array.from({ length: 5 }, (_, i) => ({ context: "c", continuation: ` ${i}` }));
const table = requests.map(({ context, continuation }, i) => [context, continuation, -1 - i, i % 2 === 0] as const);
const path = "cache/answers.jsonl";

/** Answers one by one, and stops by itself after some. */
function stopping(after: number): EvaluatedModel & { asked: number } {
  const model = {
    asked: 0,
    async loglikelihood(list, { onAnswers } = {}) {
      for (const [index, { continuation }] of list.entries()) {
        if (model.asked === after) throw new Error("stopped");
        model.asked++;
        const result = { logLikelihood: -1 - Number(continuation), greedy: Number(continuation) % 2 === 0 };
        await onAnswers?.([{ index, result }]);
      }
      return [];
    },
    loglikelihoodRolling: async () => [],
    generateUntil: async () => [],
  } as EvaluatedModel & { asked: number };
  return model;
}

describe("a cache", () => {
  it("asks once, in this evaluation and in the next", async () => {
    const files = memoryFiles();
    const inner = new TableModel(table, new Map([["text", -7]]), new Map([["p", "answer"]]));
    const model = await cachedModel(inner, { files, path, model: "m" });
    const twice = [...requests, requests[1]];
    const told: number[] = [];
    const scores = await model.loglikelihood(twice, {
      onAnswers: (some) => void told.push(...some.map((a) => a.index)),
    });
    expect(scores.map(({ logLikelihood }) => logLikelihood)).toEqual([-1, -2, -3, -4, -5, -2]);
    expect(told.sort()).toEqual([0, 1, 2, 3, 4, 5]);
    const prompt = { context: "p", until: [], maxTokens: 3, temperature: 0, seed: 0 };
    expect(await model.generateUntil([prompt])).toEqual(["answer"]);
    expect(await model.loglikelihoodRolling(["text"])).toEqual([-7]);
    expect(inner.asked).toHaveLength(7);
    const nothing = new TableModel([]);
    const again = await cachedModel(nothing, { files, path, model: "m" });
    expect(await again.loglikelihood(twice)).toEqual(scores);
    expect(await again.generateUntil([prompt])).toEqual(["answer"]);
    expect(await again.loglikelihoodRolling(["text"])).toEqual([-7]);
    expect(nothing.asked).toEqual([]);
    await expect(again.generateUntil([{ ...prompt, seed: 1 }])).rejects.toThrow("the table has no answer");
  });

  it("goes on where an evaluation was stopped, and gives what one without a stop gives", async () => {
    const files = memoryFiles();
    const first = stopping(3);
    const interrupted = await cachedModel(first, { files, path, model: "m" });
    await expect(interrupted.loglikelihood(requests)).rejects.toThrow("stopped");
    expect((await readText(files, path)).trim().split("\n")).toHaveLength(4);
    const second = stopping(100);
    const resumed = await cachedModel(second, { files, path, model: "m" });
    const scores = await resumed.loglikelihood(requests);
    expect(second.asked).toBe(2);
    expect(scores).toEqual(await new TableModel(table).loglikelihood(requests));
  });

  it("cuts off a line that was being written, and refuses another model's answers", async () => {
    const files = memoryFiles();
    await (await cachedModel(stopping(100), { files, path, model: "m" })).loglikelihood(requests.slice(0, 2));
    const whole = await readText(files, path);
    const writer = await files.writer(path, { append: true });
    await writer.write(new TextEncoder().encode('{"key":"ab'));
    await writer.close();
    const model = stopping(100);
    await (await cachedModel(model, { files, path, model: "m" })).loglikelihood(requests.slice(0, 3));
    expect(model.asked).toBe(1);
    const text = await readText(files, path);
    expect(text.startsWith(whole)).toBe(true);
    expect(
      text
        .trim()
        .split("\n")
        .map((line) => typeof JSON.parse(line)),
    ).toHaveLength(4);
    await expect(cachedModel(model, { files, path, model: "other" })).rejects.toThrow(
      `cannot read ${path}: it holds no answers of this model`,
    );
  });

  it("changes no result of a task", async () => {
    const [task] = findTasks("boolq");
    const documents = [0, 1, 2].map((i) => ({ passage: `P${i}.`, question: "is it", label: i % 2 }));
    const answers = documents.flatMap(({ passage }, i) => [
      [`${passage}\nQuestion: is it?\nAnswer:`, " no", -1 - i] as const,
      [`${passage}\nQuestion: is it?\nAnswer:`, " yes", -2] as const,
    ]);
    const plain = await runTask(new TableModel(answers), task, documents);
    const files = memoryFiles();
    for (let round = 0; round < 2; round++) {
      const inner = new TableModel(round === 0 ? answers : []);
      const model = await cachedModel(inner, { files, path, model: "m" });
      expect(await runTask(model, task, documents)).toEqual(plain);
    }
  });
});
