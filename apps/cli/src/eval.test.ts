// Layer: apps/cli, tests. `eval` on tasks and by position with the real command: results, files, a stop that loses nothing, wrong calls.
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { smallest, someText, type Workplace, workplace } from "./command.testing.js";

let place: Workplace;
const documents = Array.from({ length: 60 }, (_, i) => ({
  goal: `state ${i}`,
  sol1: "of a space",
  sol2: "noise",
  label: i % 2,
}));
const lines = (list: readonly object[]) => list.map((one) => `${JSON.stringify(one)}\n`).join("");
const model = ["--checkpoint", "run"];
const tasks = [...model, "--tasks", "piqa,words.yaml", "--task-data", "data"];

interface Outcome {
  readonly seed: number;
  readonly commit: { readonly id: string } | null;
  readonly versions: Readonly<Record<string, string>>;
  readonly tasks: readonly {
    readonly task: string;
    readonly version: string;
    readonly documents: number;
    readonly available: number;
    readonly file: string;
    readonly metrics: Readonly<Record<string, { readonly value: number; readonly stderr: number | null }>>;
  }[];
}

beforeAll(async () => {
  place = workplace();
  place.write("text.txt", someText(20_000));
  for (const folder of ["data/piqa", "data/words"]) mkdirSync(place.at(folder), { recursive: true });
  place.write("data/piqa/validation.jsonl", lines(documents));
  place.write("data/words/test.jsonl", lines([{ text: "the state of" }, { text: "its noise" }]));
  place.write(
    "words.yaml",
    'task: words\ntest_split: test\noutput_type: loglikelihood_rolling\ndoc_to_target: "{{ text }}"\nmetadata: { version: 3 }\n',
  );
  // A tokenizer with an end, which a rolling likelihood begins with.
  const vocab = Object.fromEntries(["<eos>", ..."abcdefghijklmnopqrstuvwxyz .\n,ï0123456789:GA"].map((x, i) => [x, i]));
  place.write(
    "tokenizer.json",
    JSON.stringify({
      added_tokens: [
        { id: 0, content: "<eos>", special: true, lstrip: false, rstrip: false, normalized: false, single_word: false },
      ],
      pre_tokenizer: null,
      decoder: { type: "Fuse" },
      model: { type: "BPE", vocab, merges: [], unk_token: "<eos>" },
    }),
  );
  await place.json([
    "train",
    ...smallest,
    "--data",
    "text.txt",
    "--out",
    "run",
    "--steps",
    "8",
    "--tokenizer",
    "tokenizer.json",
  ]);
});
afterAll(() => place?.dispose());

const accuracy = ({ tasks: [piqa] }: Outcome) => piqa.metrics.acc.value;

describe("eval --tasks", () => {
  it("asks about every document, and says what was measured with what", async () => {
    const outcome = await place.json<Outcome>([
      "eval",
      ...tasks,
      "--out",
      "out/result.json",
      "--samples",
      "out/samples.jsonl",
    ]);
    expect(outcome.tasks.map(({ task }) => task)).toEqual(["piqa", "words"]);
    const [piqa, words] = outcome.tasks;
    expect(piqa).toMatchObject({ version: "1.0", documents: 60, available: 60, file: "data/piqa/validation.jsonl" });
    expect(Object.keys(piqa.metrics)).toEqual(["acc", "acc_norm"]);
    expect(words).toMatchObject({ version: "3.0", documents: 2 });
    expect(words.metrics.bits_per_byte.value).toBeGreaterThan(2);
    expect(words.metrics.bits_per_byte.value).toBeLessThan(9);
    expect(outcome).toMatchObject({ seed: 0, versions: { node: process.version } });
    expect(outcome.commit === null || /^[0-9a-f]{40}$/.test(outcome.commit.id)).toBe(true);
    expect(JSON.parse(place.read("out/result.json").toString())).toEqual(outcome);
    const samples = place
      .read("out/samples.jsonl")
      .toString()
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(samples).toHaveLength(62);
    const right = samples.filter(({ task, values }) => task === "piqa" && values.acc === 1).length;
    expect(right / 60).toBeCloseTo(accuracy(outcome), 12);
  });

  it("shows a table", async () => {
    const { stdout } = await place.run(["eval", ...tasks, "--limit", "2", "--num-fewshot", "1"]);
    expect(stdout).toMatch(/^task +version +shots +documents +metric +value +error +95 of 100\n/);
    expect(stdout).toMatch(/\npiqa +1\.0 +1 +2 of 60 +acc ↑ +\d\.\d{4}/);
    expect(stdout).toMatch(/\nwords +3\.0 +1 +2 +word_perplexity ↓ /);
  });

  it("goes on from its answers after a stop, to the same result", async () => {
    const whole = await place.json<Outcome>(["eval", ...tasks]);
    const slow = ["eval", ...tasks, "--batch-size", "1", "--cache", "answers"];
    const run = place.start([...slow, "--json"]);
    const listing = () => (existsSync(place.at("answers")) ? readdirSync(place.at("answers")) : []);
    for (let tries = 0; tries < 10_000 && listing().length === 0; tries++)
      await new Promise((done) => setTimeout(done, 3));
    run.process.kill("SIGINT");
    const stopped = await run.ended;
    if (stopped.code === 130) expect(stopped.stderr).toContain("answers are kept in answers; the same command goes on");
    else expect(stopped.code).toBe(0);
    const resumed = await place.json<Outcome>(slow);
    expect(resumed.tasks).toEqual(whole.tasks.map((task) => ({ ...task, metrics: expect.anything() })));
    expect(accuracy(resumed)).toBe(accuracy(whole));
    const [{ metrics: a }, { metrics: b }] = [resumed.tasks[1], whole.tasks[1]];
    expect(a.bits_per_byte.value).toBeCloseTo(b.bits_per_byte.value, 5);
    const [kept] = listing();
    const count = () => place.read(`answers/${kept}`).toString().trim().split("\n").length;
    const before = count();
    expect(before).toBe(1 + 120 + 2);
    await place.json(slow);
    expect(count()).toBe(before);
  }, 180_000);

  it("refuses what cannot be, by name", async () => {
    const calls: [string[], number, string][] = [
      [["--tasks", "piqqa"], 1, 'there is no task "piqqa"; there are arc, '],
      [
        ["--tasks", "hellaswag"],
        1,
        "hellaswag: its documents are not in data. Looked for mc_eval/hellaswag_val.jsonl, ",
      ],
      [["--tasks", "none.yaml"], 1, "none.yaml"],
      [["--tasks", "piqa", "--data", "text.txt"], 2, "eval takes --data, a text, or --tasks, not both at once."],
      [["--tasks", "piqa", "--max-tokens", "3"], 2, "--max-tokens does not go with --tasks."],
      [["--data", "text.txt", "--num-fewshot", "3"], 2, "--num-fewshot does not go with --data."],
      [[], 2, "eval wants --data, a text to score, or --tasks, the names of tasks."],
    ];
    const refused = async ([flags, code, message]: [string[], number, string]) => {
      const data = flags.includes("--tasks") ? ["--task-data", "data"] : [];
      const outcome = await place.run(["eval", ...model, ...flags, ...data]);
      expect(outcome.stderr).toContain(message);
      expect(outcome).toMatchObject({ code, stdout: "" });
    };
    await Promise.all(calls.map(refused));
  }, 180_000);
});

describe("eval --by-position", () => {
  it("reads documents with the state carried, plots them, and reports several", async () => {
    const flags = ["eval", ...model, "--data", "text.txt", "--by-position", "200"];
    const found = await place.json<{
      loss: number[];
      counts: number[];
      nll: number;
      documents: number;
      trained: number;
    }>([
      ...flags,
      ...["--documents", "7", "--length", "16", "--batch-size", "3", "--out", "a.json", "--plot", "a.html"],
    ]);
    expect(found).toMatchObject({ documents: 7, trained: 16 });
    expect(found.loss).toHaveLength(200);
    expect(new Set(found.counts)).toEqual(new Set([7]));
    expect(found.loss.reduce((a, b) => a + b) / 200).toBeCloseTo(found.nll, 10);
    const whole = await place.json<{ loss: number[] }>([
      ...flags,
      "--documents",
      "7",
      "--length",
      "200",
      "--out",
      "b.json",
    ]);
    for (const [p, loss] of whole.loss.entries()) expect(Math.abs(loss - found.loss[p])).toBeLessThan(1e-4);
    expect(place.read("a.html").toString()).toMatch(/<svg[^>]*>/);
    const { stdout } = await place.run(["report", "a.json", "b.json", "--out", "both.html"]);
    expect(stdout).toBe("both.html\n");
    const page = place.read("both.html").toString();
    expect(page).toContain("Loss of a, b at each position of long documents");
    expect(page).toContain("the length of training windows");
  }, 180_000);

  it("refuses what cannot be, by name", async () => {
    const calls: [string[], number, string][] = [
      [["report", "text.txt"], 1, "text.txt"],
      [["report", "run", "text.txt"], 2, "not both at once"],
      [
        ["eval", "--checkpoint", "run", "--data", "text.txt", "--by-position", "90000"],
        1,
        "a document of 90001 tokens is asked",
      ],
      [["eval", "--checkpoint", "run", "--by-position", "9"], 2, "eval wants --data"],
    ];
    const refused = async ([args, code, message]: [string[], number, string]) => {
      const outcome = await place.run(args);
      expect(outcome.stderr).toContain(message);
      expect(outcome.code).toBe(code);
    };
    await Promise.all(calls.map(refused));
  }, 180_000);
});
