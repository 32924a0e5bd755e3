// Layer: files. A file system that lives in memory: for tests, and for pages that keep nothing.
// Knows no platform; "durable" means nothing here.
import { FileError, type FileSystem, type FileWriter } from "./index.js";
import { byName, checkRange, checkTruncate, pathParts } from "./paths.js";

interface MemoryFile {
  readonly kind: "file";
  /** The first `size` bytes are the content; the rest is room to grow. */
  data: Uint8Array;
  size: number;
}
interface MemoryDirectory {
  readonly kind: "directory";
  readonly entries: Map<string, MemoryNode>;
}
type MemoryNode = MemoryFile | MemoryDirectory;

function bytesIn(node: MemoryNode): number {
  if (node.kind === "file") return node.size;
  let sum = 0;
  for (const entry of node.entries.values()) sum += bytesIn(entry);
  return sum;
}

function append(file: MemoryFile, bytes: Uint8Array): void {
  const size = file.size + bytes.length;
  if (size > file.data.length) {
    const larger = new Uint8Array(Math.max(size, 2 * file.data.length));
    larger.set(file.data.subarray(0, file.size));
    file.data = larger;
  }
  file.data.set(bytes, file.size);
  file.size = size;
}

/**
 * Files in memory. `/a`, `a` and `./a` are the same file.
 * @param options.capacity bytes that fit; a write beyond it stores what fits and throws `FileError` "full", as a disk does
 */
export function memoryFiles(options: { readonly capacity?: number } = {}): FileSystem {
  const root: MemoryDirectory = { kind: "directory", entries: new Map() };

  const find = (parts: readonly string[]): MemoryNode | undefined => {
    let node: MemoryNode | undefined = root;
    for (const part of parts) node = node?.kind === "directory" ? node.entries.get(part) : undefined;
    return node;
  };
  const file = (path: string, operation: string): MemoryFile => {
    const node = find(pathParts(path));
    if (!node) throw new FileError("missing", operation, path, "no such file or directory");
    if (node.kind === "directory") throw new FileError("other", operation, path, "it is a directory");
    return node;
  };
  /** The directory that holds a path, and the path's name in it. */
  const place = (path: string, operation: string): [MemoryDirectory, string] => {
    const parts = pathParts(path);
    const name = parts.pop();
    if (name === undefined) throw new FileError("other", operation, path, "it is a directory");
    const parent = find(parts);
    if (parent?.kind !== "directory") throw new FileError("missing", operation, path, "no such file or directory");
    return [parent, name];
  };
  const store = (target: MemoryFile, path: string, bytes: Uint8Array): void => {
    const room = options.capacity === undefined ? Infinity : options.capacity - bytesIn(root);
    if (bytes.length > room) {
      append(target, bytes.subarray(0, Math.max(0, room)));
      throw new FileError("full", "write", path, "no space left on the device");
    }
    append(target, bytes);
  };

  return {
    async stat(path) {
      const node = find(pathParts(path));
      return node && { kind: node.kind, size: node.kind === "file" ? node.size : 0 };
    },

    async read(path) {
      const { data, size } = file(path, "read");
      return data.slice(0, size);
    },

    async readRange(path, offset, length) {
      const { data, size } = file(path, "read");
      checkRange(path, offset, length, size);
      return data.slice(offset, offset + length);
    },

    async list(path) {
      const node = find(pathParts(path));
      if (node?.kind !== "directory") throw new FileError("missing", "list", path, "no such directory");
      return [...node.entries].map(([name, { kind }]) => ({ name, kind })).sort(byName);
    },

    async makeDirectory(path) {
      let node = root;
      for (const part of pathParts(path)) {
        let next = node.entries.get(part);
        if (next?.kind === "file") throw new FileError("exists", "make directory", path, "a file is in its place");
        if (!next) {
          next = { kind: "directory", entries: new Map() };
          node.entries.set(part, next);
        }
        node = next;
      }
    },

    async writer(path, { append: atEnd = false } = {}): Promise<FileWriter> {
      const [parent, name] = place(path, "write");
      let target = parent.entries.get(name);
      if (target?.kind === "directory") throw new FileError("other", "write", path, "it is a directory");
      if (!target) {
        target = { kind: "file", data: new Uint8Array(0), size: 0 };
        parent.entries.set(name, target);
      } else if (!atEnd) target.size = 0;
      const into = target;
      let open = true;
      const check = () => {
        if (!open) throw new FileError("other", "write", path, "the writer is closed");
      };
      return {
        async write(bytes) {
          check();
          store(into, path, bytes);
        },
        async close() {
          check();
          open = false;
        },
        async abort() {
          open = false;
        },
      };
    },

    async truncate(path, size) {
      const target = file(path, "truncate");
      checkTruncate(path, size, target.size);
      target.size = size;
    },

    async rename(from, to) {
      const [source, name] = place(from, "rename");
      const node = source.entries.get(name);
      if (!node) throw new FileError("missing", "rename", from, `no such file or directory (renaming to ${to})`);
      const [target, newName] = place(to, "rename");
      const there = target.entries.get(newName);
      if (there && (node.kind === "directory" || there.kind === "directory")) {
        throw new FileError("exists", "rename", from, `a ${there.kind} is already at ${to}`);
      }
      source.entries.delete(name);
      target.entries.set(newName, node);
    },

    async remove(path) {
      const parts = pathParts(path);
      const name = parts.pop();
      const parent = find(parts);
      if (name === undefined) root.entries.clear();
      else if (parent?.kind === "directory") parent.entries.delete(name);
    },

    async syncDirectory(path) {
      if (find(pathParts(path))?.kind !== "directory") {
        throw new FileError("missing", "flush directory", path, "no such directory");
      }
    },

    async createExclusive(path, content) {
      const [parent, name] = place(path, "create");
      if (parent.entries.has(name)) return false;
      const created: MemoryFile = { kind: "file", data: new Uint8Array(0), size: 0 };
      parent.entries.set(name, created);
      try {
        store(created, path, content);
      } catch (error) {
        parent.entries.delete(name);
        throw error;
      }
      return true;
    },
  };
}
