// Layer: tokenizer. Tokenizers in folders and as JSON: `tokenizer.json` (with `tokenizer_config.json`), or our own small file.
// Knows files only through the FileSystem interface.
import { FileError, type FileSystem, joinPath, parentPath, readJson, writeFileAtomic } from "@diffmamba/files";
import { ByteTokenizer } from "./bytes.js";
import { CharacterTokenizer } from "./characters.js";
import { HuggingFaceTokenizer } from "./hugging-face.js";
import { type Tokenizer, TokenizerFormatError } from "./tokenizer.js";

/** The file of character and byte tokenizers. */
export const tokenizerFile = "diffmamba_tokenizer.json";
/** The files of the Hugging Face kind. */
export const huggingFaceFile = "tokenizer.json";
export const huggingFaceConfigFile = "tokenizer_config.json";

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
  if (kind !== "characters" && kind !== "bytes") {
    throw new TokenizerFormatError(
      source,
      `its "kind" is ${JSON.stringify(kind)}; expected "characters", "bytes" or "tokenizer.json"`,
    );
  }
  if (version !== 1) {
    throw new TokenizerFormatError(source, `its "version" is ${JSON.stringify(version)}; this package reads version 1`);
  }
  try {
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

async function isFile(files: FileSystem, path: string): Promise<boolean> {
  return (await files.stat(path))?.kind === "file";
}

/** The kind of a file is told by its content, so that a file may have any name. */
async function loadFile(files: FileSystem, path: string, configPath?: string): Promise<Tokenizer> {
  const json = await readJson(files, path);
  if (isObject(json) && "kind" in json) return tokenizerFromJSON(json, path);
  const config = configPath && (await isFile(files, configPath)) ? await readJson(files, configPath) : undefined;
  return new HuggingFaceTokenizer(json, config, path);
}

/**
 * Loads the tokenizer of a folder (a checkpoint, a token store, a downloaded model): `diffmamba_tokenizer.json`, or
 * `tokenizer.json` with `tokenizer_config.json` beside it if there is one. A path to one of these files works too.
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
  throw new FileError(
    "missing",
    "load tokenizer from",
    path,
    `the folder holds neither ${huggingFaceFile} nor ${tokenizerFile}`,
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
