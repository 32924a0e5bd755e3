// Layer: eval. What is measured of answers: a value for each document, and one number of all of them.
// To add one, give it to `runTask` under a name, or add an entry to `metrics`. Knows answers. Knows no model and no file.
import type { ContinuationScore } from "./model.js";
import type { Rendered } from "./render.js";
import { mean } from "./statistics.js";
import type { FilterStep, MetricEntry, OutputType } from "./task.js";
import type { Document } from "./template.js";

/** What a model answered about one document. */
export interface Outcome {
  readonly document: Document;
  readonly rendered: Rendered;
  /** One for each request of a likelihood; that of the whole text for a rolling one. */
  readonly scores: readonly ContinuationScore[];
  /** What was generated, after the task's filters. */
  readonly output: string;
}

/** A document's value, and for some aggregations by how much it weighs. */
export interface Value {
  readonly value: number;
  readonly weight: number;
}

export interface Metric {
  /** Of what kinds of tasks. */
  readonly for: readonly OutputType[];
  readonly aggregation: keyof typeof aggregations;
  readonly higherIsBetter: boolean;
  score(outcome: Outcome, options: MetricEntry): number | Value;
}

const weighted = (values: readonly Value[]): number =>
  values.reduce((sum, { value }) => sum + value, 0) / values.reduce((sum, { weight }) => sum + weight, 0);

/** From the documents' values to one number. */
export const aggregations = {
  mean: (values: readonly Value[]) => mean(values.map(({ value }) => value)),
  /** exp of minus the mean: of log-likelihoods. */
  perplexity: (values: readonly Value[]) => Math.exp(-mean(values.map(({ value }) => value))),
  /** exp of minus the sum over the weights': words or bytes. */
  weighted_perplexity: (values: readonly Value[]) => Math.exp(-weighted(values)),
  bits_per_byte: (values: readonly Value[]) => -weighted(values) / Math.LN2,
} as const;

/** The first greatest. */
function argmax(values: readonly number[]): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

const isRight = (values: readonly number[], gold: readonly number[]): number => (gold.includes(argmax(values)) ? 1 : 0);

const likelihoods = ({ scores }: Outcome): number[] => scores.map(({ logLikelihood }) => logLikelihood);

/** Characters, as Python counts them. */
const codePoints = (text: string): number => [...text].length;

const utf8Bytes = (text: string): number => new TextEncoder().encode(text).length;

/** Words as lm-evaluation-harness counts them: the parts between runs of white space, the empty ones at the ends too. */
const words = (text: string): number => text.split(/\s+/).length;

function normalized(text: string, options: MetricEntry): string {
  let result = text;
  for (const pattern of options.regexes_to_ignore ?? []) result = result.replace(new RegExp(pattern, "g"), "");
  if (options.ignore_case) result = result.toLowerCase();
  if (options.ignore_punctuation) result = result.replace(/[!-/:-@[-`{-~]/g, "");
  if (options.ignore_numbers) result = result.replace(/[0-9]/g, "");
  return result;
}

const accuracy = { aggregation: "mean", higherIsBetter: true } as const;
const rolling = { for: ["loglikelihood_rolling"], higherIsBetter: false } as const;

/** The metrics by the names that task files give them. */
export const metrics: Readonly<Record<string, Metric>> = {
  acc: {
    for: ["multiple_choice", "loglikelihood"],
    ...accuracy,
    score: (outcome) =>
      outcome.rendered.choices.length > 0
        ? isRight(likelihoods(outcome), outcome.rendered.gold)
        : Number(outcome.scores[0].greedy),
  },
  /** With each likelihood divided by the length of its choice in characters. */
  acc_norm: {
    for: ["multiple_choice"],
    ...accuracy,
    score: (outcome) => {
      const { choices, gold } = outcome.rendered;
      return isRight(
        likelihoods(outcome).map((value, i) => value / codePoints(choices[i])),
        gold,
      );
    },
  },
  perplexity: {
    for: ["loglikelihood"],
    aggregation: "perplexity",
    higherIsBetter: false,
    score: ({ scores }) => scores[0].logLikelihood,
  },
  exact_match: {
    for: ["generate_until"],
    ...accuracy,
    score: ({ output, rendered }, options) =>
      Number(rendered.targets.some((target) => normalized(target, options) === normalized(output, options))),
  },
  word_perplexity: {
    ...rolling,
    aggregation: "weighted_perplexity",
    score: ({ scores, rendered }) => ({ value: scores[0].logLikelihood, weight: words(rendered.context) }),
  },
  byte_perplexity: {
    ...rolling,
    aggregation: "weighted_perplexity",
    score: ({ scores, rendered }) => ({ value: scores[0].logLikelihood, weight: utf8Bytes(rendered.context) }),
  },
  bits_per_byte: {
    ...rolling,
    aggregation: "bits_per_byte",
    score: ({ scores, rendered }) => ({ value: scores[0].logLikelihood, weight: utf8Bytes(rendered.context) }),
  },
};

function filterOnce(text: string, step: FilterStep): string {
  switch (step.function) {
    case "take_first":
      return text;
    case "lowercase":
      return text.toLowerCase();
    case "uppercase":
      return text.toUpperCase();
    case "remove_whitespace":
      return text.trimStart();
    case "regex": {
      const found = [...text.matchAll(new RegExp(step.regex_pattern ?? "#### (\\-?[0-9\\.\\,]+)", "g"))];
      const match = found.at(step.group_select ?? 0);
      return match === undefined ? (step.fallback ?? "[invalid]") : (match[1] ?? match[0]).trim();
    }
  }
}

/** A generated text after a task's filters, in their order. */
export function filtered(output: string, steps: readonly FilterStep[]): string {
  return steps.reduce(filterOnce, output);
}
