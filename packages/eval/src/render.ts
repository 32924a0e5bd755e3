// Layer: eval. From a document to what a model is asked and what is right: prompts, choices, targets, and the examples before them.
// A document may also come rendered, as { context, continuations, gold } or { pairs, gold }, and then is taken as it is.
// Knows tasks and documents. Knows no model and no metric.
import type { ContinuationRequest } from "./model.js";
import { type Task, TaskError } from "./task.js";
import type { Document, Template } from "./template.js";

/** A document as a task sees it. */
export interface Rendered {
  /** The document's own prompt, without examples; what a rolling likelihood is of. */
  readonly context: string;
  /** What may follow: one for each request of a likelihood. */
  readonly requests: readonly ContinuationRequest[];
  /** The choices of a multiple-choice task, by whose length its normalised accuracy divides. */
  readonly choices: readonly string[];
  /** Which of the choices are right. */
  readonly gold: readonly number[];
  /** Answers that are right, as text. */
  readonly targets: readonly string[];
}

/** A template that is the name of a field stands for the field. */
function fieldOr(document: Document, template: Template): unknown {
  return Object.hasOwn(document, template.source) ? document[template.source] : template.render(document);
}

function choicesOf(task: Task, document: Document): string[] {
  const rule = task.choices;
  if (rule === undefined) return [];
  if ("list" in rule) return rule.list.map((template) => template.render(document));
  if ("each" in rule) return rule.each.renderList(document);
  const value = document[rule.field];
  if (Array.isArray(value)) return value.map(String);
  throw new TaskError(
    `${task.name}: doc_to_choice: ${rule.field} is no list of the document, which has ${Object.keys(document).join(", ")}.`,
  );
}

const isDigits = (value: unknown): boolean => /^\d+$/.test(String(value));

/** What a target's template gives of a document: digits that a template wrote are a number, as in lm-evaluation-harness. */
function targetsOf(document: Document, templates: readonly Template[]): unknown[] {
  return templates.flatMap((template) => {
    if (Object.hasOwn(document, template.source)) return [document[template.source]].flat();
    const text = template.render(document);
    return [isDigits(text) ? Number(text) : text];
  });
}

/** The choice that a target means: a number is its place, a text is its text, or digits for its place where no choice is that. */
function goldOf(task: Task, target: unknown, choices: readonly string[]): number {
  const isPlace = typeof target === "number" || typeof target === "boolean";
  const place = isPlace ? Number(target) : choices.indexOf(String(target));
  const index = place < 0 && !isPlace && isDigits(target) ? Number(target) : place;
  if (Number.isInteger(index) && index >= 0 && index < choices.length) return index;
  throw new TaskError(
    `${task.name}: doc_to_target gave ${JSON.stringify(target)}, which is none of the ${choices.length} choices. Is it a split without answers?`,
  );
}

type Given = {
  readonly context?: unknown;
  readonly continuations?: unknown;
  readonly pairs?: unknown;
  readonly gold?: unknown;
};

const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((one) => typeof one === "string");

/** A document that came rendered, or undefined. */
function given(task: Task, document: Document): Rendered | undefined {
  const { context, continuations, pairs, gold } = document as Given;
  const requests = isTexts(continuations)
    ? continuations.map((continuation) => ({ context: String(context ?? ""), continuation }))
    : Array.isArray(pairs) && pairs.every((pair) => isTexts(pair) && pair.length === 2)
      ? pairs.map(([before, after]) => ({ context: before as string, continuation: after as string }))
      : undefined;
  if (requests === undefined || requests.length === 0) return undefined;
  const golds = [gold].flat();
  if (!golds.every((one) => Number.isInteger(one) && (one as number) >= 0 && (one as number) < requests.length)) {
    throw new TaskError(`${task.name}: gold is ${JSON.stringify(gold)}; the document has ${requests.length} choices.`);
  }
  const { targetDelimiter } = task;
  const choices = isTexts(continuations)
    ? requests.map(({ continuation: text }) =>
        text.startsWith(targetDelimiter) ? text.slice(targetDelimiter.length) : text,
      )
    : requests.map((request) => request.context);
  return {
    context: isTexts(continuations) ? String(context ?? "") : "",
    requests,
    choices,
    gold: golds as number[],
    targets: golds.map((one) => requests[one as number].continuation),
  };
}

/** @throws TaskError, TemplateError naming the task and the field */
export function render(task: Task, document: Document): Rendered {
  const { outputType, targetDelimiter } = task;
  const ready = outputType === "multiple_choice" ? given(task, document) : undefined;
  if (ready !== undefined) return ready;
  const { target } = task;
  if (outputType === "loglikelihood_rolling") {
    return { context: String(fieldOr(document, target[0])), requests: [], choices: [], gold: [], targets: [] };
  }
  const text = fieldOr(document, task.text);
  if (outputType !== "multiple_choice") {
    const context = String(text);
    const targets = target.flatMap((one) => [fieldOr(document, one)].flat()).map(String);
    const requests = outputType === "loglikelihood" ? [{ context, continuation: targets[0] ?? "" }] : [];
    return { context, requests, choices: [], gold: [], targets };
  }
  const choices = choicesOf(task, document);
  if (choices.length < 2) throw new TaskError(`${task.name}: doc_to_choice gave ${choices.length} choices.`);
  const targets = targetsOf(document, target);
  // Where the text is a number, the choices are contexts, and what follows all of them is the target.
  if (isDigits(text)) {
    const continuation = targetDelimiter + String(targets[0]);
    return {
      context: "",
      requests: choices.map((context) => ({ context, continuation })),
      choices,
      gold: [goldOf(task, Number(text), choices)],
      targets: [continuation],
    };
  }
  const context = String(text);
  const gold = targets.map((one) => goldOf(task, one, choices));
  return {
    context,
    requests: choices.map((choice) => ({ context, continuation: targetDelimiter + choice })),
    choices,
    gold,
    targets: gold.map((one) => choices[one]),
  };
}

/** A document with its answer, as an example for others. */
export function exampleText(task: Task, rendered: Rendered): string {
  if (task.outputType === "multiple_choice") {
    const { context, continuation } = rendered.requests[rendered.gold[0]];
    return context + continuation;
  }
  const [target = ""] = rendered.targets;
  return rendered.context + task.targetDelimiter + target;
}

/** The description and the examples, put before a document's own contexts. */
export function withExamples(task: Task, rendered: Rendered, examples: readonly Rendered[]): Rendered {
  if (task.outputType === "loglikelihood_rolling") return rendered;
  const { delimiter } = task.fewshot;
  const before = task.description + examples.map((example) => exampleText(task, example) + delimiter).join("");
  if (before === "") return rendered;
  return {
    ...rendered,
    context: before + rendered.context,
    requests: rendered.requests.map((request) => ({ ...request, context: before + request.context })),
  };
}
