// Layer: files, tests. One contract, run over every form of the file system: disk, memory, and a fake of a browser's handles.
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { afterAll, describe, expect, it } from "vitest";
import {
  baseName,
  FileError,
  type FileSystem,
  joinPath,
  parentPath,
  readJson,
  readText,
  writeFileAtomic,
} from "./index.js";
import { memoryFiles } from "./memory.js";
import { nodeFiles } from "./node.js";
import { type OpfsDirectoryHandle, type OpfsFileHandle, opfsFiles } from "./opfs.js";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (content: Uint8Array): string => new TextDecoder().decode(content);

function domError(name: string): Error {
  return Object.assign(new Error(name), { name });
}

class FakeFile implements OpfsFileHandle {
  readonly kind = "file";
  content = new Uint8Array(0);
  quota = Infinity;
  constructor(
    public name: string,
    public parent: FakeDirectory,
  ) {
    if (!parent.movable) Object.assign(this, { move: undefined });
  }
  async getFile() {
    const { content } = this;
    return {
      size: content.length,
      slice: (a: number, b: number) => ({ arrayBuffer: async () => content.slice(a, b).buffer }),
    };
  }
  async createWritable(options?: { keepExistingData?: boolean }) {
    let swap = options?.keepExistingData ? this.content.slice() : new Uint8Array(0);
    let at = 0;
    return {
      write: async (data: Uint8Array<ArrayBuffer>) => {
        if (at + data.length > this.quota) throw domError("QuotaExceededError");
        const next = new Uint8Array(Math.max(swap.length, at + data.length));
        next.set(swap);
        next.set(data, at);
        at += data.length;
        swap = next;
      },
      seek: async (position: number) => {
        at = position;
      },
      truncate: async (size: number) => {
        swap = swap.slice(0, size);
      },
      close: async () => {
        this.content = swap;
      },
      abort: async () => undefined,
    };
  }
  async move(parent: FakeDirectory, name: string) {
    this.parent.entries.delete(this.name);
    this.parent = parent;
    this.name = name;
    parent.entries.set(name, this);
  }
}

class FakeDirectory implements OpfsDirectoryHandle {
  readonly kind = "directory";
  readonly entries = new Map<string, FakeFile | FakeDirectory>();
  constructor(
    readonly name: string,
    readonly movable: boolean,
  ) {}
  async getDirectoryHandle(name: string, options?: { create?: boolean }): Promise<FakeDirectory> {
    let entry = this.entries.get(name);
    if (entry?.kind === "file") throw domError("TypeMismatchError");
    if (!entry) {
      if (!options?.create) throw domError("NotFoundError");
      entry = new FakeDirectory(name, this.movable);
      this.entries.set(name, entry);
    }
    return entry;
  }
  async getFileHandle(name: string, options?: { create?: boolean }): Promise<FakeFile> {
    let entry = this.entries.get(name);
    if (entry?.kind === "directory") throw domError("TypeMismatchError");
    if (!entry) {
      if (!options?.create) throw domError("NotFoundError");
      entry = new FakeFile(name, this);
      this.entries.set(name, entry);
    }
    return entry;
  }
  async removeEntry(name: string) {
    if (!this.entries.delete(name)) throw domError("NotFoundError");
  }
  async *values() {
    yield* this.entries.values();
  }
}

const temporary: string[] = [];
async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(`${tmpdir()}/diffmamba-files-`);
  temporary.push(folder);
  return folder;
}
afterAll(() => Promise.all(temporary.map((folder) => rm(folder, { recursive: true, force: true }))));

const forms: [string, () => Promise<[FileSystem, string]>][] = [
  ["node", async () => [nodeFiles(), await temporaryFolder()]],
  ["memory", async () => [memoryFiles(), ""]],
  ["opfs with move", async () => [opfsFiles(new FakeDirectory("", true)), ""]],
  ["opfs without move", async () => [opfsFiles(new FakeDirectory("", false)), ""]],
];

async function put(files: FileSystem, path: string, content: string, append = false): Promise<void> {
  const writer = await files.writer(path, { append });
  await writer.write(bytes(content));
  await writer.close();
}

/** The error of a promise that must fail with a FileError. */
async function failure(promise: Promise<unknown>): Promise<FileError> {
  const error = await promise.then(
    () => undefined,
    (cause) => cause,
  );
  expect(error).toBeInstanceOf(FileError);
  return error as FileError;
}

describe.each(forms)("files: %s", (_name, make) => {
  it("writes in pieces, reads whole and in ranges", async () => {
    const [files, root] = await make();
    const path = joinPath(root, "a.bin");
    const writer = await files.writer(path);
    await writer.write(bytes("hello "));
    await writer.write(bytes("wide "));
    await writer.write(bytes("world"));
    await writer.close();
    expect(text(await files.read(path))).toBe("hello wide world");
    expect(text(await files.readRange(path, 6, 4))).toBe("wide");
    expect(await files.readRange(path, 16, 0)).toHaveLength(0);
    expect(await files.stat(path)).toEqual({ kind: "file", size: 16 });
    expect(await files.stat(joinPath(root, "b"))).toBeUndefined();
    expect(await files.stat(joinPath(path, "below-a-file"))).toBeUndefined();
    expect((await files.stat(root))?.kind).toBe("directory");
  });

  it("keeps what was written when the caller's buffer changes", async () => {
    const [files, root] = await make();
    const path = joinPath(root, "a");
    const writer = await files.writer(path);
    const buffer = bytes("one");
    await writer.write(buffer);
    buffer.set(bytes("two"));
    await writer.write(buffer);
    await writer.close();
    expect(text(await files.read(path))).toBe("onetwo");
  });

  it("appends, starts over and cuts", async () => {
    const [files, root] = await make();
    const path = joinPath(root, "log");
    await put(files, path, "one\n");
    await put(files, path, "two\n", true);
    expect(await readText(files, path)).toBe("one\ntwo\n");
    await files.truncate(path, 4);
    expect(await readText(files, path)).toBe("one\n");
    await put(files, path, "three\n", true);
    expect(await readText(files, path)).toBe("one\nthree\n");
    await put(files, path, "new");
    expect(await readText(files, path)).toBe("new");
    expect((await failure(files.truncate(path, 100))).code).toBe("short");
  });

  it("names the file and the range that a file is too short for", async () => {
    const [files, root] = await make();
    const path = joinPath(root, "short.bin");
    await put(files, path, "12345");
    const error = await failure(files.readRange(path, 3, 4));
    expect(error.code).toBe("short");
    expect(error.message).toContain("short.bin: bytes 3 to 7 were asked for, but the file holds 5");
    await expect(files.readRange(path, -1, 2)).rejects.toThrow(RangeError);
  });

  it("says which file is missing, and what was to be done with it", async () => {
    const [files, root] = await make();
    const path = joinPath(root, "none", "x");
    const runs: (() => Promise<unknown>)[] = [
      () => files.read(path),
      () => files.readRange(path, 0, 1),
      () => files.writer(path),
      () => files.truncate(path, 0),
      () => files.list(joinPath(root, "none")),
      () => files.rename(path, joinPath(root, "y")),
      () => files.syncDirectory(joinPath(root, "none")),
      () => files.createExclusive(path, bytes("x")),
    ];
    for (const run of runs) {
      const error = await failure(run());
      expect(error.code).toBe("missing");
      expect(error.message).toMatch(/^cannot [a-z ]+ .*none/);
    }
  });

  it("makes directories with their parents and lists them by name", async () => {
    const [files, root] = await make();
    await files.makeDirectory(joinPath(root, "d/e/f"));
    await files.makeDirectory(joinPath(root, "d/e"));
    await put(files, joinPath(root, "d/b"), "1");
    await put(files, joinPath(root, "d/B"), "2");
    await put(files, joinPath(root, "d/a10"), "3");
    expect(await files.list(joinPath(root, "d"))).toEqual([
      { name: "B", kind: "file" },
      { name: "a10", kind: "file" },
      { name: "b", kind: "file" },
      { name: "e", kind: "directory" },
    ]);
    await files.syncDirectory(joinPath(root, "d"));
    expect((await failure(files.makeDirectory(joinPath(root, "d/b")))).code).toBe("exists");
    await failure(files.read(joinPath(root, "d/e")));
    await failure(files.writer(joinPath(root, "d/e")));
  });

  it("renames files over files, directories to free names, and nothing over a directory", async () => {
    const [files, root] = await make();
    const at = (path: string) => joinPath(root, path);
    await files.makeDirectory(at("d/e"));
    await put(files, at("d/e/x"), "deep");
    await put(files, at("a"), "first");
    await put(files, at("b"), "second");
    await files.rename(at("a"), at("b"));
    expect(await readText(files, at("b"))).toBe("first");
    expect(await files.stat(at("a"))).toBeUndefined();
    await files.rename(at("b"), at("b"));
    expect(await readText(files, at("b"))).toBe("first");

    await files.rename(at("d"), at("moved"));
    expect(await files.stat(at("d"))).toBeUndefined();
    expect(await readText(files, at("moved/e/x"))).toBe("deep");

    await files.makeDirectory(at("empty"));
    const error = await failure(files.rename(at("moved"), at("empty")));
    expect(error.code).toBe("exists");
    expect(error.message).toContain("empty");
    expect((await failure(files.rename(at("b"), at("empty")))).code).toBe("exists");
    expect((await failure(files.rename(at("moved"), at("b")))).code).toBe("exists");
    expect(await readText(files, at("moved/e/x"))).toBe("deep");
  });

  it("removes files and trees, and nothing twice", async () => {
    const [files, root] = await make();
    const at = (path: string) => joinPath(root, path);
    await files.makeDirectory(at("d/e"));
    await put(files, at("d/e/x"), "1");
    await put(files, at("f"), "1");
    await files.remove(at("d"));
    await files.remove(at("f"));
    await files.remove(at("f"));
    await files.remove(at("no/such/thing"));
    expect(await files.list(root)).toEqual([]);
  });

  it("creates a file once", async () => {
    const [files, root] = await make();
    const path = joinPath(root, "lock");
    expect(await files.createExclusive(path, bytes("me"))).toBe(true);
    expect(await files.createExclusive(path, bytes("you"))).toBe(false);
    expect(await readText(files, path)).toBe("me");
  });

  it("refuses a closed writer, and abort never throws", async () => {
    const [files, root] = await make();
    const path = joinPath(root, "w");
    const writer = await files.writer(path);
    await writer.write(bytes("kept"));
    await writer.close();
    await writer.abort();
    expect((await failure(writer.write(bytes("more")))).message).toContain("closed");
    await failure(writer.close());
    expect(await readText(files, path)).toBe("kept");
    const other = await files.writer(joinPath(root, "v"));
    await other.abort();
    await other.abort();
  });

  it("replaces a file in one step", async () => {
    const [files, root] = await make();
    const path = joinPath(root, "config.json");
    await writeFileAtomic(files, path, "{}");
    await writeFileAtomic(files, path, bytes('{"a":1}'));
    expect(await readJson(files, path)).toEqual({ a: 1 });
    expect((await files.list(root)).map(({ name }) => name)).toEqual(["config.json"]);
  });

  it("names a JSON file that is not", async () => {
    const [files, root] = await make();
    const path = joinPath(root, "bad.json");
    await put(files, path, '{"a": ');
    expect((await failure(readJson(files, path))).message).toMatch(/bad\.json: it does not hold JSON/);
    await put(files, path, " ");
    expect((await failure(readJson(files, path))).message).toMatch(/bad\.json: .*the file is empty/);
  });
});

describe("a full device", () => {
  it("fills up in memory as a disk does, and leaves the file that was to be replaced", async () => {
    const files = memoryFiles({ capacity: 10 });
    await writeFileAtomic(files, "a", "12345");
    const error = await failure(writeFileAtomic(files, "a", "1234567890"));
    expect(error.code).toBe("full");
    expect(error.message).toContain("a.tmp: no space left on the device");
    expect(await readText(files, "a")).toBe("12345");
    expect(await files.list("")).toHaveLength(1);
    expect((await failure(files.createExclusive("lock", bytes("123456")))).code).toBe("full");
    expect(await files.stat("lock")).toBeUndefined();
  });

  it.skipIf(!existsSync("/dev/full"))("is named on Linux (where there is a /dev/full)", async () => {
    const writer = await nodeFiles().writer("/dev/full");
    const error = await failure(writer.write(bytes("x")));
    await writer.abort();
    expect(error.code).toBe("full");
    expect(error.message).toBe("cannot write /dev/full: no space left on the device");
  });

  it("is a browser's quota", async () => {
    const root = new FakeDirectory("", true);
    (await root.getFileHandle("a", { create: true })).quota = 3;
    const writer = await opfsFiles(root).writer("a");
    expect((await failure(writer.write(bytes("1234")))).code).toBe("full");
    await writer.abort();
  });
});

describe("paths", () => {
  it("joins, splits off the name and the parent", () => {
    expect(joinPath("/a/", "b/", "/c")).toBe("/a/b/c");
    expect(joinPath("", "b")).toBe("b");
    expect(joinPath("/", "b")).toBe("/b");
    expect(joinPath(".", "b")).toBe("./b");
    expect(baseName("/a/b/")).toBe("b");
    expect(parentPath("/a/b")).toBe("/a");
    expect(parentPath("/a")).toBe("/");
    expect(parentPath("a")).toBe(".");
  });

  it("takes a browser's own directory handle", () => {
    // A check of types: it compiles only while the DOM's handle has every member that is used.
    const accepts = (root: FileSystemDirectoryHandle): FileSystem => opfsFiles(root);
    expect(accepts).toBeTypeOf("function");
  });
});
