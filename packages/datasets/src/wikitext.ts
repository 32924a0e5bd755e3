// Layer: datasets. WikiText-103 (Merity et al. 2016): its lines, from the published archive or from the hub's parquet files, counted, so that
// nothing else carries its name; word by word, or raw for any tokenizer.
import { baseName, type FileSystem, joinPath } from "@diffmamba/files";
import { countWords, type Tokenizer, WordTokenizer, wordCount } from "@diffmamba/tokenizer";
import { zipEntrySource } from "./archives.js";
import { type ByteSource, fileSource } from "./byte-source.js";
import type { DocumentProgress } from "./prepare-documents.js";
import { prepareDocuments } from "./prepare-documents.js";
import type { TokenStore } from "./store.js";
import { joinTexts, linesOf, parquetSource, type TextSource } from "./text-source.js";
import { StoreError } from "./token-source.js";
import type { WriteOptions } from "./write-store.js";

export type WikiTextLevel = "words" | "raw";

/** Words and lines of each split: the published counts of tokens are their sums, a token for every line's end. */
export type WikiTextCounts = Readonly<
  Record<"train" | "valid" | "test", { readonly words: number; readonly lines: number }>
>;

export const wikiText103: WikiTextCounts = {
  train: { words: 101_425_671, lines: 1_801_350 },
  valid: { words: 213_886, lines: 3_760 },
  test: { words: 241_211, lines: 4_358 },
};

/** Different words of the train split, and the line's end. */
const wikiText103Vocabulary = 267_735;

const splits = ["train", "valid", "test"] as const;
type Split = (typeof splits)[number];

export interface WikiTextOptions extends WriteOptions {
  /** The archive, a folder with its files, or a folder with the hub's parquet files. */
  readonly from: string;
  /** `words`: a token a word, from the vocabulary of the train split; `raw`: any tokenizer, of the text before rare words were replaced. */
  readonly level: WikiTextLevel;
  /** For `words`: what the end of a line is. See `WordTokenizer`. */
  readonly lineEnds?: "standard" | "doubled";
  /** For `raw`. */
  readonly tokenizer?: Tokenizer;
  readonly onProgress?: (progress: DocumentProgress) => void;
}

const inName: Readonly<Record<Split, string>> = { train: "train", valid: "(?:valid|validation)", test: "test" };

/** The lines of a published file. */
function fileLines(source: ByteSource): TextSource {
  return {
    name: source.name,
    async *parts() {
      for await (const line of linesOf(source)) yield { text: `${line}\n`, ends: false };
    },
  };
}

/** The lines of parquet rows: each ends in a newline already, but for empty ones, which are a space and a newline in the archive. */
function rowLines(source: TextSource): TextSource {
  return {
    name: source.name,
    async *parts() {
      for await (const { text } of source.parts())
        yield { text: text === "" ? " \n" : text.endsWith("\n") ? text : `${text}\n`, ends: false };
    },
  };
}

async function listedBelow(files: FileSystem, folder: string): Promise<string[]> {
  const paths: string[] = [];
  for (const { name, kind } of await files.list(folder)) {
    const path = joinPath(folder, name);
    if (kind === "directory") paths.push(...(await listedBelow(files, path)));
    else paths.push(path);
  }
  return paths;
}

/** The lines of a split, wherever they are. */
async function findLines(files: FileSystem, from: string, level: WikiTextLevel, split: Split): Promise<TextSource> {
  const file = `wiki.${split}.${level === "words" ? "tokens" : "raw"}`;
  if ((await files.stat(from))?.kind === "file") {
    if (!from.endsWith(".zip")) {
      throw new StoreError(from, "a .zip or a folder with the files of WikiText-103 was expected");
    }
    return fileLines(zipEntrySource(files, from, (name) => baseName(name) === file));
  }
  const paths = await listedBelow(files, from);
  const plain = paths.find((path) => new RegExp(`^${file.replaceAll(".", "\\.")}(\\.gz|\\.xz)?$`).test(baseName(path)));
  if (plain !== undefined) return fileLines(fileSource(files, plain));
  const folder = `wikitext-103-${level === "raw" ? "raw-" : ""}v1`;
  const parquet = new RegExp(`^${inName[split]}-\\d+-of-\\d+\\.parquet$`);
  const rows = paths.filter((path) => parquet.test(baseName(path)));
  const own = rows.filter((path) => path.includes(folder));
  const chosen = own.length > 0 ? own : rows.filter((path) => !/wikitext-\d/.test(path));
  if (chosen.length === 0) throw new StoreError(from, `it has neither ${file} nor ${folder}/${split}-*.parquet`);
  return rowLines(
    joinTexts(
      from,
      chosen.sort().map((path) => parquetSource(files, path)),
    ),
  );
}

/** The same lines, counted; at their end the counts must be those of WikiText-103. */
export function countedLines(source: TextSource, split: Split, expected: WikiTextCounts): TextSource {
  return {
    name: source.name,
    async *parts() {
      let [words, lines] = [0, 0];
      for await (const part of source.parts()) {
        words += wordCount(part.text);
        lines++;
        yield part;
      }
      const wanted = expected[split];
      if (words === wanted.words && lines === wanted.lines) return;
      throw new StoreError(
        source.name,
        `this is not WikiText-103: its ${split} split has ${words} words in ${lines} lines, and WikiText-103 has ${wanted.words} in ` +
          `${wanted.lines}. Prepare it under a name of its own`,
      );
    },
  };
}

/**
 * Prepares WikiText-103.
 * @throws StoreError where a file is missing, or its counts are not those of WikiText-103
 */
export async function prepareWikiText(options: WikiTextOptions, expected = wikiText103): Promise<TokenStore> {
  const { files, from, level, lineEnds = "standard", tokenizer, ...rest } = options;
  // One after the other: of several that are missing, the first is named.
  const found: [Split, TextSource][] = [];
  for (const split of splits) {
    found.push([split, countedLines(await findLines(files, from, level, split), split, expected)]);
  }
  const sources = Object.fromEntries(found) as Record<Split, TextSource>;
  if (level === "raw") {
    const common = { ...rest, files, source: sources, name: "wikitext-103-raw", boundaries: false };
    return prepareDocuments({ ...common, ...(tokenizer && { tokenizer }) });
  }
  const counts = new Map<string, number>();
  let characters = 0;
  for await (const { text } of sources.train.parts()) {
    options.signal?.throwIfAborted();
    countWords(text, counts);
    characters += text.length;
    options.onProgress?.({ phase: "measure", documents: 0, characters });
  }
  const words = WordTokenizer.fromCounts(counts, lineEnds === "doubled" ? { lineEnds } : {});
  if (expected === wikiText103 && words.vocabSize !== wikiText103Vocabulary) {
    throw new StoreError(
      from,
      `its vocabulary has ${words.vocabSize} words, and WikiText-103 has ${wikiText103Vocabulary}`,
    );
  }
  const name = lineEnds === "doubled" ? "wikitext-103-doubled" : "wikitext-103";
  return prepareDocuments({ ...rest, files, source: sources, name, tokenizer: words, boundaries: false });
}
