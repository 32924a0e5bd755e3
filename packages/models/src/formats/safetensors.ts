// Checkpoint formats: reading safetensors, from a file one tensor at a time, or from bytes in memory.
// Knows the file interface and the format's header; knows no model and no device.
import type { FileSystem } from "@diffmamba/files";
import type { HostTensor } from "@diffmamba/tensor";
import { decodeElements, hostType } from "./elements.js";
import { FormatError, shown } from "./errors.js";
import {
  checkFileSize,
  lengthBytes,
  parseSafetensorsHeader,
  readHeaderLength,
  type SafetensorsEntry,
  type SafetensorsHeader,
} from "./safetensorsHeader.js";
import type { TensorDescription, TensorFile } from "./tensorFile.js";

/**
 * A safetensors file of which only the header has been read. `read` fetches one tensor's bytes.
 * Stored I64 is given as i32 where every value fits and is an error where not; BOOL is given as u8.
 */
export class SafetensorsFile implements TensorFile {
  readonly names: readonly string[];

  private constructor(
    private readonly files: FileSystem,
    readonly path: string,
    private readonly header: SafetensorsHeader,
    private readonly dataStart: number,
  ) {
    this.names = [...header.entries.keys()];
  }

  /**
   * Opens a file: reads its header, checks it and the file's size against it.
   * @throws FormatError where the file is missing, cut short, too long, or its header lies; FileError where reading fails
   */
  static async open(files: FileSystem, path: string): Promise<SafetensorsFile> {
    const stat = await files.stat(path);
    if (stat?.kind !== "file") throw new FormatError(path, "no such file. Nothing was loaded.");
    const prefix = await files.readRange(path, 0, Math.min(lengthBytes, stat.size));
    const length = readHeaderLength(prefix, stat.size, path);
    const header = parseSafetensorsHeader(await files.readRange(path, lengthBytes, length), path);
    checkFileSize(header, length, stat.size, path);
    return new SafetensorsFile(files, path, header, lengthBytes + length);
  }

  /** The strings under `__metadata__`. */
  get metadata(): ReadonlyMap<string, string> {
    return this.header.metadata;
  }

  has(name: string): boolean {
    return this.header.entries.has(name);
  }

  /** The tensor as the header describes it. @throws FormatError where there is none */
  entry(name: string): SafetensorsEntry {
    const entry = this.header.entries.get(name);
    if (entry === undefined) throw new FormatError(this.path, `has no tensor "${shown(name)}"`);
    return entry;
  }

  describe(name: string): TensorDescription {
    const { stored, shape } = this.entry(name);
    return { dtype: hostType(stored, this.path, name), shape };
  }

  async read(name: string): Promise<HostTensor> {
    const { stored, shape, begin, end } = this.entry(name);
    hostType(stored, this.path, name);
    const bytes = await this.files.readRange(this.path, this.dataStart + begin, end - begin);
    return decodeElements(stored, bytes, shape, this.path, name);
  }

  async close(): Promise<void> {}
}

/** The tensors and strings of a safetensors file in memory. */
export interface SafetensorsContent {
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, HostTensor>;
}

/**
 * Parses a whole safetensors file that is in memory. The tensors are copies.
 * @param name the file's path, for messages
 * @throws FormatError as `SafetensorsFile.open` and `read`
 */
export function parseSafetensors(bytes: Uint8Array, name: string): SafetensorsContent {
  const length = readHeaderLength(bytes, bytes.length, name);
  const dataStart = lengthBytes + length;
  const header = parseSafetensorsHeader(bytes.subarray(lengthBytes, dataStart), name);
  checkFileSize(header, length, bytes.length, name);
  const tensors = new Map<string, HostTensor>();
  for (const { name: tensor, stored, shape, begin, end } of header.entries.values()) {
    const slice = bytes.slice(dataStart + begin, dataStart + end);
    tensors.set(tensor, decodeElements(stored, slice, shape, name, tensor));
  }
  return { metadata: header.metadata, tensors };
}
