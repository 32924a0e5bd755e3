// Layer: eval, tests. Templates: what they have of Python, and what they say of a document that lacks something.
import { describe, expect, it } from "vitest";
import { TemplateError } from "./index.js";
import { Template } from "./template.js";

const render = (source: string, document = {}) => new Template(source, "t: doc_to_text").render(document);

describe("a template", () => {
  it.each([
    ["{{ list.index('b') }}", { list: ["a", "b"] }, "1"],
    ["{{ 'abc'.index('c') }}", {}, "2"],
    ["{{ name.capitalize() }}!", { name: "éVA Ray" }, "Éva ray!"],
    ["{{ regex_replace(text, '[0-9]+', '#') }}", { text: "a12b3" }, "a#b#"],
    ["{{ text.split(' ')[:-1] | join(' ') }}", { text: "a  b c" }, "a  b"],
    ["{% for x in list %}{{ loop.index }}{{ x }}{% endfor %}", { list: ["p", "q"] }, "1p2q"],
    ["{% set y = x + 1 %}{{ y }}", { x: 1 }, "2"],
    ["{{ a.b.c }}", { a: { b: { c: "deep" } } }, "deep"],
    ["{% if x is defined %}{{ x }}{% else %}none{% endif %}", { x: 1 }, "1"],
    ["\n{{ x }}\n", { x: 1 }, "\n1"],
  ])("%s of %j is %j", (source, document, expected) => {
    expect(render(source, document)).toBe(expected);
  });

  it("gives lists", () => {
    const list = (source: string, document = {}) => new Template(source, "t").renderList(document);
    expect(list("{{ [a, 'say \"b\"'] }}", { a: 'new\nline "x" é' })).toEqual(['new\nline "x" é', 'say "b"']);
    expect(list("{{ regex_replace(ends, 'a', '') }}", { ends: ["ab", "ca"] })).toEqual(["b", "c"]);
    expect(() => list("{{ a }}", { a: "x" })).toThrow('t: expected a list, but {{ a }} gave "x".');
  });

  it("names the field that a document lacks, and what it has", () => {
    expect(() => render("{{ goal }}", { question: 1, label: 0 })).toThrow(TemplateError);
    expect(() => render("{{ goal }}", { question: 1, label: 0 })).toThrow(
      't: doc_to_text: the document has no field "goal"; it has question, label.',
    );
    expect(() => render("{% for x in rows %}{{ x }}{% endfor %}")).toThrow('no field "rows"; it has none.');
  });

  it("says which template is none, and which cannot be computed", () => {
    expect(() => render("{{ a")).toThrow(/t: doc_to_text: this is no Jinja template: /);
    expect(() => render("{{ list.index('z') }}", { list: ["a"] })).toThrow(
      't: doc_to_text: {{ list.index(\'z\') }}: "z" is not among ["a"].',
    );
  });
});
