// Layer: apps/cli, report. The page of runs: numbers, curves, samples and settings.
// Knows runs as data. Knows no file.
import { lambdaChart, layerColor, lossChart, runColor } from "./charts.js";
import { type Html, html } from "./html.js";
import { type LossUnit, lossUnit, type RunData } from "./runData.js";
import { figure, type PageOptions, page, section, swatch } from "./shell.js";

const count = (value: number): string => value.toLocaleString("en-US");

function duration(seconds: number): string {
  if (seconds < 100) return `${seconds.toPrecision(2)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function numbers(runs: readonly RunData[], unit: LossUnit): Html {
  const loss = (run: RunData, which: "first" | "last" | "best"): string => {
    const values = run.heldOut.map(({ value }) => value * unit.factor);
    if (values.length === 0) return "–";
    const value = which === "first" ? values[0] : which === "last" ? values[values.length - 1] : Math.min(...values);
    return value.toFixed(3);
  };
  const rows = runs.map((run, i) => {
    const steps = Math.max(0, ...run.train.map(({ step }) => step), ...run.heldOut.map(({ step }) => step));
    return html`<tr><th scope="row">${swatch(runColor(i))}${run.name}</th><td>${run.parameters === undefined ? "–" : count(run.parameters)}</td><td>${count(steps)}</td><td>${loss(run, "first")}</td><td class="strong">${loss(run, "last")}</td><td>${loss(run, "best")}</td><td>${run.tokensPerSecond === undefined ? "–" : count(Math.round(run.tokensPerSecond))}</td><td>${run.seconds === undefined ? "–" : duration(run.seconds)}</td></tr>`;
  });
  return html`<div class="scroll"><table class="numbers"><thead><tr><th scope="col">run</th><th scope="col">parameters</th><th scope="col">steps</th><th scope="col">at the start</th><th scope="col">at the end</th><th scope="col">best</th><th scope="col">tokens/s</th><th scope="col">time</th></tr></thead><tbody>${rows}</tbody></table></div><p class="note">Held-out loss in ${unit.name}.</p>`;
}

function lambdas(run: RunData): Html {
  const shown = run.lambdas.length;
  const legend =
    shown <= 12
      ? run.lambdas.map(({ layer }, i) => html`<span class="key">${swatch(layerColor(i, shown))}layer ${layer}</span>`)
      : [
          html`<span class="key">layer ${run.lambdas[0].layer}<span class="ramp"></span>layer ${run.lambdas[shown - 1].layer}</span>`,
        ];
  return html`<h3>${run.name}</h3>${figure((size) => lambdaChart(run, size), html`${legend}`)}`;
}

function settings(runs: readonly RunData[]): Html {
  const keys = [...new Set(runs.flatMap((run) => [...run.settings.keys()]))];
  const shownValue = (run: RunData, key: string) => run.settings.get(key) ?? "–";
  const differs = (key: string) => runs.some((run) => shownValue(run, key) !== shownValue(runs[0], key));
  const table = (names: readonly string[], columns: readonly RunData[], heads: Html) =>
    html`<div class="scroll"><table class="settings">${heads}<tbody>${names.map(
      (key) =>
        html`<tr><th scope="row"><code>${key}</code></th>${columns.map((run) => html`<td>${shownValue(run, key)}</td>`)}</tr>`,
    )}</tbody></table></div>`;
  const heads = html`<thead><tr><th scope="col"></th>${runs.map((run, i) => html`<th scope="col">${swatch(runColor(i))}${run.name}</th>`)}</tr></thead>`;
  const different = keys.filter(differs);
  const same = keys.filter((key) => !differs(key));
  if (runs.length === 1) return table(keys, runs, html``);
  return html`${different.length > 0 ? table(different, runs, heads) : html`<p class="note">All settings are the same.</p>`}${
    same.length > 0
      ? html`<details><summary>${same.length} settings that all runs share</summary>${table(same, [runs[0]], html``)}</details>`
      : undefined
  }`;
}

function samples(runs: readonly RunData[]): Html {
  const one = ({ prompt, text }: { prompt: string; text: string }) =>
    html`<pre><span class="prompt">${prompt}</span>${text}</pre>`;
  return html`${runs
    .filter((run) => run.samples.length > 0)
    .map((run) => {
      const last = run.samples[run.samples.length - 1];
      const earlier = run.samples.slice(0, -1);
      return html`<h3>${run.name} <span class="at">step ${count(last.step)}</span></h3>${one(last)}${
        earlier.length > 0
          ? html`<details><summary>${earlier.length} earlier ${earlier.length === 1 ? "sample" : "samples"}</summary>${earlier.map(
              (sample) => html`<h4>step ${count(sample.step)}</h4>${one(sample)}`,
            )}</details>`
          : undefined
      }`;
    })}`;
}

/** The whole page. The names of the runs must differ. */
export function reportPage(runs: readonly RunData[], { date, title }: PageOptions): string {
  const unit = lossUnit(runs);
  const heading = title ?? runs.map(({ name }) => name).join(" and ");
  const legend = runs.map((run, i) => html`<span class="key">${swatch(runColor(i))}${run.name}</span>`);
  const withLambda = runs.filter((run) => run.lambdas.length > 0);
  const backends = [...new Set(runs.map(({ backend }) => backend))].join(", ");
  const note = `${runs.length} ${runs.length === 1 ? "run" : "runs"} on backend ${backends}`;
  const losses = figure(
    (size) => lossChart(runs, unit, size),
    html`${legend}<span class="explain">thin: training, thick: held out</span>`,
  );
  const about = html`<p class="note">What each differential layer subtracts its second branch with.</p>`;
  return page(heading, { date, note }, [
    section("Numbers", numbers(runs, unit)),
    section(
      "Loss",
      losses,
      runs.some(({ train, heldOut }) => train.length + heldOut.length > 0),
    ),
    section("Lambda", html`${about}${withLambda.map(lambdas)}`, withLambda.length > 0),
    section(
      "Samples",
      samples(runs),
      runs.some((run) => run.samples.length > 0),
    ),
    section("Settings", settings(runs)),
  ]);
}
