// Layer: train. The lock of a run folder: one writer at a time, and a dead writer's lock is taken over.
// Knows files. Whether another process lives is told by a host that is handed in; Node's is in node.ts.

import { FileError, type FileSystem, readText } from "@diffmamba/files";
import { RunError } from "./errors.js";
import { isObject } from "./json.js";

/** Who holds a lock, as its file says. */
export interface LockHolder {
  /** 0 where there are no processes. */
  readonly pid: number;
  /** Name of the machine, or of the page's origin. */
  readonly host: string;
  /** When the lock was taken, ISO 8601. */
  readonly started: string;
  /** Tells the holder from a later process with the same number. */
  readonly instance: string;
}

/** Who we are, and whether another one lives. */
export interface LockHost {
  readonly pid: number;
  readonly host: string;
  /** Unique to this process or page. */
  readonly instance: string;
  /** How long a lock is given to appear whole, and a rival to take over the same dead one, in milliseconds; 50 by default. */
  readonly settleMs?: number;
  /** Whether the holder of a lock lives, or may live: true where it cannot be known. */
  isAlive(holder: LockHolder): boolean | Promise<boolean>;
}

/** What is used of a browser's Web Locks. */
interface WebLocks {
  request(name: string, use: () => Promise<unknown>): Promise<unknown>;
  query(): Promise<{ readonly held?: readonly { readonly name?: string }[] }>;
}

const pageInstance = `page-${Array.from(crypto.getRandomValues(new Uint32Array(2)), (word) => word.toString(16)).join("")}`;
let pageIsKnown = false;

/** Where this page is from; undefined outside of pages and their workers, in Node for one. */
const origin = (globalThis as { location?: { origin?: string } }).location?.origin;

function pageLocks(): WebLocks | undefined {
  return origin === undefined ? undefined : (globalThis.navigator as { locks?: WebLocks } | undefined)?.locks;
}

/**
 * A host for pages: it holds a Web Lock in its own name for as long as the page lives, by which other pages of the origin
 * see that it does. Without Web Locks every foreign lock counts as held.
 */
export function pageHost(locks = pageLocks()): LockHost {
  if (!pageIsKnown && locks !== undefined) {
    pageIsKnown = true;
    locks.request(pageInstance, () => new Promise(() => undefined)).catch(() => undefined);
  }
  const host = origin ?? "page";
  return {
    pid: 0,
    host,
    instance: pageInstance,
    async isAlive(holder) {
      if (holder.instance === pageInstance || locks === undefined || holder.host !== host) return true;
      const { held = [] } = await locks.query();
      return held.some(({ name }) => name === holder.instance);
    },
  };
}

const SETTLE_MS = 50;

async function holderOf(files: FileSystem, path: string): Promise<LockHolder | "none" | "damaged"> {
  try {
    const value: unknown = JSON.parse(await readText(files, path));
    const known = isObject(value) && typeof value.pid === "number" && typeof value.host === "string";
    return known ? (value as unknown as LockHolder) : "damaged";
  } catch (error) {
    if (error instanceof FileError) {
      if (error.code === "missing") return "none";
      throw error;
    }
    return "damaged";
  }
}

export class RunLock {
  #held = true;

  private constructor(
    readonly files: FileSystem,
    readonly path: string,
    readonly instance: string,
  ) {}

  /**
   * Takes the lock at `path`. One of a process that no longer lives, or that was never written to its end, is replaced.
   * @throws RunError naming the holder where it lives; FileError
   */
  static async acquire(files: FileSystem, path: string, host: LockHost): Promise<RunLock> {
    const { pid, host: name, instance, settleMs = SETTLE_MS } = host;
    const wait = () => new Promise((resolve) => setTimeout(resolve, settleMs));
    const self: LockHolder = { pid, host: name, started: new Date().toISOString(), instance };
    const content = new TextEncoder().encode(`${JSON.stringify(self)}\n`);
    for (let attempt = 0; attempt < 3; attempt++) {
      if (await files.createExclusive(path, content)) {
        const lock = new RunLock(files, path, instance);
        if (attempt > 0) {
          // Two that take over the same dead lock: the later one wins, the earlier one sees it here.
          await wait();
          await lock.check();
        }
        return lock;
      }
      let holder = await holderOf(files, path);
      if (holder === "damaged") {
        // It may be being written right now.
        await wait();
        holder = await holderOf(files, path);
      }
      if (typeof holder === "object" && (await host.isAlive(holder))) throw inUse(path, holder);
      if (holder !== "none") await files.remove(path);
    }
    throw new RunError(
      path,
      "the lock is taken and given up too fast to be had; other processes are starting runs here",
    );
  }

  /** @throws RunError where somebody else holds the lock by now */
  async check(): Promise<void> {
    const holder = await holderOf(this.files, this.path);
    if (typeof holder === "object" && holder.instance === this.instance) return;
    this.#held = false;
    if (typeof holder === "object") throw inUse(this.path, holder);
    throw new RunError(this.path, "the lock of this run has vanished; something else works in its folder");
  }

  /** Gives the lock up, where it is still ours. */
  async release(): Promise<void> {
    if (!this.#held) return;
    this.#held = false;
    const holder = await holderOf(this.files, this.path);
    if (typeof holder === "object" && holder.instance === this.instance) await this.files.remove(this.path);
  }
}

function inUse(path: string, { pid, host, started }: LockHolder): RunError {
  const who = pid > 0 ? `process ${pid} on ${host}` : host;
  return new RunError(
    path,
    `the run is being written by ${who} since ${started}. Stop that one first; if it is certain that it no longer runs, delete this file`,
  );
}
