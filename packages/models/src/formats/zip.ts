// Checkpoint formats: the directory of a zip archive whose entries are stored uncompressed, as PyTorch writes them.
// Source: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3 (zip64). Sizes come from the central directory, so data descriptors
// need no care. Everything is checked against the file's size before it is used. Knows no pickle and no tensor.
import type { FileSystem } from "@diffmamba/files";
import { count, FormatError, shown } from "./errors.js";

const localSignature = 0x04034b50;
const entrySignature = 0x02014b50;
const endSignature = 0x06054b50;
const end64Signature = 0x06064b50;
const locator64Signature = 0x07064b50;
const endBytes = 22;
const locatorBytes = 20;
const end64Bytes = 56;
const longestComment = 0xffff;
/** A directory larger than this is refused: a checkpoint's entry is about 100 bytes. */
const maxDirectoryBytes = 100_000_000;

interface ZipEntry {
  readonly name: string;
  readonly size: number;
  /** Where the entry's local header begins. */
  readonly headerAt: number;
}

interface Directory {
  readonly at: number;
  readonly bytes: number;
  readonly entries: number;
}

/** A zip archive of which only the directory has been read. */
export class StoredZip {
  private readonly dataStarts = new Map<string, number>();

  private constructor(
    private readonly files: FileSystem,
    readonly path: string,
    private readonly entries: ReadonlyMap<string, ZipEntry>,
    private readonly directoryAt: number,
  ) {}

  /** @throws FormatError for what is no zip archive, is cut short, compressed, encrypted or contradicts itself */
  static async open(files: FileSystem, path: string, size: number): Promise<StoredZip> {
    const directory = await findDirectory(files, path, size);
    const bytes = await files.readRange(path, directory.at, directory.bytes);
    const entries = readEntries(bytes, directory, path);
    return new StoredZip(files, path, entries, directory.at);
  }

  get names(): readonly string[] {
    return [...this.entries.keys()];
  }

  /** Bytes of an entry, undefined where there is none. */
  size(name: string): number | undefined {
    return this.entries.get(name)?.size;
  }

  /** A part of an entry's bytes. @throws FormatError where it has no such part or its local header is not one */
  async read(name: string, offset: number, length: number): Promise<Uint8Array> {
    const entry = this.entries.get(name);
    if (entry === undefined) throw new FormatError(this.path, `has no entry "${shown(name)}"`);
    if (offset < 0 || length < 0 || offset + length > entry.size) {
      throw new FormatError(
        this.path,
        `entry "${shown(name)}" has ${count(entry.size)} bytes; bytes ${count(offset)} to ${count(offset + length)} were asked for`,
      );
    }
    return this.files.readRange(this.path, (await this.dataStart(entry)) + offset, length);
  }

  private async dataStart(entry: ZipEntry): Promise<number> {
    const known = this.dataStarts.get(entry.name);
    if (known !== undefined) return known;
    const bad = () =>
      new FormatError(this.path, `entry "${shown(entry.name)}" lies outside the file, or its header is damaged`);
    const headerBytes = 30;
    if (entry.headerAt + headerBytes > this.directoryAt) throw bad();
    const header = viewOf(await this.files.readRange(this.path, entry.headerAt, headerBytes));
    const start = entry.headerAt + headerBytes + header.getUint16(26, true) + header.getUint16(28, true);
    if (header.getUint32(0, true) !== localSignature || start + entry.size > this.directoryAt) throw bad();
    this.dataStarts.set(entry.name, start);
    return start;
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A u64 as a number; above 2^53 it is inexact, which no check against a file's size lets pass. */
function u64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}

async function findDirectory(files: FileSystem, path: string, size: number): Promise<Directory> {
  const tailBytes = Math.min(size, endBytes + longestComment);
  const tail = viewOf(await files.readRange(path, size - tailBytes, tailBytes));
  let at = tailBytes - endBytes;
  while (
    at >= 0 &&
    !(tail.getUint32(at, true) === endSignature && at + endBytes + tail.getUint16(at + 20, true) === tailBytes)
  ) {
    at--;
  }
  if (at < 0) {
    throw new FormatError(
      path,
      `${count(size)} bytes without the directory that ends a zip archive: the file is cut short or is no zip. Nothing was loaded.`,
    );
  }
  const endAt = size - tailBytes + at;
  let directory: Directory = {
    entries: tail.getUint16(at + 10, true),
    bytes: tail.getUint32(at + 12, true),
    at: tail.getUint32(at + 16, true),
  };
  let limit = endAt;
  const wide = directory.entries === 0xffff || directory.bytes === 0xffffffff || directory.at === 0xffffffff;
  if (wide) ({ directory, limit } = await findDirectory64(files, path, endAt));
  if (directory.at + directory.bytes > limit) {
    throw new FormatError(path, "its zip directory lies outside the file: damaged. Nothing was loaded.");
  }
  if (directory.bytes > maxDirectoryBytes) {
    throw new FormatError(
      path,
      `its zip directory has ${count(directory.bytes)} bytes; at most ${count(maxDirectoryBytes)} are read`,
    );
  }
  return directory;
}

async function findDirectory64(
  files: FileSystem,
  path: string,
  endAt: number,
): Promise<{ directory: Directory; limit: number }> {
  const bad = () => new FormatError(path, "its zip64 directory is damaged. Nothing was loaded.");
  if (endAt < locatorBytes + end64Bytes) throw bad();
  const locator = viewOf(await files.readRange(path, endAt - locatorBytes, locatorBytes));
  const end64At = u64(locator, 8);
  if (locator.getUint32(0, true) !== locator64Signature || end64At + end64Bytes > endAt - locatorBytes) throw bad();
  const end64 = viewOf(await files.readRange(path, end64At, end64Bytes));
  if (end64.getUint32(0, true) !== end64Signature) throw bad();
  return { directory: { entries: u64(end64, 32), bytes: u64(end64, 40), at: u64(end64, 48) }, limit: end64At };
}

function readEntries(bytes: Uint8Array, directory: Directory, path: string): Map<string, ZipEntry> {
  const view = viewOf(bytes);
  const entries = new Map<string, ZipEntry>();
  const fixedBytes = 46;
  const fail = (detail: string): never => {
    throw new FormatError(path, `${detail}. Nothing was loaded.`);
  };
  let at = 0;
  while (at < bytes.length) {
    const nameEnd =
      at + fixedBytes <= bytes.length ? at + fixedBytes + view.getUint16(at + 28, true) : Number.POSITIVE_INFINITY;
    const extraEnd = nameEnd <= bytes.length ? nameEnd + view.getUint16(at + 30, true) : Number.POSITIVE_INFINITY;
    const end = extraEnd <= bytes.length ? extraEnd + view.getUint16(at + 32, true) : Number.POSITIVE_INFINITY;
    if (end > bytes.length || view.getUint32(at, true) !== entrySignature) fail("its zip directory is damaged");
    const name = new TextDecoder().decode(bytes.subarray(at + fixedBytes, nameEnd));
    if (view.getUint16(at + 8, true) & 1) fail(`entry "${shown(name)}" is encrypted`);
    if (view.getUint16(at + 10, true) !== 0) {
      fail(`entry "${shown(name)}" is compressed; PyTorch stores without compression, and only that is read`);
    }
    const wide = readWideFields(view, at, nameEnd, extraEnd);
    if (wide === undefined) return fail(`the zip64 fields of entry "${shown(name)}" are damaged`);
    const { stored, size, headerAt } = wide;
    if (stored !== size) fail(`entry "${shown(name)}" has ${count(stored)} bytes stored as ${count(size)}: damaged`);
    if (headerAt + size > directory.at) fail(`entry "${shown(name)}" lies outside the file: damaged`);
    if (entries.has(name)) fail(`two entries are named "${shown(name)}"`);
    entries.set(name, { name, size, headerAt });
    at = end;
  }
  if (entries.size !== directory.entries) {
    fail(`its zip directory lists ${count(entries.size)} entries but says ${count(directory.entries)}: damaged`);
  }
  return entries;
}

/** Sizes and position of an entry: those that do not fit 32 bits follow in the zip64 extra field, in this order. */
function readWideFields(
  view: DataView,
  at: number,
  extraAt: number,
  extraEnd: number,
): { size: number; stored: number; headerAt: number } | undefined {
  let wideAt = 0;
  let wideEnd = 0;
  for (let field = extraAt; field + 4 <= extraEnd; field += 4 + view.getUint16(field + 2, true)) {
    if (view.getUint16(field, true) !== 1) continue;
    wideAt = field + 4;
    wideEnd = Math.min(extraEnd, wideAt + view.getUint16(field + 2, true));
  }
  let complete = true;
  const next = (narrow: number): number => {
    if (narrow !== 0xffffffff) return narrow;
    wideAt += 8;
    if (wideAt > wideEnd) complete = false;
    return complete ? u64(view, wideAt - 8) : 0;
  };
  const size = next(view.getUint32(at + 24, true));
  const stored = next(view.getUint32(at + 20, true));
  const headerAt = next(view.getUint32(at + 42, true));
  return complete ? { size, stored, headerAt } : undefined;
}
