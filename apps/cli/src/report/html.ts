// Layer: apps/cli, report. Text into HTML: a template tag that escapes what is put in, so that nothing from a run can become markup.
// Knows no run and no chart.

/** Markup that is known to be safe. */
export class Html {
  constructor(readonly markup: string) {}
  toString(): string {
    return this.markup;
  }
}

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => entities[character]);
}

/** What can be put into a template: markup as it is, text and numbers escaped, lists one after the other. */
export type Content = Html | string | number | undefined | readonly Content[];

function render(content: Content): string {
  if (content === undefined) return "";
  if (content instanceof Html) return content.markup;
  if (Array.isArray(content)) return content.map(render).join("");
  return escapeHtml(String(content));
}

export function html(parts: TemplateStringsArray, ...contents: readonly Content[]): Html {
  return new Html(parts.reduce((text, part, i) => text + render(contents[i - 1]) + part));
}
