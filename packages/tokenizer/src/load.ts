// Layer: tokenizer. Tokenizers in folders and as JSON: `tokenizer.json` (with `tokenizer_config.json`), GPT-2's `vocab.json` and
// `merges.txt`, a vocabulary of words, or our own small file.
// Knows files only through the FileSystem interface.
import {
  baseName,
  FileError,
  type FileSystem,
  joinPath,
  parentPath,
  readJson,
  readText,
  writeFileAtomic,
} from "@diffmamba/files";
import { gpt2Json } from "./byte-level.js";
import { ByteTokenizer } from "./bytes.js";
import { CharacterTokenizer } from "./characters.js";
import { HuggingFaceTokenizer } from "./hugging-face.js";
import { type Tokenizer, TokenizerFormatError } from "./tokenizer.js";
import { type WordOptions, WordTokenizer } from "./words.js";

/** The file of character, byte and word tokenizers. */
export const tokenizerFile = "diffmamba_tokenizer.json";
/** The files of the Hugging Face kind. */
export const huggingFaceFile = "tokenizer.json";
export const huggingFaceConfigFile = "tokenizer_config.json";
/** GPT-2's two files. */
export const gpt2VocabFile = "vocab.json";
export const gpt2MergesFile = "merges.txt";

type JsonObject = { readonly [key: string]: unknown };

const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const isStringMap = (value: unknown): value is Record<string, string> =>
  isObject(value) && Object.values(value).every((entry) => typeof entry === "string");

/**
 * Makes a tokenizer from what `toJSON` gave.
 * @param source where it came from, for messages
 * @throws TokenizerFormatError naming the source and the field
 */
export function tokenizerFromJSON(json: unknown, source = "tokenizer"): Tokenizer {
  if (!isObject(json)) throw new TokenizerFormatError(source, "it does not hold a JSON object");
  const { kind, version, alphabet, unknown, aliases } = json;
  if (kind === "tokenizer.json") return new HuggingFaceTokenizer(json.tokenizer, json.config, source);
  if (kind !== "characters" && kind !== "bytes" && kind !== "words") {
    throw new TokenizerFormatError(
      source,
      `its "kind" is ${JSON.stringify(kind)}; expected "characters", "bytes", "words" or "tokenizer.json"`,
    );
  }
  if (version !== 1) {
    throw new TokenizerFormatError(source, `its "version" is ${JSON.stringify(version)}; this package reads version 1`);
  }
  try {
    if (kind === "words") return wordsFromJSON(json, source);
    if (kind === "bytes") {
      if (alphabet === undefined) return new ByteTokenizer();
      if (Array.isArray(alphabet)) return new ByteTokenizer(alphabet);
      throw new TokenizerFormatError(source, `its "alphabet" is not a list of bytes`);
    }
    if (typeof alphabet !== "string") throw new TokenizerFormatError(source, `its "alphabet" is not a string`);
    if (unknown !== undefined && typeof unknown !== "string") {
      throw new TokenizerFormatError(source, `its "unknown" is not a string`);
    }
    if (aliases !== undefined && !isStringMap(aliases)) {
      throw new TokenizerFormatError(source, `its "aliases" is not an object of strings`);
    }
    return new CharacterTokenizer(alphabet, { ...(unknown && { unknown }), ...(aliases && { aliases }) });
  } catch (error) {
    if (error instanceof TokenizerFormatError && error.message.startsWith(source)) throw error;
    throw new TokenizerFormatError(source, (error as Error).message, { cause: error });
  }
}

function wordsFromJSON(json: JsonObject, source: string): WordTokenizer {
  const { words, eos, unknown, lineEnds } = json;
  if (!Array.isArray(words) || !words.every((word) => typeof word === "string")) {
    throw new TokenizerFormatError(source, `its "words" is not a list of strings`);
  }
  for (const [name, value] of Object.entries({ eos, unknown })) {
    if (value !== undefined && typeof value !== "string") {
      throw new TokenizerFormatError(source, `its "${name}" is not a string`);
    }
  }
  if (lineEnds !== undefined && lineEnds !== "standard" && lineEnds !== "doubled") {
    throw new TokenizerFormatError(source, `its "lineEnds" is neither "standard" nor "doubled"`);
  }
  const options = { ...(eos !== undefined && { eos }), ...(unknown !== undefined && { unknown }) } as WordOptions;
  return new WordTokenizer(words, { ...options, ...(lineEnds && { lineEnds }) });
}

async function isFile(files: FileSystem, path: string): Promise<boolean> {
  return (await files.stat(path))?.kind === "file";
}

/** The kind of a file is told by its content, so that a file may have any name; only a vocabulary of words is told by its `.txt`. */
async function loadFile(files: FileSystem, path: string, configPath?: string): Promise<Tokenizer> {
  if (baseName(path) === gpt2VocabFile || baseName(path) === gpt2MergesFile) {
    return loadGpt2(files, parentPath(path), configPath);
  }
  if (path.endsWith(".txt")) {
    try {
      return WordTokenizer.fromVocabulary(await readText(files, path));
    } catch (error) {
      if (!(error instanceof TokenizerFormatError)) throw error;
      throw new TokenizerFormatError(path, `as a vocabulary, a word a line: ${error.message}`, { cause: error });
    }
  }
  const json = await readJson(files, path);
  if (isObject(json) && "kind" in json) return tokenizerFromJSON(json, path);
  const config = configPath && (await isFile(files, configPath)) ? await readJson(files, configPath) : undefined;
  return new HuggingFaceTokenizer(json, config, path);
}

async function loadGpt2(files: FileSystem, folder: string, configPath?: string): Promise<Tokenizer> {
  const sources: [string, string] = [joinPath(folder, gpt2VocabFile), joinPath(folder, gpt2MergesFile)];
  const json = gpt2Json(await readJson(files, sources[0]), await readText(files, sources[1]), sources);
  const config = configPath && (await isFile(files, configPath)) ? await readJson(files, configPath) : undefined;
  return new HuggingFaceTokenizer(json, config, sources[0]);
}

/**
 * Loads the tokenizer of a folder (a checkpoint, a token store, a downloaded model): `diffmamba_tokenizer.json`, or
 * `tokenizer.json`, or `vocab.json` and `merges.txt`, with `tokenizer_config.json` beside it if there is one. A path to one of these
 * files works too, and to a vocabulary: a `.txt` with a word a line.
 * @throws FileError where the folder or the files are missing, or hold no JSON; TokenizerFormatError where they hold something else
 */
export async function loadTokenizer(files: FileSystem, path: string): Promise<Tokenizer> {
  const found = await files.stat(path);
  if (!found) throw new FileError("missing", "load tokenizer from", path, "there is no such folder");
  if (found.kind === "file") return loadFile(files, path, joinPath(parentPath(path), huggingFaceConfigFile));
  const own = joinPath(path, tokenizerFile);
  if (await isFile(files, own)) return loadFile(files, own);
  const theirs = joinPath(path, huggingFaceFile);
  if (await isFile(files, theirs)) return loadFile(files, theirs, joinPath(path, huggingFaceConfigFile));
  if (await isFile(files, joinPath(path, gpt2VocabFile))) {
    return loadGpt2(files, path, joinPath(path, huggingFaceConfigFile));
  }
  throw new FileError(
    "missing",
    "load tokenizer from",
    path,
    `the folder holds neither ${huggingFaceFile} nor ${tokenizerFile} nor ${gpt2VocabFile} with ${gpt2MergesFile}`,
  );
}

/**
 * Writes a tokenizer into a folder, which must exist, in the form that `loadTokenizer` reads; the files of the other kind are
 * removed. Each file is replaced in one step.
 */
export async function saveTokenizer(files: FileSystem, folder: string, tokenizer: Tokenizer): Promise<void> {
  const write = (name: string, json: object) =>
    writeFileAtomic(files, joinPath(folder, name), `${JSON.stringify(json, null, 1)}\n`);
  if (tokenizer instanceof HuggingFaceTokenizer) {
    const json = tokenizer.toJSON();
    await write(huggingFaceFile, json.tokenizer);
    if (json.config) await write(huggingFaceConfigFile, json.config);
    else await files.remove(joinPath(folder, huggingFaceConfigFile));
    await files.remove(joinPath(folder, tokenizerFile));
  } else {
    await write(tokenizerFile, tokenizer.toJSON());
    await files.remove(joinPath(folder, huggingFaceFile));
    await files.remove(joinPath(folder, huggingFaceConfigFile));
  }
}
