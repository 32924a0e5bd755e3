// Layer: apps/cli, report. The page's style: one column, one family of system fonts, light and dark. Knows class names and nothing else.

export const style = `
:root {
  --paper: #fdfdfc; --ink: #1c1e21; --soft: #646a73; --line: #e3e4e6; --wash: #f4f4f2;
  --run-0: #2463c9; --run-1: #c8501e; --run-2: #1d8a5f; --run-3: #8d4bb8; --run-4: #a8790b; --run-5: #b8336a;
  --layer-first: #e0a11b; --layer-last: #4a3aa8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171a; --ink: #e4e5e7; --soft: #989ea7; --line: #2d3136; --wash: #1c1f23;
    --run-0: #6fa3f5; --run-1: #f08a58; --run-2: #58c796; --run-3: #c193e6; --run-4: #d9b04a; --run-5: #ee86ae;
    --layer-first: #f3c75a; --layer-last: #8f83ea;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 920px; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; font-weight: 650; letter-spacing: -0.01em; margin: 0 0 0.25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; font-weight: 650; margin: 2.75rem 0 0.75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 0.95rem; font-weight: 600; margin: 1.5rem 0 0.5rem; overflow-wrap: anywhere; }
h4 { font-size: 0.85rem; font-weight: 500; color: var(--soft); margin: 1rem 0 0.25rem; }
.note, .at, .explain { color: var(--soft); font-size: 0.85rem; font-weight: 400; }
.note { margin: 0.4rem 0 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: 0.45rem 0.9rem 0.45rem 0; text-align: left; vertical-align: baseline; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 500; }
tbody th { font-weight: 500; }
.numbers { white-space: nowrap; }
.numbers th + th, .numbers td { text-align: right; padding-right: 0; padding-left: 1.1rem; }
.strong { font-weight: 650; }
.settings td { overflow-wrap: anywhere; }
.settings tbody th { width: 1%; white-space: nowrap; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 0.8125rem; }
pre {
  background: var(--wash); border-radius: 6px; padding: 0.85rem 1rem; margin: 0 0 0.75rem; line-height: 1.5;
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 24rem; overflow-y: auto;
}
.prompt { color: var(--soft); }
figure { margin: 0.5rem 0 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { display: flex; flex-wrap: wrap; gap: 0.25rem 1.1rem; align-items: baseline; font-size: 0.85rem; margin-top: 0.4rem; }
.key { white-space: nowrap; }
.swatch { display: inline-block; width: 0.65em; height: 0.65em; border-radius: 2px; margin-right: 0.5em; }
.ramp {
  display: inline-block; width: 6rem; height: 0.6em; border-radius: 2px; margin: 0 0.5em;
  background: linear-gradient(in oklab to right, var(--layer-first), var(--layer-last));
}
details { margin: 0.75rem 0; }
summary { cursor: pointer; color: var(--soft); font-size: 0.875rem; }
.narrow { display: none; }
@media (max-width: 600px) {
  main { padding: 1.75rem 1rem 3rem; }
  .wide { display: none; }
  .narrow { display: block; }
}
@media print { details > * { display: block; } pre { max-height: none; } }
`;
