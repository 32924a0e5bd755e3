// Layer: eval. A task on a model: documents into requests, answers into values, values into numbers with their standard errors.
// Knows tasks, models by their three calls, and metrics. Knows no tokenizer, no tensor and no file.
import { RandomStream } from "@diffmamba/random";
import { aggregations, filtered, metrics as knownMetrics, type Metric, type Outcome, type Value } from "./metrics.js";
import type { ContinuationScore, EvaluatedModel } from "./model.js";
import { type Rendered, render, withExamples } from "./render.js";
import { bootstrap, meanError } from "./statistics.js";
import { type MetricEntry, type Task, TaskError } from "./task.js";
import type { Document } from "./template.js";

/** How far a task has come. */
export interface TaskProgress {
  readonly task: string;
  /** Requests answered, and all of them. */
  readonly done: number;
  readonly total: number;
}

/** What a model answered about one document, as JSON. */
export interface TaskSample {
  readonly document: number;
  readonly context: string;
  readonly choices?: readonly string[];
  readonly logLikelihoods?: readonly number[];
  readonly gold?: readonly number[];
  readonly output?: string;
  readonly targets: readonly string[];
  readonly values: Readonly<Record<string, number>>;
}

export interface RunTaskOptions {
  /** Examples before each document; the task's own number unless told. */
  readonly numFewshot?: number;
  /** Where examples are taken from: the documents of the task's own split unless told, then never the document itself. */
  readonly examples?: readonly Document[];
  /** Of the choice of examples, of draws, and of the bootstrap; 0 by default. */
  readonly seed?: number;
  /** Resamplings of the bootstrap; 1000 by default, 0 for none. */
  readonly bootstrap?: number;
  /** Metrics that the task may name beside the known ones. */
  readonly metrics?: Readonly<Record<string, Metric>>;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: TaskProgress) => void;
  /** Gets what was answered about each document. */
  readonly onSample?: (sample: TaskSample) => void;
}

export interface MetricResult {
  readonly value: number;
  /** null where there is no more than one document, or no bootstrap for a number that is no mean. */
  readonly stderr: number | null;
  /** 95 of 100 resamplings lie between these; null without a bootstrap. */
  readonly interval: readonly [low: number, high: number] | null;
  readonly higherIsBetter: boolean;
}

export interface TaskResult {
  readonly task: string;
  readonly version: string;
  readonly documents: number;
  readonly numFewshot: number;
  readonly metrics: Readonly<Record<string, MetricResult>>;
}

/** The examples of each document: `count` of a pool, never the document itself. */
function chooseExamples(
  task: Task,
  documents: readonly Document[],
  pool: readonly Document[],
  count: number,
  seed: number,
): readonly Rendered[][] {
  if (count === 0) return documents.map(() => []);
  const own = pool === documents;
  if (pool.length < count + (own ? 1 : 0)) {
    throw new TaskError(`${task.name}: ${count} examples are asked for, of ${pool.length} documents.`);
  }
  const rendered = new Map<number, Rendered>();
  const get = (i: number): Rendered => {
    const known = rendered.get(i) ?? render(task, pool[i]);
    rendered.set(i, known);
    return known;
  };
  const stream = new RandomStream(seed, `examples ${task.name}`);
  return documents.map((_, document) => {
    const chosen = new Set<number>();
    for (let draw = 0; chosen.size < count; draw++) {
      const next = task.fewshot.sampler === "first_n" ? draw : stream.integer(pool.length, draw, document);
      if (!(own && next === document)) chosen.add(next);
    }
    return [...chosen].map(get);
  });
}

function metricsOf(task: Task, more: Readonly<Record<string, Metric>>): [MetricEntry, Metric][] {
  const all: Readonly<Record<string, Metric>> = { ...knownMetrics, ...more };
  return task.metrics.map((entry) => {
    const found = Object.hasOwn(all, entry.metric) ? all[entry.metric] : undefined;
    if (found === undefined) {
      throw new TaskError(
        `${task.name}: there is no metric "${entry.metric}"; there are ${Object.keys(all).join(", ")}.`,
      );
    }
    if (!found.for.includes(task.outputType)) {
      throw new TaskError(`${task.name}: ${entry.metric} is for ${found.for.join(", ")}, not for ${task.outputType}.`);
    }
    const { aggregation = found.aggregation, higher_is_better: better } = entry;
    if (!Object.hasOwn(aggregations, aggregation)) {
      throw new TaskError(
        `${task.name}: ${entry.metric}: there is no aggregation "${aggregation}"; there are ${Object.keys(aggregations).join(", ")}.`,
      );
    }
    const own = { ...found, aggregation: aggregation as Metric["aggregation"] };
    return [entry, { ...own, ...(better !== undefined && { higherIsBetter: better }) }];
  });
}

/** Everything that the model is asked, in one call, and its answers by document. */
async function answers(
  model: EvaluatedModel,
  task: Task,
  all: readonly Rendered[],
  { seed = 0, signal, onProgress }: RunTaskOptions,
): Promise<{ scores: ContinuationScore[]; output: string }[]> {
  const total = all.reduce((sum, { requests }) => sum + Math.max(1, requests.length), 0);
  let done = 0;
  onProgress?.({ task: task.name, done, total });
  const call = {
    ...(signal && { signal }),
    onAnswers: (some: readonly unknown[]) => {
      done += some.length;
      onProgress?.({ task: task.name, done, total });
    },
  };
  switch (task.outputType) {
    case "loglikelihood":
    case "multiple_choice": {
      const scores = await model.loglikelihood(
        all.flatMap(({ requests }) => requests),
        call,
      );
      let at = 0;
      return all.map(({ requests }) => {
        at += requests.length;
        return { scores: scores.slice(at - requests.length, at), output: "" };
      });
    }
    case "loglikelihood_rolling": {
      const sums = await model.loglikelihoodRolling(
        all.map(({ context }) => context),
        call,
      );
      return sums.map((logLikelihood) => ({ scores: [{ logLikelihood, greedy: false }], output: "" }));
    }
    case "generate_until": {
      const { until, maxTokens, temperature } = task.generation;
      const outputs = await model.generateUntil(
        all.map(({ context }, document) => ({ context, until, maxTokens, temperature, seed: seed + document })),
        call,
      );
      return outputs.map((output) => ({ scores: [], output: filtered(output, task.filter) }));
    }
  }
}

function resultOf(values: readonly Value[], metric: Metric, iterations: number, seed: number): MetricResult {
  const aggregate = aggregations[metric.aggregation];
  const drawn = bootstrap(values, aggregate, { iterations, seed });
  const stderr = metric.aggregation === "mean" ? meanError(values.map(({ value }) => value)) : drawn.stderr;
  const [low, high] = drawn.interval;
  return {
    value: aggregate(values),
    stderr: Number.isFinite(stderr) ? stderr : null,
    interval: Number.isFinite(low) && Number.isFinite(high) ? [low, high] : null,
    higherIsBetter: metric.higherIsBetter,
  };
}

/**
 * Asks a model about every document of a task.
 * @throws TaskError, TemplateError naming the task and the field; what the model throws
 */
export async function runTask(
  model: EvaluatedModel,
  task: Task,
  documents: readonly Document[],
  options: RunTaskOptions = {},
): Promise<TaskResult> {
  const { seed = 0, bootstrap: iterations = 1000, numFewshot = task.fewshot.count, examples = documents } = options;
  if (documents.length === 0) throw new TaskError(`${task.name}: there are no documents.`);
  const measured = metricsOf(task, options.metrics ?? {});
  const chosen = chooseExamples(task, documents, examples, numFewshot, seed);
  const rendered = documents.map((document, i) => withExamples(task, render(task, document), chosen[i]));
  const answered = await answers(model, task, rendered, options);
  const values = measured.map((): Value[] => []);
  for (const [i, document] of documents.entries()) {
    const outcome: Outcome = { document, rendered: rendered[i], ...answered[i] };
    for (const [j, [entry, metric]] of measured.entries()) {
      const value = metric.score(outcome, entry);
      values[j].push(typeof value === "number" ? { value, weight: 1 } : value);
    }
    options.onSample?.(
      sampleOf(task, i, outcome, Object.fromEntries(measured.map(([{ metric }], j) => [metric, values[j][i].value]))),
    );
  }
  return {
    task: task.name,
    version: task.version,
    documents: documents.length,
    numFewshot,
    metrics: Object.fromEntries(
      measured.map(([entry, metric], j) => [entry.metric, resultOf(values[j], metric, iterations, seed)]),
    ),
  };
}

function sampleOf(
  task: Task,
  document: number,
  outcome: Outcome,
  values: Readonly<Record<string, number>>,
): TaskSample {
  const { rendered, scores, output } = outcome;
  return {
    document,
    context: rendered.context,
    ...(task.outputType === "multiple_choice" && { choices: rendered.choices, gold: rendered.gold }),
    ...(scores.length > 0 && { logLikelihoods: scores.map(({ logLikelihood }) => logLikelihood) }),
    ...(task.outputType === "generate_until" && { output }),
    targets: rendered.targets,
    values,
  };
}
