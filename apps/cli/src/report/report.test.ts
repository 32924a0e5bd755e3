// Layer: apps/cli, report, tests. That nothing from a run can become markup, that lines are thinned truly, and what runs are called.
import { parseHTML } from "linkedom";
import { describe, expect, it } from "vitest";
import { escapeHtml, Html, html } from "./html.js";
import { runNames } from "./load.js";
import { reportPage } from "./page.js";
import { positionsPage } from "./positions.js";
import { lossUnit, type RunData, thinOut } from "./runData.js";

const evil = `<script>alert("x")</script>&'`;
const escaped = "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;&#39;";

const run = (change: Partial<RunData> = {}): RunData => ({
  name: "a",
  settings: new Map([["train.steps", "3"]]),
  parameters: 1234,
  backend: "reference",
  symbols: "byte",
  train: [1, 2, 3].map((step) => ({ step, value: 4 - step })),
  heldOut: [
    { step: 0, value: Math.LN2 },
    { step: 3, value: 2 * Math.LN2 },
  ],
  lambdas: [],
  samples: [],
  ...change,
});

const date = new Date("2026-01-02T03:04:05Z");

describe("the template", () => {
  it("escapes what is put in, and leaves markup and lists of it", () => {
    expect(escapeHtml(evil)).toBe(escaped);
    expect(html`<p>${evil}${[1, html`<b>${"<"}</b>`]}${undefined}${new Html("<i>")}</p>`.markup).toBe(
      `<p>${escaped}1<b>&lt;</b><i></p>`,
    );
  });
});

describe("the page", () => {
  it("escapes names, settings, samples, backend and title", () => {
    const one = run({
      name: evil,
      backend: evil,
      settings: new Map([[evil, evil]]),
      samples: [{ step: 1, prompt: evil, text: evil }],
      lambdas: [{ layer: 0, points: [{ step: 1, value: 0.2 }] }],
    });
    for (const page of [reportPage([one], { date }), reportPage([one, run()], { date, title: evil })]) {
      const { document } = parseHTML(page);
      expect(document.querySelectorAll("main, section").length).toBeGreaterThan(4);
      expect(document.querySelectorAll("script")).toHaveLength(0);
      expect(document.querySelector("h1")?.textContent).toBe(evil);
      expect(page.split(escaped).length).toBeGreaterThan(5);
    }
  });

  it("shows losses in bits where a token is a symbol, and only sections that have something", () => {
    const page = reportPage([run()], { date });
    expect(page).toContain("Held-out loss in bits per byte.");
    expect(page).toContain('<td>1.000</td><td class="strong">2.000</td><td>1.000</td>');
    expect(page).toContain("1,234");
    expect(page).not.toContain("<h2>Lambda</h2>");
    expect(page).not.toContain("<h2>Samples</h2>");
    expect(page).toContain("2026-01-02 03:04 UTC");
  });

  it("of a run that has not trained is a page still", () => {
    expect(reportPage([run({ train: [], heldOut: [], parameters: undefined })], { date })).toContain("<td>–</td>");
  });
});

describe("the numbers of a run", () => {
  it("are in bits where all runs have the same symbols, else in nats", () => {
    expect(lossUnit([run(), run()])).toEqual({ name: "bits per byte", factor: 1 / Math.LN2 });
    expect(lossUnit([run(), run({ symbols: "character" })])).toEqual({ name: "nats per token", factor: 1 });
    expect(lossUnit([run({ symbols: "token" })])).toEqual({ name: "nats per token", factor: 1 });
  });

  it("are means where there are more than can be drawn", () => {
    const points = Array.from({ length: 10 }, (_, i) => ({ step: i + 1, value: i }));
    expect(thinOut(points, 10)).toBe(points);
    expect(thinOut(points, 5).map(({ step }) => step)).toEqual([2, 4, 6, 8, 10]);
    expect(thinOut(points, 5).map(({ value }) => value)).toEqual([0.5, 2.5, 4.5, 6.5, 8.5]);
  });

  it("stand under names that differ", () => {
    expect(runNames(["/x/a", "/x/b/"])).toEqual(["a", "b"]);
    expect(runNames(["/x/a/run", "/x/b/run"])).toEqual(["a/run", "b/run"]);
    expect(runNames(["/x/a", "/x/a"])).toEqual(["x/a (1)", "x/a (2)"]);
  });
});

describe("the page of losses by position", () => {
  const result = (name: string, loss: readonly number[]) => ({
    ...{
      format: "diffmamba-positions" as const,
      checkpoint: name,
      data: evil,
      documents: 2,
      tokens: 1,
      nll: 1,
      trained: 8,
    },
    loss: [...loss],
  });
  const falling = Array.from({ length: 64 }, (_, i) => 2 + 1 / (i + 1));

  it("escapes names and data, and draws each curve twice: as it is and smoothed", () => {
    const page = positionsPage([result("a", falling), result("b", falling.slice(0, 20))], [evil, "b"], { date });
    const { document } = parseHTML(page);
    expect(document.querySelectorAll("script").length).toBe(0);
    expect(page).toContain(escaped);
    const [wide] = document.querySelectorAll("figure svg");
    expect(wide.querySelectorAll("g[aria-label=line]").length).toBe(4);
    expect(wide.querySelectorAll("g[aria-label=rule]").length).toBeGreaterThan(0);
  });

  it("shows the mean of the positions before each place, and nothing beyond a curve's end", () => {
    const flat = new Array(64).fill(1.5);
    const { document } = parseHTML(positionsPage([result("a", flat), result("b", [3])], ["a", "b"], { date }));
    const rows = [...document.querySelectorAll("tbody tr")].map((row) =>
      [...row.querySelectorAll("td")].map((td) => td.textContent),
    );
    expect(rows).toEqual([
      ["2", "1.0000", "1.500", "1.500", "1.500"],
      ["2", "1.0000", "3.000", "–", "–"],
    ]);
  });
});
