// Layer: apps/cli, report. The page of losses by position: one or more models on the same kind of documents.
// Knows results that `eval --by-position` has written. Knows no model.

import path from "node:path";
import { readJson, writeFileAtomic } from "@diffmamba/files";
import { nodeFiles } from "@diffmamba/files/node";
import { z } from "zod";
import { CommandError } from "../errors.js";
import { positionChart, runColor } from "./charts.js";
import { type Html, html } from "./html.js";
import { figure, type PageOptions, page, section, swatch } from "./shell.js";

const format = "diffmamba-positions";

const resultSchema = z.looseObject({
  format: z.literal(format),
  checkpoint: z.string(),
  data: z.string(),
  documents: z.number(),
  tokens: z.number(),
  nll: z.number(),
  /** Tokens of a window that the model was trained on; null where that is not known. */
  trained: z.number().nullable(),
  loss: z.array(z.number()).min(1),
});

/** What `eval --by-position` writes, as far as a page needs it. */
export type PositionFile = z.infer<typeof resultSchema>;

/** The mark by which a file of positions is known. */
export const positionFormat = format;

/** Reads a file that `eval --by-position --out` wrote. @throws FileError, CommandError naming it */
export async function readPositions(file: string): Promise<PositionFile> {
  const result = resultSchema.safeParse(await readJson(nodeFiles(), file));
  if (result.success) return result.data;
  throw new CommandError(
    `${file}: this is no result of diffmamba eval --by-position (${result.error.issues[0].path.join(".")}).`,
  );
}

/** Positions that one value of the smoothed curve is of: 101 of the paper's 64k, and fewer of less. */
const smoothing = (length: number): number => Math.min(101, 2 * Math.floor(length / 40) + 1);

const places = (loss: readonly number[]): number[] =>
  [...new Set([1, 16, 64, 256, 1024, 2048, 4096, 8192, 16384, 32768, 65536, loss.length])].filter(
    (n) => n <= loss.length,
  );

/** Mean of the last tenth before a position, which single losses are too noisy for. */
function around(loss: readonly number[], end: number): number {
  const part = loss.slice(Math.min(end - 1, Math.floor(0.9 * end)), end);
  return part.reduce((sum, value) => sum + value, 0) / part.length;
}

function numbers(results: readonly PositionFile[], names: readonly string[]): Html {
  const longest = results.reduce((a, b) => (b.loss.length > a.loss.length ? b : a));
  const ends = places(longest.loss);
  const rows = results.map(({ loss, documents, nll }, i) => {
    const cells = ends.map((end) => html`<td>${end <= loss.length ? around(loss, end).toFixed(3) : "–"}</td>`);
    return html`<tr><th scope="row">${swatch(runColor(i))}${names[i]}</th><td>${documents.toLocaleString("en-US")}</td><td class="strong">${nll.toFixed(4)}</td>${cells}</tr>`;
  });
  return html`<div class="scroll"><table class="numbers"><thead><tr><th scope="col">model</th><th scope="col">documents</th><th scope="col">mean</th>${ends.map((end) => html`<th scope="col">${end.toLocaleString("en-US")}</th>`)}</tr></thead><tbody>${rows}</tbody></table></div><p class="note">Nats a token; at a position, the mean of the tenth of positions before it.</p>`;
}

/** The page. Names must differ. */
export function positionsPage(
  results: readonly PositionFile[],
  names: readonly string[],
  { date, title }: PageOptions,
): string {
  const width = smoothing(Math.max(...results.map(({ loss }) => loss.length)));
  const trained = [...new Set(results.flatMap(({ trained: tokens }) => tokens ?? []))];
  const curves = results.map(({ loss }, i) => ({ name: names[i], loss }));
  const legend = names.map((name, i) => html`<span class="key">${swatch(runColor(i))}${name}</span>`);
  const data = [...new Set(results.map((result) => result.data))].join(", ");
  const chart = figure(
    (size) => positionChart(curves, { width, trained }, size),
    html`${legend}<span class="explain">thick: the mean of ${width} positions${trained.length > 0 ? "; dashed: the length of training windows" : ""}</span>`,
  );
  return page(title ?? "Loss by position", { date, note: `documents of ${data}` }, [
    section("Loss by position", chart),
    section("Numbers", numbers(results, names)),
  ]);
}

/** Writes the page of results. @returns its path */
export async function writePositions(
  results: readonly PositionFile[],
  names: readonly string[],
  { out, title }: { readonly out: string; readonly title?: string },
): Promise<string> {
  const files = nodeFiles();
  await files.makeDirectory(path.dirname(out));
  const text = positionsPage(results, names, { date: new Date(), ...(title !== undefined && { title }) });
  await writeFileAtomic(files, out, text);
  return out;
}
