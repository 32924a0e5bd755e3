// Layer: eval. Long documents of a source of tokens, for the loss by position: its own where it knows them, else one stretch after another.
// Knows sources of tokens. Knows no model and no file.
import type { TokenSource } from "@diffmamba/datasets";
import { EvaluationError } from "./evaluate.js";

/** A source that may know where its documents begin and end; a split of a token store is one. */
export interface DocumentSource extends Omit<TokenSource, "documents"> {
  readonly documents?: {
    readonly startsBetween?: unknown;
    readonly count?: number;
    /** A document's first token, and the token behind its last one. */
    range?(document: number): Promise<readonly [number, number]>;
  };
}

export interface LongDocumentOptions {
  /** Positions that are scored: a document has one token more. */
  readonly length: number;
  /** Documents at most; all by default. */
  readonly limit?: number;
}

/**
 * Documents of `length + 1` tokens. Of a source's own documents those that are long enough, from their beginning, so that every
 * position is of the same ones; else stretches side by side.
 * @throws EvaluationError where there is none of that length
 */
export async function* longDocuments(
  source: DocumentSource,
  { length, limit = Number.POSITIVE_INFINITY }: LongDocumentOptions,
): AsyncGenerator<Int32Array> {
  const { documents } = source;
  const range = documents?.range?.bind(documents);
  const count = documents?.count ?? 0;
  const size = length + 1;
  let found = 0;
  if (range === undefined) {
    for (let start = 0; start + size <= source.length && found < limit; start += size, found++) {
      yield await source.read(start, size);
    }
  } else {
    for (let document = 0; document < count && found < limit; document++) {
      const [start, end] = await range(document);
      if (end - start < size) continue;
      yield await source.read(start, size);
      found++;
    }
  }
  if (found > 0) return;
  const what = range === undefined ? `it holds ${source.length}` : `none of its ${count} documents has as many`;
  throw new EvaluationError(
    `${source.name}: a document of ${size} tokens is asked for, but ${what}; ask for fewer positions.`,
  );
}
