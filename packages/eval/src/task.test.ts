// Layer: eval, tests. Task files: what is read, what is left at its usual value, and what is refused by name.
import { memoryFiles } from "@diffmamba/files/memory";
import { describe, expect, it } from "vitest";
import { loadTask, parseTask, TaskError } from "./index.js";

const base = "task: t\noutput_type: multiple_choice\ndoc_to_choice: ['a', 'b']\ndoc_to_target: label\n";

describe("a task file", () => {
  it("has usual values", () => {
    expect(parseTask(base)).toMatchObject({
      name: "t",
      version: "0.0",
      targetDelimiter: " ",
      fewshot: { count: 0, delimiter: "\n\n", sampler: "default" },
      metrics: [{ metric: "acc" }, { metric: "acc_norm" }],
      files: [],
    });
    const generating = parseTask("task: g\ndoc_to_text: q\ndoc_to_target: a\ngeneration_kwargs: { until: '.' }");
    expect(generating).toMatchObject({
      outputType: "generate_until",
      generation: { until: ["."], maxTokens: 256, temperature: 0 },
      metrics: [{ metric: "exact_match" }],
    });
  });

  it("includes another, under its own fields", () => {
    const include = (name: string) => (name === "base.yaml" ? `${base}num_fewshot: 2\n` : undefined);
    expect(parseTask("include: base.yaml\ntask: u\n", "u.yaml", include)).toMatchObject({
      name: "u",
      outputType: "multiple_choice",
      fewshot: { count: 2 },
    });
    expect(() => parseTask("include: other.yaml\ntask: u\n", "u.yaml", include)).toThrow(
      "u.yaml: include: there is no file other.yaml beside it.",
    );
    expect(() => parseTask("include: x.yaml", "x.yaml", () => "include: x.yaml")).toThrow("x.yaml includes x.yaml");
  });

  it("is loaded from a folder, with those beside it and those of the package", async () => {
    const files = memoryFiles();
    await files.makeDirectory("tasks");
    const put = async (name: string, text: string) => {
      const writer = await files.writer(`tasks/${name}`);
      await writer.write(new TextEncoder().encode(text));
      await writer.close();
    };
    await put("mine.yaml", "include: piqa.yaml\ntask: mine\nnum_fewshot: 1\n");
    expect(await loadTask(files, "tasks/mine.yaml")).toMatchObject({ name: "mine", fewshot: { count: 1 } });
    await put("bad.yaml", "task: [");
    await expect(loadTask(files, "tasks/bad.yaml")).rejects.toThrow("bad.yaml: this is not YAML: ");
  });

  it.each([
    ["task: [", "f.yaml: this is not YAML: "],
    ["- a", "f.yaml: a task is a list of fields and values."],
    [`${base}doc_to_text: !function utils.text\n`, "f.yaml: doc_to_text: !function utils.text is Python code"],
    [`${base}process_docs: !function utils.process\n`, "f.yaml: process_docs: !function utils.process is Python"],
    [`${base}process_docs: x\n`, "f.yaml: process_docs: not among the fields that are read here."],
    [`${base}metric_list: [{ metric: acc, weight: 1 }]\n`, "f.yaml: metric_list[0].weight: not among the fields"],
    ["task: t\noutput_type: classify\n", "f.yaml: output_type: "],
    ["output_type: loglikelihood\n", "f.yaml: task: "],
    ["task: t\noutput_type: loglikelihood\n", "f.yaml: doc_to_target: an output_type of loglikelihood needs it."],
    ["task: t\noutput_type: multiple_choice\ndoc_to_target: a\n", "f.yaml: doc_to_choice: an output_type of multiple"],
    [`${base}doc_to_text: "{{ a"\n`, "t: doc_to_text: this is no Jinja template"],
    [`${base}num_fewshot: -1\n`, "f.yaml: num_fewshot: "],
  ])("%j is refused", (source, message) => {
    expect(() => parseTask(source, "f.yaml")).toThrow(message);
  });

  it("is refused with a TaskError", () => {
    expect(() => parseTask("task: t\nrepeats: 3\n")).toThrow(TaskError);
  });
});
