// Layer: apps/cli, report. What every page is made of: its frame, sections, and figures for wide and narrow screens. A page needs nothing
// else: figures as SVG, style in its head, no request to anywhere. Knows no run and no chart.
import type { ChartSize } from "./charts.js";
import { Html, html } from "./html.js";
import { style } from "./style.js";

export interface PageOptions {
  /** When it was made. */
  readonly date: Date;
  readonly title?: string;
}

const wide: ChartSize = { width: 880, height: 380 };
const narrow: ChartSize = { width: 380, height: 280 };

/** The same figure for a wide page and for a telephone; the style shows one. */
export function figure(make: (size: ChartSize) => Html, caption: Html): Html {
  return html`<figure><div class="wide">${make(wide)}</div><div class="narrow">${make(narrow)}</div><figcaption>${caption}</figcaption></figure>`;
}

export const swatch = (color: string): Html => html`<span class="swatch" style="background:${color}"></span>`;

export function section(title: string, content: Html, present = true): Html | undefined {
  return present ? html`<section><h2>${title}</h2>${content}</section>` : undefined;
}

/** A whole page. `note` follows the date below the heading. */
export function page(
  heading: string,
  { date, note }: { readonly date: Date; readonly note: string },
  sections: readonly (Html | undefined)[],
): string {
  const when = date.toISOString().slice(0, 16).replace("T", " ");
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${heading}</title>
<style>${new Html(style)}</style>
</head>
<body>
<main>
<header><h1>${heading}</h1><p class="note">diffmamba report, ${when} UTC, ${note}</p></header>
${sections.map(
  (one) => html`${one}
`,
)}</main>
</body>
</html>
`.markup;
}
