// Layer: eval. The templates of task files: Jinja through @huggingface/jinja, with what those templates use of Python besides,
// and an error where a template asks for what a document does not have.
// Knows templates and documents as plain values. Knows no task and no model.
import { Template as Jinja } from "@huggingface/jinja";

/** One example of a data set, as its file holds it. */
export type Document = { readonly [field: string]: unknown };

/** A template that cannot be read or rendered. */
export class TemplateError extends Error {
  override readonly name = "TemplateError";
}

/** A node of a parsed template. */
interface Node {
  type: string;
  [key: string]: unknown;
}

const isNode = (value: unknown): value is Node =>
  typeof value === "object" && value !== null && typeof (value as Node).type === "string";

/** Values of the library's interpreter as plain ones. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (isNode(value) && "value" in value) return plain(value.value);
  return value;
}

/** What templates may call beside what Jinja has: methods of Python's lists and strings, and a regular expression. */
const functions: Readonly<Record<string, (...args: never[]) => unknown>> = {
  /** `list.index(value)`. */
  py_index(list: unknown, wanted: unknown) {
    const values = plain(list);
    const at = Array.isArray(values) ? values.indexOf(plain(wanted)) : String(values).indexOf(String(plain(wanted)));
    if (at < 0) throw new Error(`${JSON.stringify(plain(wanted))} is not among ${JSON.stringify(values)}`);
    return at;
  },
  /** `string.capitalize()`: the rest becomes lower case. */
  py_capitalize(text: string) {
    const [first = "", ...rest] = text;
    return first.toUpperCase() + rest.join("").toLowerCase();
  },
  /** Every match of a regular expression replaced, in a text or in each of a list. */
  regex_replace(text: unknown, pattern: string, replacement: string) {
    const one = (part: unknown) => String(part).replace(new RegExp(pattern, "g"), replacement);
    const value = plain(text);
    return Array.isArray(value) ? value.map(one) : one(value);
  },
};

/** Methods that become calls of {@link functions}. */
const methods: Readonly<Record<string, string>> = { index: "py_index", capitalize: "py_capitalize" };

/** `a.index(b)` into `py_index(a, b)`, everywhere in a template. */
function rewriteMethods(value: unknown): void {
  if (Array.isArray(value)) for (const part of value) rewriteMethods(part);
  if (!isNode(value)) return;
  for (const part of Object.values(value)) rewriteMethods(part);
  const callee = value.callee;
  if (value.type !== "CallExpression" || !isNode(callee) || callee.type !== "MemberExpression" || callee.computed)
    return;
  const { object, property } = callee;
  if (!isNode(property) || !Object.hasOwn(methods, String(property.value))) return;
  value.callee = { type: "Identifier", value: methods[String(property.value)] };
  value.args = [object, ...(value.args as unknown[])];
}

const globals = new Set(["true", "false", "none", "True", "False", "None", "range", "namespace", "loop", "dict"]);

/** The names that a template takes from its document. */
function freeNames(program: unknown): Set<string> {
  const used = new Set<string>();
  const own = new Set([...globals, ...Object.keys(functions)]);
  const declare = (target: unknown) => {
    if (!isNode(target)) return;
    if (target.type === "Identifier") own.add(String(target.value));
    else if (Array.isArray(target.value)) target.value.forEach(declare);
  };
  const visit = (value: unknown): void => {
    if (Array.isArray(value)) for (const part of value) visit(part);
    if (!isNode(value)) return;
    switch (value.type) {
      case "Identifier":
        used.add(String(value.value));
        return;
      case "MemberExpression":
        visit(value.object);
        if (value.computed) visit(value.property);
        return;
      case "FilterExpression":
        visit(value.operand);
        if (isNode(value.filter)) visit(value.filter.args);
        return;
      case "TestExpression":
        // `x is defined` may ask for what is not there.
        return;
      case "KeywordArgumentExpression":
        visit(value.value);
        return;
      case "For":
        declare(value.loopvar);
        break;
      case "Set":
        declare(value.assignee);
        visit(value.value);
        visit(value.body);
        return;
    }
    for (const [key, part] of Object.entries(value)) {
      if (!(value.type === "For" && key === "loopvar")) visit(part);
    }
  };
  visit(program);
  return new Set([...used].filter((name) => !own.has(name)));
}

/** A template, read once and rendered for many documents. */
export class Template {
  readonly #jinja: Jinja;
  readonly #names: ReadonlySet<string>;

  /** @param where how messages name it, as in "piqa: doc_to_text" @throws TemplateError */
  constructor(
    readonly source: string,
    readonly where: string,
  ) {
    try {
      this.#jinja = new Jinja(source);
    } catch (error) {
      throw new TemplateError(`${where}: this is no Jinja template: ${(error as Error).message}.`, { cause: error });
    }
    rewriteMethods(this.#jinja.parsed);
    this.#names = freeNames(this.#jinja.parsed);
  }

  /** @throws TemplateError where the document lacks a field, or an expression cannot be computed */
  render(document: Document): string {
    const missing = [...this.#names].find((name) => !Object.hasOwn(document, name));
    if (missing !== undefined) {
      throw new TemplateError(
        `${this.where}: the document has no field "${missing}"; it has ${Object.keys(document).join(", ") || "none"}.`,
      );
    }
    try {
      return this.#jinja.render({ ...document, ...functions });
    } catch (error) {
      throw new TemplateError(`${this.where}: ${this.source}: ${(error as Error).message}.`, { cause: error });
    }
  }

  /** A template of one expression that gives a list of texts. @throws TemplateError where it gives something else */
  renderList(document: Document): string[] {
    const text = this.render(document);
    try {
      const value: unknown = JSON.parse(text);
      if (Array.isArray(value)) return value.map(String);
    } catch {
      // said below
    }
    throw new TemplateError(`${this.where}: expected a list, but ${this.source} gave ${JSON.stringify(text)}.`);
  }
}
