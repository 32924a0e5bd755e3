// Layer: conformance. A golden file and the folder it lies in: what is there, what the metadata says, which tensors a
// runner has looked at. Knows files and their formats. Knows no op, no module and no test runner.

import { baseName, type FileSystem, joinPath } from "@diffmamba/files";
import { isJsonObject, type JsonObject, parseLooseJson, parseSafetensors } from "@diffmamba/models";
import type { Device, HostTensor } from "@diffmamba/tensor";
import { type Check, check, decode, type FloatType, type Values } from "../compare.js";

/** A golden file, folder or variable that cannot be used. The message begins with its path. */
export class GoldenError extends Error {
  override readonly name = "GoldenError";
  constructor(path: string, detail: string) {
    super(`${path}: ${detail}`);
  }
}

/** The entries of a folder of goldens, by what the suite does with them. */
export interface GoldenFolder {
  readonly files: FileSystem;
  readonly path: string;
  /** Names of the `.safetensors` files, sorted. */
  readonly tensors: readonly string[];
  /** Names of the model folders, sorted. */
  readonly models: readonly string[];
  /** Everything else: nothing here knows what it is. */
  readonly unknown: readonly string[];
}

/** Files that describe the others and hold no values of their own. */
const companions = new Set(["README.md", "index.json"]);

/** Lists a folder of goldens. @throws GoldenError where it is missing, is no folder, or holds no `.safetensors` file */
export async function openGoldens(files: FileSystem, path: string): Promise<GoldenFolder> {
  const stat = await files.stat(path);
  if (stat === undefined) throw new GoldenError(path, "there is no such folder of goldens.");
  if (stat.kind !== "directory") throw new GoldenError(path, "it is a file; a folder of goldens was expected.");
  const entries = (await files.list(path)).filter(({ name }) => !name.startsWith(".") && !companions.has(name));
  const names = (wanted: (entry: (typeof entries)[number]) => boolean) =>
    entries.filter(wanted).map(({ name }) => name);
  const isTensors = (name: string) => name.endsWith(".safetensors");
  const tensors = names(({ name, kind }) => kind === "file" && isTensors(name));
  if (tensors.length === 0) throw new GoldenError(path, "the folder holds no .safetensors file.");
  const models = names(({ kind }) => kind === "directory");
  return { files, path, tensors, models, unknown: names(({ name, kind }) => kind === "file" && !isTensors(name)) };
}

/** One golden file: its metadata, and its tensors, each to be looked at by name. */
export class Golden {
  readonly #seen = new Set<string>();

  constructor(
    /** The file's path, for messages. */
    readonly path: string,
    readonly meta: JsonObject,
    readonly tensors: ReadonlyMap<string, HostTensor>,
  ) {}

  /** Reads a file. @throws FormatError, GoldenError where it is no safetensors file or its metadata is none of ours */
  static async read(folder: GoldenFolder, name: string): Promise<Golden> {
    const path = joinPath(folder.path, name);
    const { metadata, tensors } = parseSafetensors(await folder.files.read(path), path);
    const text = metadata.get("meta");
    if (text === undefined) throw new GoldenError(path, 'its __metadata__ has no "meta", which says what it holds.');
    const meta = parseLooseJson(text, `${path} (meta)`);
    if (!isJsonObject(meta)) throw new GoldenError(path, `its "meta" is ${text}; an object was expected.`);
    return new Golden(path, meta, tensors);
  }

  /** The file's name without its folder and ending. */
  get name(): string {
    return baseName(this.path).replace(/\.safetensors$/, "");
  }

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  /** A tensor's numbers. @throws GoldenError where there is none of that name */
  values(name: string): Values {
    const tensor = this.tensors.get(name);
    if (tensor === undefined) throw new GoldenError(this.path, `it has no tensor "${name}".`);
    this.#seen.add(name);
    return decode(tensor);
  }

  /** An entry of the metadata, as `accept` understands it. @throws GoldenError where that is undefined */
  option<T>(key: string, expected: string, accept: (value: JsonObject[string] | undefined) => T | undefined): T {
    const value = accept(this.meta[key]);
    if (value !== undefined) return value;
    throw new GoldenError(this.path, `its "${key}" is ${JSON.stringify(this.meta[key])}; expected ${expected}.`);
  }

  number(key: string): number {
    return this.option(key, "a number", (value) => (typeof value === "number" ? value : undefined));
  }

  boolean(key: string): boolean {
    return this.option(key, "true or false", (value) => (typeof value === "boolean" ? value : undefined));
  }

  /** Fails for each tensor that nothing has looked at: the file holds more than its runner understands. */
  unseen(): Check[] {
    const names = [...this.tensors.keys()].filter((name) => !this.#seen.has(name));
    return names.map((name) => check(name, false, "the file has this tensor, and nothing here compares it"));
  }
}

/** Runs the golden files of one kind. */
export interface GoldenRunner {
  readonly name: string;
  /** True if a file with this metadata is of the runner's kind. */
  matches(meta: JsonObject): boolean;
  /** All comparisons of a file, in a type. `folder` is where it lies, with the models beside it. */
  run(device: Device, dtype: FloatType, golden: Golden, folder: GoldenFolder): Promise<readonly Check[]>;
}

/** Runs the model folders of one kind. */
export interface ModelFolderRunner {
  readonly name: string;
  /** True if a folder with this `config.json` is of the runner's kind. */
  matches(config: JsonObject): boolean;
  /** All checks of the model folder `name` by itself; what its golden files demand is theirs. */
  run(device: Device, dtype: FloatType, name: string, folder: GoldenFolder): Promise<readonly Check[]>;
}
