// Layer: eval, tests. Every task file on documents of its data set's form: what a model is asked, to the letter, and from a table of
// known answers the exact accuracy, normalised accuracy and perplexity.
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { type Document, findTasks, runTask, shippedTasks } from "./index.js";
import { type Table, TableModel } from "./table.testing.js";
import { taskTexts } from "./taskFiles.generated.js";

interface Case {
  readonly documents: readonly Document[];
  readonly table: Table;
  readonly metrics: Readonly<Record<string, number>>;
}

/** ARC's form, of which both its tasks are. */
const arc: Case = {
  documents: [
    {
      question: "Which is a gas?",
      choices: { text: ["iron", "oxygen", "salt"], label: ["A", "B", "C"] },
      answerKey: "B",
    },
    { question: "What falls?", choices: { text: ["a stone", "up"], label: ["1", "2"] }, answerKey: "1" },
  ],
  table: [
    ["Question: Which is a gas?\nAnswer:", " iron", -3],
    ["Question: Which is a gas?\nAnswer:", " oxygen", -3.5], // by characters -0.58, the greatest
    ["Question: Which is a gas?\nAnswer:", " salt", -8],
    ["Question: What falls?\nAnswer:", " a stone", -4],
    ["Question: What falls?\nAnswer:", " up", -4.5],
  ],
  metrics: { acc: 0.5, acc_norm: 1 },
};

const cases: Readonly<Record<string, Case>> = {
  lambada_openai: {
    documents: [{ text: "he looked at the\nsea and the sea" }, { text: "one two  three" }, { text: "a b" }],
    table: [
      ["he looked at the\nsea and the", " sea", -1, true],
      ["one two ", " three", -2.5, false],
      ["a", " b", -0.5, true],
    ],
    metrics: { perplexity: Math.exp(4 / 3), acc: 2 / 3 },
  },
  hellaswag: {
    documents: [
      {
        activity_label: "Baking",
        ctx_a: "A man mixes dough [title] Next. ",
        ctx_b: "the MAN",
        endings: [" bakes [substeps] bread. ", "eats [title] it."],
        label: "0",
      },
      {
        activity_label: "Running",
        ctx_a: "She runs.",
        ctx_b: "",
        endings: ["And stops.", "And flies away over the hills."],
        label: "1",
      },
    ],
    table: [
      ["Baking: A man mixes dough. Next. The man", " bakes bread.", -10],
      ["Baking: A man mixes dough. Next. The man", " eats. it.", -9],
      ["Running: She runs.", " And stops.", -6],
      ["Running: She runs.", " And flies away over the hills.", -12],
    ],
    metrics: { acc: 0, acc_norm: 1 },
  },
  piqa: {
    documents: [
      { goal: "Open a jar", sol1: "Twist the lid.", sol2: "Twist the jar apart with your hands.", label: 0 },
      { goal: "Dry a plate", sol1: "Eat it.", sol2: "Wipe it with a towel.", label: 1 },
    ],
    table: [
      ["Question: Open a jar\nAnswer:", " Twist the lid.", -14],
      ["Question: Open a jar\nAnswer:", " Twist the jar apart with your hands.", -18],
      ["Question: Dry a plate\nAnswer:", " Eat it.", -7],
      ["Question: Dry a plate\nAnswer:", " Wipe it with a towel.", -10],
    ],
    metrics: { acc: 0.5, acc_norm: 0.5 },
  },
  arc_easy: arc,
  arc_challenge: arc,
  winogrande: {
    documents: [
      { sentence: "The cup did not fit the box as the _ was too big.", option1: "cup", option2: "box", answer: "1" },
      { sentence: "Ann thanked Eve, and _ smiled at an _.", option1: "Ann", option2: "Eve", answer: "2" },
    ],
    table: [
      ["The cup did not fit the box as the cup", " was too big.", -5],
      ["The cup did not fit the box as the box", " was too big.", -6],
      ["Ann thanked Eve, and Ann", " smiled at an _.", -3],
      ["Ann thanked Eve, and Eve", " smiled at an _.", -4],
    ],
    metrics: { acc: 0.5 },
  },
  boolq: {
    documents: [
      { passage: "Ice is frozen water.", question: "is ice water", label: 1 },
      { passage: "Ice is frozen water.", question: "does ice burn", label: 0 },
    ],
    table: [
      ["Ice is frozen water.\nQuestion: is ice water?\nAnswer:", " no", -2],
      ["Ice is frozen water.\nQuestion: is ice water?\nAnswer:", " yes", -1],
      ["Ice is frozen water.\nQuestion: does ice burn?\nAnswer:", " no", -1.5],
      ["Ice is frozen water.\nQuestion: does ice burn?\nAnswer:", " yes", -1.25],
    ],
    metrics: { acc: 0.5 },
  },
  openbookqa: {
    documents: [
      { question_stem: "The sun is", choices: { text: ["a star", "a planet"], label: ["A", "B"] }, answerKey: " A" },
      { question_stem: "Bees make", choices: { text: ["wax and honey", "oil"], label: ["A", "B"] }, answerKey: "A" },
    ],
    table: [
      ["The sun is", " a star", -5],
      ["The sun is", " a planet", -6.4], // by characters -0.8, above -0.83
      ["Bees make", " wax and honey", -9],
      ["Bees make", " oil", -3],
    ],
    metrics: { acc: 0.5, acc_norm: 0.5 },
  },
};

describe("the shipped tasks", () => {
  it("are those of the folder, in the generated file too", () => {
    const folder = path.join(import.meta.dirname, "../tasks");
    const files = readdirSync(folder).sort();
    expect(Object.keys(taskTexts)).toEqual(files);
    for (const file of files) expect(taskTexts[file]).toBe(readFileSync(path.join(folder, file), "utf8"));
    expect(shippedTasks().map(({ name }) => `${name}.yaml`)).toEqual(files);
    expect(Object.keys(cases).sort()).toEqual(shippedTasks().map(({ name }) => name));
  });

  it.each(Object.keys(cases))("%s asks and scores exactly", async (name) => {
    const [task] = findTasks(name);
    const { documents, table, metrics } = cases[name];
    const model = new TableModel(table);
    const result = await runTask(model, task, documents, { bootstrap: 0 });
    expect(model.asked).toEqual(table.map(([context, continuation]) => ({ context, continuation })));
    expect(result).toMatchObject({ task: name, version: task.version, documents: documents.length, numFewshot: 0 });
    expect(Object.keys(result.metrics)).toEqual(Object.keys(metrics));
    for (const [metric, value] of Object.entries(metrics)) {
      expect(result.metrics[metric].value, metric).toBeCloseTo(value, 12);
    }
  });

  it("take documents that come rendered", async () => {
    const [piqa] = findTasks("piqa");
    const [winogrande] = findTasks("winogrande");
    const choices = { context: "Goal: x\nAnswer:", continuations: [" long and long", " a"], gold: 0 };
    const model = new TableModel([
      [choices.context, " long and long", -6], // -6/13 and -2/1
      [choices.context, " a", -2],
      ["so A", " is", -1],
      ["so B", " is", -2],
    ]);
    const { metrics } = await runTask(model, piqa, [choices]);
    expect([metrics.acc.value, metrics.acc_norm.value]).toEqual([0, 1]);
    const pairs = {
      pairs: [
        ["so A", " is"],
        ["so B", " is"],
      ],
      gold: 0,
    };
    expect((await runTask(model, winogrande, [pairs])).metrics.acc.value).toBe(1);
    await expect(runTask(model, piqa, [{ ...choices, gold: 2 }])).rejects.toThrow(
      "piqa: gold is 2; the document has 2",
    );
  });

  it("are found by name and by tag", () => {
    expect(findTasks("lambada").map(({ name }) => name)).toEqual(["lambada_openai"]);
    expect(findTasks("arc").map(({ name }) => name)).toEqual(["arc_challenge", "arc_easy"]);
    expect(() => findTasks("mmlu")).toThrow(/there is no task "mmlu"; there are arc, arc_challenge, /);
  });
});
