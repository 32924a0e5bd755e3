// Layer: datasets. Prepares documents: their splits are sources of their own, or drawn document by document; a token ends each of them, and
// the store knows where each begins. Knows no data set by name.
import { baseName } from "@diffmamba/files";
import { RandomStream } from "@diffmamba/random";
import { CharacterTokenizer, collectCodePoints, type Tokenizer } from "@diffmamba/tokenizer";
import type { Piece } from "./chunks.js";
import type { SplitManifest } from "./manifest.js";
import type { TokenStore } from "./store.js";
import type { TextSource } from "./text-source.js";
import { StoreError } from "./token-source.js";
import { checkPlace, type WriteOptions, writeStore } from "./write-store.js";

export interface DocumentProgress {
  readonly phase: "measure" | "encode";
  readonly documents: number;
  /** UTF-16 units read so far. */
  readonly characters: number;
}

/** A share of the documents, drawn one by one: a document's split depends on the seed and on its number alone. */
export interface DocumentShares {
  readonly valid?: number;
  readonly test?: number;
  readonly seed?: number;
  /** Leaves out a split that no document was drawn for, which is an error otherwise. */
  readonly optional?: boolean;
}

export interface PrepareDocumentsOptions extends WriteOptions {
  /** One source, cut by `shares`; or one for each split. */
  readonly source: TextSource | Readonly<Record<string, TextSource>>;
  readonly shares?: DocumentShares;
  /** The data set's name in the store; the source's name unless told. */
  readonly name?: string;
  /** The characters of the texts themselves, sorted, unless told. */
  readonly tokenizer?: Tokenizer;
  /** Puts the tokenizer's end-of-text token behind every document; so it is unless told, where the tokenizer has one. */
  readonly eos?: boolean;
  /** Notes where documents begin; so it is unless told. */
  readonly boundaries?: boolean;
  readonly onProgress?: (progress: DocumentProgress) => void;
  /** Called when all is read, before the store is in its place; throws where it is not what its name says. */
  readonly check?: (found: {
    readonly documents: number;
    readonly splits: Readonly<Record<string, SplitManifest>>;
  }) => void;
}

const isSource = (source: PrepareDocumentsOptions["source"]): source is TextSource =>
  typeof source.parts === "function";

/** Which split each document of one source goes to. */
class Drawer {
  readonly #random: RandomStream;
  readonly #valid: number;
  readonly #test: number;

  constructor({ valid = 0, test = 0, seed = 0 }: DocumentShares) {
    for (const [name, share] of Object.entries({ valid, test })) {
      if (!(share >= 0 && share < 1))
        throw new RangeError(`share "${name}" wants a number from 0 to below 1, got ${share}`);
    }
    if (valid + test >= 1) throw new RangeError(`shares ${valid} and ${test} leave nothing to train on`);
    this.#random = new RandomStream(seed, "document splits");
    this.#valid = valid;
    this.#test = test;
  }

  splitOf(document: number): string {
    if (this.#valid + this.#test === 0) return "train";
    const draw = this.#random.at(document);
    return draw < this.#valid ? "valid" : draw < this.#valid + this.#test ? "test" : "train";
  }

  get splits(): string[] {
    return ["train", ...(this.#valid > 0 ? ["valid"] : []), ...(this.#test > 0 ? ["test"] : [])];
  }
}

/**
 * Makes a token store from documents, which may be larger than memory.
 * @throws StoreError naming the source where it is damaged or a split would be empty; UnknownSymbolError where `tokenizer` lacks something;
 * FileError for anything that happens to a file
 */
export async function prepareDocuments(options: PrepareDocumentsOptions): Promise<TokenStore> {
  await checkPlace(options);
  const { source, shares = {}, boundaries = true, signal } = options;
  const drawer = isSource(source) ? new Drawer(shares) : undefined;
  const sources = isSource(source) ? [["", source] as const] : Object.entries(source);
  const splits = drawer?.splits ?? sources.map(([split]) => split);
  const sourceName = isSource(source) ? source.name : (options.name ?? sources[0]?.[1].name ?? "documents");
  let documents = 0;

  async function* pieces(phase: DocumentProgress["phase"]): AsyncGenerator<Piece & { readonly text: string }> {
    let characters = 0;
    documents = 0;
    for (const [split, { parts }] of sources) {
      for await (const { text, ends } of parts()) {
        signal?.throwIfAborted();
        characters += text.length;
        yield { split: drawer?.splitOf(documents) ?? split, text, ends };
        if (!ends) continue;
        documents++;
        options.onProgress?.({ phase, documents, characters });
      }
    }
    if (characters === 0) throw new StoreError(sourceName, "it holds no text: there is nothing to prepare");
  }

  let { tokenizer } = options;
  if (tokenizer === undefined) {
    const points = new Set<number>();
    for await (const { text } of pieces("measure")) collectCodePoints(text, points);
    tokenizer = CharacterTokenizer.fromCodePoints(points);
  }
  const eos = options.eos === false || !boundaries ? undefined : tokenizer.specialTokens.eos;
  if (options.eos === true && eos === undefined) {
    throw new StoreError(sourceName, "a token is to end every document, but the tokenizer has none for that (eos)");
  }
  return writeStore(
    {
      name: options.name ?? baseName(sourceName),
      sourceName,
      tokenizer,
      pieces: () => pieces("encode"),
      source: undefined,
      options: { strip: false, newline: "keep", ...(boundaries && { eos: eos ?? null }) },
      documents: boundaries,
      splits,
      ...(shares.optional && { optional: ["valid", "test"] }),
      settings: { shares, splits: sources.map(([split, { name }]) => [split, name]) },
      ...(options.check && { check: ({ splits: found }) => options.check?.({ documents, splits: found }) }),
    },
    options,
  );
}
