// Layer: tokenizer. Many texts encoded at once, perhaps by several workers: what goes to them and what comes back.
// Knows no thread.
import { type Tokenizer, UnknownSymbolError } from "./tokenizer.js";

/** Ids of the texts, behind one another, and how many each has; or the symbol that the vocabulary lacks, and in which text. */
export type Encoded =
  | { readonly ids: Int32Array; readonly lengths: readonly number[] }
  | { readonly unknown: { symbol: string; position: number; remedy: string }; readonly text: number };

/** Encodes texts one by one. */
export function encodeTexts(tokenizer: Tokenizer, texts: readonly string[]): Encoded {
  const parts: Int32Array[] = [];
  let total = 0;
  for (const [text, content] of texts.entries()) {
    try {
      const ids = tokenizer.encode(content);
      parts.push(ids);
      total += ids.length;
    } catch (error) {
      if (!(error instanceof UnknownSymbolError)) throw error;
      const { symbol, position, remedy } = error;
      return { unknown: { symbol, position, remedy }, text };
    }
  }
  const only = parts.length === 1 ? parts[0] : undefined;
  const ids = only ?? new Int32Array(total);
  if (only === undefined) {
    let at = 0;
    for (const part of parts) {
      ids.set(part, at);
      at += part.length;
    }
  }
  return { ids, lengths: parts.map(({ length }) => length) };
}

/** What encodes texts, perhaps several calls at the same time. */
export interface TextsEncoder {
  /** How many calls are worked on at once. */
  readonly size: number;
  encode(texts: readonly string[]): Promise<Encoded>;
}

/** Encodes in this thread. */
export function serialEncoder(tokenizer: Tokenizer): TextsEncoder {
  return { size: 1, encode: async (texts) => encodeTexts(tokenizer, texts) };
}
