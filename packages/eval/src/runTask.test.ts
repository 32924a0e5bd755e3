// Layer: eval, tests. Tasks on a table of known answers: examples, generation, rolling likelihoods, errors and intervals, and what is
// refused.
import { describe, expect, it } from "vitest";
import { bootstrap, type Metric, meanError, parseTask, render, runTask, type TaskSample } from "./index.js";
import { TableModel } from "./table.testing.js";

const quiz = (more = "") =>
  parseTask(
    `task: quiz\noutput_type: multiple_choice\ndescription: "Quiz.\\n"\ndoc_to_text: "Q: {{ q }}\\nA:"\n` +
      `doc_to_choice: [no, yes]\ndoc_to_target: "{{ a }}"\n${more}`,
  );
const questions = [
  { q: "one", a: "yes" },
  { q: "two", a: "no" },
  { q: "three", a: "yes" },
];

/** Says yes to everything. */
const yes = {
  ...new TableModel([]),
  async loglikelihood(requests: readonly { context: string; continuation: string }[]) {
    contexts.push(...requests.map(({ context }) => context));
    return requests.map(({ continuation }) => ({ logLikelihood: continuation === " yes" ? -1 : -2, greedy: false }));
  },
  loglikelihoodRolling: async () => [],
  generateUntil: async () => [],
};
const contexts: string[] = [];

describe("examples", () => {
  it("stand before a document, never the document itself, the same ones each time", async () => {
    const run = async (seed: number) => {
      contexts.length = 0;
      const result = await runTask(yes, quiz(), questions, { numFewshot: 2, seed });
      expect(result).toMatchObject({ numFewshot: 2, metrics: { acc: { value: 2 / 3 } } });
      return [...contexts];
    };
    const asked = await run(1);
    expect(await run(1)).toEqual(asked);
    const [one, two] = [asked[0], asked[2]];
    for (const [context, own] of [
      [one, "one"],
      [two, "two"],
    ]) {
      const parts = context.split("\n\n");
      expect(parts).toHaveLength(3);
      expect(parts[0].startsWith("Quiz.\nQ: ")).toBe(true);
      expect(parts[2]).toBe(`Q: ${own}\nA:`);
      expect(context.match(new RegExp(`Q: ${own}\n`, "g"))).toHaveLength(1);
    }
    expect(asked[0]).toMatch(/Q: two\nA: no\n\n/);
    const others = await Promise.all([2, 3, 4, 5].map(run).map(async (one) => (await one).join()));
    expect(others.some((other) => other !== asked.join())).toBe(true);
  });

  it("are the first of a given pool with first_n", async () => {
    contexts.length = 0;
    const task = quiz("num_fewshot: 1\nfewshot_config: { sampler: first_n }\nfewshot_delimiter: ' | '\n");
    await runTask(yes, task, questions, { examples: [{ q: "zero", a: "no" }] });
    expect(new Set(contexts.map((context) => context.split(" | ")[0]))).toEqual(new Set(["Quiz.\nQ: zero\nA: no"]));
    const many = runTask(yes, task, questions, { examples: [questions[0]], numFewshot: 2 });
    await expect(many).rejects.toThrow("quiz: 2 examples are asked for, of 1 documents.");
    await expect(runTask(yes, quiz(), questions, { numFewshot: 3 })).rejects.toThrow("3 examples are asked for, of 3");
  });
});

describe("generated answers", () => {
  it("match exactly, or but for what the metric ignores, after the filters", async () => {
    const task = (options: string, filter = "") =>
      parseTask(
        `task: g\ndoc_to_text: q\ndoc_to_target: [a, "{{ b }}"]\n${filter}` +
          `metric_list: [{ metric: exact_match, ${options} }]\ngeneration_kwargs: { until: ["\\n"], max_gen_toks: 7 }\n`,
      );
    const documents = [
      { q: "x", a: "Paris", b: "Lyon" },
      { q: "y", a: "Rome", b: "Milan" },
    ];
    const model = new TableModel(
      [],
      new Map(),
      new Map([
        ["x", " the answer is lyon!"],
        ["y", "Rome"],
      ]),
    );
    const value = async (options: string, filter = "") =>
      (await runTask(model, task(options, filter), documents)).metrics.exact_match.value;
    expect(await value("ignore_case: true")).toBe(0.5);
    expect(model.asked[0]).toEqual({ context: "x", until: ["\n"], maxTokens: 7, temperature: 0, seed: 0 });
    const last = `filter_list: [{ name: last, filter: [{ function: regex, regex_pattern: "(\\\\w+!?)$" }] }]\n`;
    expect(await value("ignore_case: true", last)).toBe(0.5);
    expect(await value("ignore_case: true, ignore_punctuation: true", last)).toBe(1);
    expect(await value("ignore_case: true, regexes_to_ignore: ['^ the answer is ', '!']")).toBe(1);
  });
});

describe("rolling likelihoods", () => {
  it("are summed over words and bytes", async () => {
    const task = parseTask('task: r\noutput_type: loglikelihood_rolling\ndoc_to_target: "{{ page }}"\n');
    const pages = ["one two é", "three"];
    const model = new TableModel(
      [],
      new Map([
        [pages[0], -12],
        [pages[1], -4],
      ]),
    );
    const { metrics } = await runTask(
      model,
      task,
      pages.map((page) => ({ page })),
      { bootstrap: 50 },
    );
    expect(metrics.word_perplexity.value).toBeCloseTo(Math.exp(16 / 4), 10);
    expect(metrics.byte_perplexity.value).toBeCloseTo(Math.exp(16 / 15), 10);
    expect(metrics.bits_per_byte.value).toBeCloseTo(16 / 15 / Math.LN2, 12);
    expect(metrics.word_perplexity.stderr).toBeGreaterThan(0);
  });
});

describe("errors and intervals", () => {
  it("are the sample's deviation over the root of n for means", async () => {
    const { metrics } = await runTask(yes, quiz(), questions, { bootstrap: 2000 });
    // 1, 0, 1: deviation sqrt(1/3), over sqrt(3)
    expect(metrics.acc.stderr).toBeCloseTo(1 / 3, 12);
    expect(meanError([1, 0, 1])).toBeCloseTo(1 / 3, 12);
    expect(metrics.acc.interval).toEqual([0, 1]);
    const single = await runTask(yes, quiz(), questions.slice(0, 1));
    expect(single.metrics.acc).toMatchObject({ value: 1, stderr: null, interval: null });
    expect((await runTask(yes, quiz(), questions, { bootstrap: 0 })).metrics.acc.interval).toBeNull();
  });

  it("come from the bootstrap for other numbers, near what theory says, and the same twice", () => {
    const values = Array.from({ length: 400 }, (_, i) => Math.sin(i * i) + (i % 7));
    const average = (list: readonly number[]) => list.reduce((a, b) => a + b, 0) / list.length;
    const drawn = bootstrap(values, average, { iterations: 2000, seed: 3 });
    expect(drawn.stderr / meanError(values)).toBeGreaterThan(0.95);
    expect(drawn.stderr / meanError(values)).toBeLessThan(1.05);
    const [low, high] = drawn.interval;
    expect(low).toBeCloseTo(average(values) - 1.96 * meanError(values), 1);
    expect(high).toBeCloseTo(average(values) + 1.96 * meanError(values), 1);
    expect(bootstrap(values, average, { iterations: 2000, seed: 3 })).toEqual(drawn);
    expect(bootstrap(values, average, { iterations: 2000, seed: 4 })).not.toEqual(drawn);
  });
});

describe("a task", () => {
  it("takes metrics from outside, and tells of each document", async () => {
    const length: Metric = {
      for: ["multiple_choice"],
      aggregation: "mean",
      higherIsBetter: true,
      score: ({ document }) => String(document.q).length,
    };
    const samples: TaskSample[] = [];
    const progress: number[] = [];
    const result = await runTask(
      new TableModel(
        questions.flatMap(({ q }) => [
          [`Quiz.\nQ: ${q}\nA:`, " no", -1] as const,
          [`Quiz.\nQ: ${q}\nA:`, " yes", -3] as const,
        ]),
      ),
      quiz("metric_list: [{ metric: acc }, { metric: length, higher_is_better: false }]\n"),
      questions,
      {
        metrics: { length },
        onSample: (sample) => void samples.push(sample),
        onProgress: ({ done, total }) => void progress.push(done, total),
      },
    );
    expect(result.metrics.length).toMatchObject({ value: 11 / 3, higherIsBetter: false });
    expect(result.metrics.acc.value).toBeCloseTo(1 / 3, 12);
    expect(samples[1]).toEqual({
      document: 1,
      context: "Quiz.\nQ: two\nA:",
      choices: ["no", "yes"],
      gold: [0],
      logLikelihoods: [-1, -3],
      targets: ["no"],
      values: { acc: 1, length: 3 },
    });
    expect(progress).toEqual([0, 6, 6, 6]);
  });

  it.each([
    ["metric_list: [{ metric: f1 }]\n", 'quiz: there is no metric "f1"; there are acc, acc_norm, perplexity'],
    ["metric_list: [{ metric: perplexity }]\n", "quiz: perplexity is for loglikelihood, not for multiple_choice."],
    ["metric_list: [{ metric: acc, aggregation: median }]\n", 'quiz: acc: there is no aggregation "median"; there are'],
  ])("with %j is refused", async (more, message) => {
    await expect(runTask(yes, quiz(more), questions)).rejects.toThrow(message);
  });

  it.each([
    ["doc_to_target: place", { place: 1 }, 1],
    ["doc_to_target: place", { place: true }, 1],
    ["doc_to_target: place", { place: "2" }, 1],
    ["doc_to_target: place", { place: "0" }, 0],
    ['doc_to_target: "{{ place }}"', { place: 2 }, 2],
    ['doc_to_target: "{{ place }}"', { place: "two" }, 3],
  ])("with %s of %j means a choice by its place or by its text", (target, document, gold) => {
    const numbers = `task: n\noutput_type: multiple_choice\ndoc_to_choice: ["1", "2", "3", "two"]\n${target}\n`;
    expect(render(parseTask(numbers), document).gold).toEqual([gold]);
  });

  it("names a target that is no choice, and documents that are none", async () => {
    await expect(runTask(yes, quiz(), [{ q: "x", a: "-1" }])).rejects.toThrow(
      'quiz: doc_to_target gave "-1", which is none of the 2 choices. Is it a split without answers?',
    );
    await expect(runTask(yes, quiz(), [{ q: "x", a: 2 }])).rejects.toThrow("gave 2, which is none of the 2");
    await expect(runTask(yes, quiz(), [])).rejects.toThrow("quiz: there are no documents.");
    await expect(runTask(yes, quiz(), [{ a: "no" }])).rejects.toThrow(
      'quiz: doc_to_text: the document has no field "q"',
    );
  });
});
