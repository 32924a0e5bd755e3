// Model folders: tensors of a checkpoint into a module's parameters and out of them, one parameter at a time, so that no
// second copy of all weights is held.
// Knows modules' published tensors and opened files. Knows no form of config.json.

import { type Module, type Parameter, type PublishedTensor, pack, publishedShape, unpack } from "@diffmamba/nn";
import { formatShape, type HostTensor, isFloat } from "@diffmamba/tensor";
import { FormatError, type LazyTensor, type TensorFile } from "../formats/index.js";

const headName = "lm_head.weight";
const embeddingName = "backbone.embeddings.weight";

/** What the file calls a published tensor: the original form's embedding has a name of its own. */
function storedName(file: TensorFile, name: string): string {
  if (file.has(name)) return name;
  const original = name.replace("backbone.embeddings.", "backbone.embedding.");
  return file.has(original) ? original : name;
}

function listed(names: readonly string[]): string {
  const shown = names.slice(0, 5).map((name) => `"${name}"`);
  return `${shown.join(", ")}${names.length > 5 ? ` and ${names.length - 5} more` : ""}`;
}

/** @throws FormatError unless the file has every tensor of the model, and no other, in its shape and of floats */
function checkTensors(file: TensorFile, published: readonly PublishedTensor[], isTied: boolean): void {
  const stored = new Map(published.map((entry) => [storedName(file, entry.name), entry]));
  const missing = [...stored.keys()].filter((name) => !file.has(name));
  if (missing.length > 0) throw new FormatError(file.path, `lacks ${listed(missing)}, which the model has`);
  const unknown = file.names.filter((name) => !stored.has(name) && !(isTied && name === headName));
  if (unknown.length > 0) throw new FormatError(file.path, `has ${listed(unknown)}, which the model does not have`);
  for (const [name, entry] of stored) {
    const { shape, dtype } = file.describe(name);
    const wanted = publishedShape(entry);
    if (shape.length !== wanted.length || shape.some((n, i) => n !== wanted[i])) {
      const detail = `"${name}" is ${formatShape(shape)}, but the model's is ${formatShape(wanted)}`;
      throw new FormatError(file.path, `${detail}; does config.json belong to these weights?`);
    }
    if (!isFloat(dtype)) throw new FormatError(file.path, `"${name}" is ${dtype}; weights are f32, f16, bf16 or f64`);
  }
}

/** A tied head that is stored all the same must be the embedding. */
async function checkTiedHead(file: TensorFile): Promise<void> {
  if (!file.has(headName)) return;
  const [head, embedding] = [await file.read(headName), await file.read(storedName(file, embeddingName))];
  if (sameBits(head, embedding)) return;
  const detail = `"${headName}" is not the embedding, though config.json says that the two are one`;
  throw new FormatError(file.path, `${detail}; set "tie_word_embeddings" (or "tie_embeddings") to false to keep both`);
}

function sameBits(a: HostTensor, b: HostTensor): boolean {
  if (a.dtype !== b.dtype || a.data.byteLength !== b.data.byteLength) return false;
  const [x, y] = [a, b].map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return x.every((byte, i) => byte === y[i]);
}

/** The published tensors by the parameter that holds them. */
function byParameter(published: readonly PublishedTensor[]): Map<Parameter, PublishedTensor[]> {
  const found = new Map<Parameter, PublishedTensor[]>();
  for (const entry of published) {
    const entries = found.get(entry.parameter);
    if (entries === undefined) found.set(entry.parameter, [entry]);
    else entries.push(entry);
  }
  return found;
}

/**
 * Reads a file's tensors into a module's parameters, bit for bit, or converted where the types differ.
 * @param isTied the module has no head of its own; the file may hold one, equal to the embedding
 * @throws FormatError naming the file and the tensors that are missing, unknown, of another shape or type; FileError
 */
export async function readWeights(module: Module, file: TensorFile, isTied: boolean): Promise<void> {
  const published = module.published();
  checkTensors(file, published, isTied);
  if (isTied) await checkTiedHead(file);
  for (const [parameter, entries] of byParameter(published)) {
    const tensors = new Map<string, HostTensor>();
    for (const { name } of entries) tensors.set(name, await file.read(storedName(file, name)));
    const data = pack(entries, tensors).get(parameter);
    if (data !== undefined) parameter.write(data);
  }
}

/** A module's tensors under their published names; each is fetched from the device when its turn comes. */
export function lazyWeights(module: Module): [string, LazyTensor][] {
  return module.published().map((entry) => {
    const load = async () => {
      const tensors = await unpack([entry], (parameter) => parameter.hostData());
      return (tensors.get(entry.name) as HostTensor).data;
    };
    return [entry.name, { dtype: entry.parameter.dtype, shape: publishedShape(entry), load }];
  });
}
