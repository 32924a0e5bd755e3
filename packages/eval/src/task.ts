// Layer: eval. A task: a data set, how its documents become requests, and what is measured, read from YAML in a part of
// lm-evaluation-harness's format. What that format has and this reader does not is refused by name.
// Knows YAML and the names of fields. Knows no document, no model and no file.
import { parseDocument } from "yaml";
import { z } from "zod";
import { Template } from "./template.js";

/** A task file that cannot be used. The message names the task or file, and the field. */
export class TaskError extends Error {
  override readonly name = "TaskError";
}

export const outputTypes = ["loglikelihood", "loglikelihood_rolling", "multiple_choice", "generate_until"] as const;
export type OutputType = (typeof outputTypes)[number];

/** A value under the tag `!function`, which stands for Python code. */
class PythonFunction {
  constructor(readonly path: string) {}
}

const text = z.string();
const label = z.union([z.string(), z.number(), z.boolean()]);
const texts = z.union([text, z.array(text)]).transform((value) => (typeof value === "string" ? [value] : value));

const metricSchema = z.strictObject({
  metric: text,
  aggregation: text.optional(),
  higher_is_better: z.boolean().optional(),
  ignore_case: z.boolean().optional(),
  ignore_punctuation: z.boolean().optional(),
  ignore_numbers: z.boolean().optional(),
  regexes_to_ignore: z.array(text).optional(),
});

/** How one number of a task is made. */
export type MetricEntry = z.infer<typeof metricSchema>;

const filterStep = z.strictObject({
  function: z.enum(["regex", "remove_whitespace", "lowercase", "uppercase", "take_first"]),
  regex_pattern: text.optional(),
  group_select: z.int().optional(),
  fallback: text.optional(),
});

export type FilterStep = z.infer<typeof filterStep>;

const schema = z.strictObject({
  task: text,
  tag: texts.optional(),
  dataset_path: text.optional(),
  dataset_name: text.nullish(),
  dataset_kwargs: z.unknown().optional(),
  training_split: text.nullish(),
  validation_split: text.nullish(),
  test_split: text.nullish(),
  fewshot_split: text.nullish(),
  output_type: z.enum(outputTypes).default("generate_until"),
  description: text.default(""),
  doc_to_text: label.default(""),
  doc_to_target: z.union([label, z.array(text)]).optional(),
  doc_to_choice: z.union([text, z.array(label), z.record(text, text)]).optional(),
  target_delimiter: text.default(" "),
  fewshot_delimiter: text.default("\n\n"),
  num_fewshot: z.int().min(0).nullish(),
  fewshot_config: z
    .strictObject({ sampler: z.enum(["default", "first_n"]).optional(), split: text.optional() })
    .optional(),
  generation_kwargs: z
    .strictObject({
      until: texts.optional(),
      max_gen_toks: z.int().min(1).optional(),
      do_sample: z.boolean().optional(),
      temperature: z.number().min(0).optional(),
    })
    .optional(),
  filter_list: z
    .array(z.strictObject({ name: text, filter: z.array(filterStep) }))
    .max(1, "may hold one filter")
    .optional(),
  metric_list: z.array(metricSchema).min(1).optional(),
  repeats: z.literal(1, "may only be 1").optional(),
  should_decontaminate: z.unknown().optional(),
  doc_to_decontamination_query: z.unknown().optional(),
  metadata: z
    .looseObject({ version: z.union([z.number(), text]).optional(), files: z.array(text).optional() })
    .optional(),
});

type Fields = z.infer<typeof schema>;

/** What a list, a template or a field's name gives. */
export type ChoiceRule =
  | { readonly list: readonly Template[] }
  | { readonly each: Template }
  | { readonly field: string };

export interface Task {
  readonly name: string;
  /** Other names that stand for it, alone or with other tasks. */
  readonly tags: readonly string[];
  readonly version: string;
  readonly outputType: OutputType;
  readonly dataset: { readonly path?: string; readonly name?: string };
  readonly splits: { readonly training?: string; readonly validation?: string; readonly test?: string };
  /** Before everything else. */
  readonly description: string;
  readonly text: Template;
  /** A list of templates where several answers are right; of a rolling likelihood, the text that is scored. */
  readonly target: readonly Template[];
  readonly choices: ChoiceRule | undefined;
  readonly targetDelimiter: string;
  readonly fewshot: {
    readonly count: number;
    readonly delimiter: string;
    readonly split?: string;
    readonly sampler: "default" | "first_n";
  };
  readonly generation: { readonly until: readonly string[]; readonly maxTokens: number; readonly temperature: number };
  readonly filter: readonly FilterStep[];
  readonly metrics: readonly MetricEntry[];
  /** Names of files that hold its documents, in the order in which they are looked for. */
  readonly files: readonly string[];
  /** The YAML that it was read from. */
  readonly source: string;
}

/** What is measured where a task does not say. */
const usualMetrics: Readonly<Record<OutputType, readonly string[]>> = {
  loglikelihood: ["perplexity", "acc"],
  loglikelihood_rolling: ["word_perplexity", "byte_perplexity", "bits_per_byte"],
  multiple_choice: ["acc", "acc_norm"],
  generate_until: ["exact_match"],
};

/** Where a problem is, as in `metric_list[0].metric`. */
const pathOf = (path: readonly PropertyKey[]): string =>
  path.map((part, i) => (typeof part === "number" ? `[${part}]` : `${i > 0 ? "." : ""}${String(part)}`)).join("");

/** The first Python function in a value, with its path. */
function findPython(value: unknown, path: string): { path: string; name: string } | undefined {
  if (value instanceof PythonFunction) return { path, name: value.path };
  if (typeof value !== "object" || value === null) return undefined;
  for (const [key, part] of Object.entries(value)) {
    const found = findPython(part, path === "" ? key : `${path}.${key}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

function readYaml(source: string, where: string): Record<string, unknown> {
  const document = parseDocument(source, {
    customTags: [{ tag: "!function", resolve: (path: string) => new PythonFunction(path) }],
  });
  const [problem] = [...document.errors, ...document.warnings];
  if (problem !== undefined) throw new TaskError(`${where}: this is not YAML: ${problem.message.split("\n")[0]}`);
  const value: unknown = document.toJS();
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TaskError(`${where}: a task is a list of fields and values.`);
  }
  return value as Record<string, unknown>;
}

/** A file with those that it includes, its own fields over theirs. */
function withIncluded(
  source: string,
  where: string,
  include: (name: string) => string | undefined,
  seen: readonly string[] = [],
): Record<string, unknown> {
  const { include: name, ...own } = readYaml(source, where);
  if (name === undefined) return own;
  if (typeof name !== "string") throw new TaskError(`${where}: include: the name of a file is expected.`);
  if (seen.includes(name)) throw new TaskError(`${where}: include: ${[...seen, name].join(" includes ")}.`);
  const other = include(name);
  if (other === undefined) throw new TaskError(`${where}: include: there is no file ${name} beside it.`);
  return { ...withIncluded(other, name, include, [...seen, name]), ...own };
}

/**
 * Reads a task file.
 * @param where how messages name it
 * @param include the content of a file beside it, for `include`
 * @throws TaskError naming the file and the field; TemplateError
 */
export function parseTask(
  source: string,
  where = "task",
  include: (name: string) => string | undefined = () => undefined,
): Task {
  const raw = withIncluded(source, where, include);
  const python = findPython(raw, "");
  if (python !== undefined) {
    throw new TaskError(
      `${where}: ${python.path}: !function ${python.name} is Python code, which is not run here; say it as a template.`,
    );
  }
  const result = schema.safeParse(raw);
  if (!result.success) {
    const [issue] = result.error.issues;
    const keys = issue.code === "unrecognized_keys" ? issue.keys.map((key) => pathOf([...issue.path, key])) : undefined;
    const what = keys
      ? `${keys.join(", ")}: not among the fields that are read here`
      : `${pathOf(issue.path)}: ${issue.message}`;
    throw new TaskError(`${where}: ${what}.`);
  }
  return taskOf(result.data, where, source);
}

function taskOf(fields: Fields, where: string, source: string): Task {
  const { task: name, output_type: outputType, generation_kwargs: generation = {}, fewshot_config: shots } = fields;
  const template = (field: string, value: string | number | boolean) =>
    new Template(String(value), `${name}: ${field}`);
  const target = fields.doc_to_target;
  const choice = fields.doc_to_choice;
  const needs = (field: keyof Fields) => {
    if (fields[field] === undefined)
      throw new TaskError(`${where}: ${field}: an output_type of ${outputType} needs it.`);
  };
  needs("doc_to_target");
  if (outputType === "multiple_choice") needs("doc_to_choice");
  const optional = <K extends string>(key: K, value: string | null | undefined) =>
    (value === undefined || value === null ? {} : { [key]: value }) as { readonly [P in K]?: string };
  return {
    name,
    tags: fields.tag ?? [],
    version: versionOf(fields.metadata?.version ?? 0),
    outputType,
    dataset: { ...optional("path", fields.dataset_path), ...optional("name", fields.dataset_name) },
    splits: {
      ...optional("training", fields.training_split),
      ...optional("validation", fields.validation_split),
      ...optional("test", fields.test_split),
    },
    description: fields.description,
    text: template("doc_to_text", fields.doc_to_text),
    target: [target ?? ""].flat().map((one) => template("doc_to_target", one)),
    choices: choice === undefined ? undefined : choiceRule(choice, (one) => template("doc_to_choice", one)),
    targetDelimiter: fields.target_delimiter,
    fewshot: {
      count: fields.num_fewshot ?? 0,
      delimiter: fields.fewshot_delimiter,
      sampler: shots?.sampler ?? "default",
      ...optional("split", shots?.split ?? fields.fewshot_split),
    },
    generation: {
      until: generation.until ?? [fields.fewshot_delimiter],
      maxTokens: generation.max_gen_toks ?? 256,
      temperature: generation.do_sample === false ? 0 : (generation.temperature ?? 0),
    },
    filter: fields.filter_list?.[0]?.filter ?? [],
    metrics: fields.metric_list ?? usualMetrics[outputType].map((metric) => ({ metric })),
    files: fields.metadata?.files ?? [],
    source,
  };
}

/** `1.0` is a number in YAML, and is still shown as it was written. */
const versionOf = (version: string | number): string =>
  typeof version === "number" && Number.isInteger(version) ? version.toFixed(1) : String(version);

function choiceRule(
  choice: string | readonly (string | number | boolean)[] | Readonly<Record<string, string>>,
  template: (source: string | number | boolean) => Template,
): ChoiceRule {
  if (typeof choice === "string") return choice.includes("{") ? { each: template(choice) } : { field: choice };
  return { list: (Array.isArray(choice) ? choice : Object.values(choice)).map(template) };
}
