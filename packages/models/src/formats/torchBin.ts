// Checkpoint formats: reading `pytorch_model.bin` (a zip of one pickle and raw storages) without running what the pickle says.
// Source: torch/serialization.py, the zip form that PyTorch writes since 1.6. Knows no model and no device.
import type { FileSystem } from "@diffmamba/files";
import type { HostTensor } from "@diffmamba/tensor";
import { decodeElements, hostType, storedSize } from "./elements.js";
import { count, elementCount, FormatError, shown } from "./errors.js";
import { ShardedTensors } from "./shardIndex.js";
import type { TensorDescription, TensorFile } from "./tensorFile.js";
import { readStateDict, type TorchTensor } from "./torchPickle.js";
import { StoredZip } from "./zip.js";

export const torchBinName = "pytorch_model.bin";
export const torchBinIndexName = "pytorch_model.bin.index.json";

/** A state dict that `torch.save` wrote. Only its directory and pickle have been read; `read` fetches one tensor's bytes. */
export class TorchBinFile implements TensorFile {
  readonly names: readonly string[];

  private constructor(
    readonly path: string,
    private readonly zip: StoredZip,
    private readonly root: string,
    private readonly tensors: ReadonlyMap<string, TorchTensor>,
  ) {
    this.names = [...tensors.keys()];
  }

  /**
   * Opens a file and reads what tensors it has. Nothing that the pickle asks for is run: names other than those of tensors,
   * storages and dicts are refused.
   * @throws FormatError where the file is missing, damaged, of another form, or asks for more than tensors; FileError
   */
  static async open(files: FileSystem, path: string): Promise<TorchBinFile> {
    const stat = await files.stat(path);
    if (stat?.kind !== "file") throw new FormatError(path, "no such file. Nothing was loaded.");
    await refuseOtherForms(files, path, stat.size);
    const zip = await StoredZip.open(files, path, stat.size);
    const [pickle, ...others] = zip.names.filter((name) => /^(?:[^/]+\/)?data\.pkl$/.test(name));
    if (pickle === undefined || others.length > 0) {
      throw new FormatError(path, "a zip archive without exactly one data.pkl: not a file that torch.save wrote");
    }
    const root = pickle.slice(0, -"data.pkl".length);
    await checkByteOrder(zip, `${root}byteorder`);
    const tensors = readStateDict(await zip.read(pickle, 0, zip.size(pickle) ?? 0), path);
    for (const [name, tensor] of tensors) checkStorage(zip, root, name, tensor);
    return new TorchBinFile(path, zip, root, tensors);
  }

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  describe(name: string): TensorDescription {
    const { storage, shape } = this.tensor(name);
    return { dtype: hostType(storage.stored, this.path, name), shape };
  }

  async read(name: string): Promise<HostTensor> {
    const { storage, offset, shape, strides } = this.tensor(name);
    hostType(storage.stored, this.path, name);
    const width = storedSize(storage.stored) ?? 1;
    const elements = elementCount(shape) ?? 0;
    // From the first element of the view to the last: never more than the storage, which is no larger than the file.
    const span = elements === 0 ? 0 : shape.reduce((sum, size, axis) => sum + (size - 1) * (strides[axis] ?? 0), 1);
    const bytes = await this.zip.read(
      `${this.root}data/${storage.key}`,
      elements === 0 ? 0 : offset * width,
      span * width,
    );
    const packed = isContiguous(shape, strides) ? bytes : pack(bytes, shape, strides, width, elements);
    return decodeElements(storage.stored, packed, shape, this.path, name);
  }

  async close(): Promise<void> {}

  private tensor(name: string): TorchTensor {
    const tensor = this.tensors.get(name);
    if (tensor === undefined) throw new FormatError(this.path, `has no tensor "${shown(name)}"`);
    return tensor;
  }
}

/** Opens the shards that `pytorch_model.bin.index.json` names. @throws FormatError naming the shard or tensor that is missing */
export function openShardedTorchBin(files: FileSystem, indexPath: string): Promise<ShardedTensors> {
  return ShardedTensors.open(files, indexPath, TorchBinFile.open);
}

async function refuseOtherForms(files: FileSystem, path: string, size: number): Promise<void> {
  const start = await files.readRange(path, 0, Math.min(size, 8));
  if (start[0] === 0x80) {
    throw new FormatError(
      path,
      "a bare pickle, the form of PyTorch before 1.6, which is not read. Load and save it once with a current PyTorch. Nothing was loaded.",
    );
  }
  if (new TextDecoder().decode(start) === "version ") {
    throw new FormatError(path, "not a zip archive (a Git LFS pointer?). Fetch the real file. Nothing was loaded.");
  }
}

async function checkByteOrder(zip: StoredZip, entry: string): Promise<void> {
  const size = zip.size(entry);
  if (size === undefined) return; // older files have none and are little-endian
  const order = new TextDecoder().decode(await zip.read(entry, 0, Math.min(size, 16)));
  if (order !== "little") {
    throw new FormatError(zip.path, `its byte order is "${shown(order)}"; only "little" is read. Nothing was loaded.`);
  }
}

function checkStorage(zip: StoredZip, root: string, name: string, { storage }: TorchTensor): void {
  const entry = `${root}data/${storage.key}`;
  const size = zip.size(entry);
  if (size === undefined) {
    throw new FormatError(
      zip.path,
      `tensor "${shown(name)}": the archive has no "${shown(entry)}". Nothing was loaded.`,
    );
  }
  const expected = storage.length * (storedSize(storage.stored) ?? 1);
  if (size !== expected) {
    throw new FormatError(
      zip.path,
      `tensor "${shown(name)}": "${shown(entry)}" has ${count(size)} bytes, but ${count(storage.length)} elements of ${storage.stored} are ${count(expected)}. Nothing was loaded.`,
    );
  }
}

function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = shape[axis] ?? 1;
    if (size > 1 && strides[axis] !== expected) return false;
    expected *= size;
  }
  return true;
}

/** Copies a strided view into row-major order. `source` begins at the view's first element; strides count elements. */
function pack(
  source: Uint8Array,
  shape: readonly number[],
  strides: readonly number[],
  width: number,
  elements: number,
): Uint8Array {
  const out = new Uint8Array(elements * width);
  const index = shape.map(() => 0);
  let from = 0;
  for (let to = 0; to < out.length; to += width) {
    for (let byte = 0; byte < width; byte++) out[to + byte] = source[from + byte] ?? 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      const stride = strides[axis] ?? 0;
      const next = (index[axis] ?? 0) + 1;
      if (next < (shape[axis] ?? 1)) {
        index[axis] = next;
        from += stride * width;
        break;
      }
      index[axis] = 0;
      from -= (next - 1) * stride * width;
    }
  }
  return out;
}
