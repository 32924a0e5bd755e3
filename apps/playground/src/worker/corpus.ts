// Layer: apps/playground, worker. From a text to tokens: an alphabet, what is trained on, what is held out, and how samples begin.
// Knows tokenizers and token sources. Knows no model.

import { arraySource, type TokenSource } from "@diffmamba/datasets";
import { ByteTokenizer, CharacterTokenizer, collectCodePoints, type Tokenizer } from "@diffmamba/tokenizer";
import type { RunSettings } from "../settings.js";

export interface Corpus {
  readonly name: string;
  readonly tokenizer: Tokenizer;
  readonly symbol: "character" | "byte";
  readonly train: TokenSource;
  readonly heldOut: TokenSource;
  /** The beginning of the held-out text, which samples go on from. */
  readonly prompt: string;
}

/** A text with more different characters is read as bytes. */
const mostCharacters = 1024;
/** The share of a text, at its end, that is never trained on. */
const heldOutShare = 0.1;
const promptLength = 24;
/** How far into the held-out text a place for samples to begin is looked for. */
const promptReach = 2000;

/** A text that cannot be trained on. */
export class TextError extends Error {
  override readonly name = "TextError";
}

/** The first words of the first paragraph, or else of the first sentence or word, that begins inside a text. */
function beginning(text: string): string {
  const places = [/\n\s*\n\s*(?=\S)/, /\n\s*(?=\S)/, /[.!?]["\u201d]?\s+(?=\S)/, /\s+(?=\S)/];
  const found = places.map((place) => place.exec(text)).find((match) => match !== null);
  const start = text.slice(found ? found.index + found[0].length : 0);
  const line = (start.split("\n")[0] ?? "").slice(0, promptLength);
  const cut = line.lastIndexOf(" ");
  return (cut > promptLength / 2 ? line.slice(0, cut + 1) : line) || "\n";
}

/** @throws TextError where the text is too short for the settings */
export function corpusOf(name: string, given: string, { length }: RunSettings): Corpus {
  const text = given.replaceAll("\r\n", "\n");
  const points = collectCodePoints(text);
  const ofCharacters = points.size <= mostCharacters;
  const tokenizer = ofCharacters
    ? CharacterTokenizer.fromCodePoints(points.size > 0 ? points : [32])
    : new ByteTokenizer();
  const ids = tokenizer.encode(text);
  const least = Math.max(2 * length, 200) + 1;
  const heldOutCount = Math.max(least, Math.floor(ids.length * heldOutShare));
  if (ids.length < heldOutCount + least) {
    const wanted = (2 * least).toLocaleString("en");
    throw new TextError(
      `${name} holds ${ids.length.toLocaleString("en")} characters; at least ${wanted} are needed for sequences of ${length}. Take a longer text.`,
    );
  }
  const cut = ids.length - heldOutCount;
  const { vocabSize } = tokenizer;
  const part = (from: number, to: number, what: string) =>
    arraySource(ids.slice(from, to), { name: `${name}, ${what}`, vocabSize });
  const opening = tokenizer.decode(ids.subarray(cut, cut + promptReach));
  return {
    name,
    tokenizer,
    symbol: ofCharacters ? "character" : "byte",
    train: part(0, cut, "the part that is trained on"),
    heldOut: part(cut, ids.length, "the held-out part"),
    prompt: beginning(opening.replace(/^\uFFFD+/, "")),
  };
}
