// Layer: train, tests of the lock: one writer, dead writers replaced, half-written locks, and two that come at once.
import { memoryFiles } from "@diffmamba/files/memory";
import { describe, expect, it } from "vitest";
import { testHost } from "./bigram.testing.js";
import { RunError } from "./errors.js";
import { type LockHolder, pageHost, RunLock } from "./lock.js";
import { errorOf, put } from "./runs.testing.js";

const acquire = (files: ReturnType<typeof memoryFiles>, name: string, alive: Set<string>) =>
  RunLock.acquire(files, "lock", testHost(name, alive));

describe("a lock", () => {
  it("refuses a second writer, by name, until the first gives it up", async () => {
    const files = memoryFiles();
    const alive = new Set(["one", "two"]);
    const lock = await acquire(files, "one", alive);
    const error = await errorOf(acquire(files, "two", alive));
    expect(error).toBeInstanceOf(RunError);
    expect(error.message).toMatch(
      /^lock: the run is being written by process 4242 on test since 2\d\d\d-.* delete this file$/,
    );
    await expect(acquire(files, "one", alive)).rejects.toThrow("is being written");
    await lock.release();
    await (await acquire(files, "two", alive)).release();
    expect(await files.stat("lock")).toBeUndefined();
  });

  it("is taken over from a dead process, and from one that died while writing it", async () => {
    const files = memoryFiles();
    await acquire(files, "dead", new Set(["dead"]));
    const lock = await acquire(files, "new", new Set(["new"]));
    await lock.check();
    await lock.release();
    for (const torn of ["", '{"pid":42', "[]"]) {
      await put(files, "lock", torn);
      await (await acquire(files, "new", new Set(["new"]))).release();
    }
  });

  it("goes to one of two that take it over at once", async () => {
    for (let round = 0; round < 3; round++) {
      const files = memoryFiles();
      await acquire(files, "dead", new Set(["dead"]));
      const alive = new Set(["a", "b"]);
      const both = await Promise.allSettled([acquire(files, "a", alive), acquire(files, "b", alive)]);
      expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    }
  });

  it("notices that it was lost, and then leaves the file alone", async () => {
    const files = memoryFiles();
    const lock = await acquire(files, "one", new Set(["one"]));
    await files.remove("lock");
    await expect(lock.check()).rejects.toThrow("lock: the lock of this run has vanished");
    const again = await acquire(files, "one", new Set(["one"]));
    await put(files, "lock", JSON.stringify({ pid: 1, host: "other", started: "now", instance: "other" }));
    await expect(again.check()).rejects.toThrow("written by process 1 on other since now");
    await again.release();
    await lock.release();
    expect(await files.stat("lock")).toBeDefined();
  });
});

describe("a page's lock", () => {
  it("lives as long as the page's Web Lock", async () => {
    const held: { name?: string }[] = [];
    const host = pageHost({
      request: (name) => {
        held.push({ name });
        return new Promise(() => undefined);
      },
      query: async () => ({ held }),
    });
    const holder: LockHolder = { pid: 0, host: host.host, started: "", instance: host.instance };
    expect(await host.isAlive(holder)).toBe(true);
    expect(await host.isAlive({ ...holder, instance: "page-gone" })).toBe(false);
    held.push({ name: "page-other" });
    expect(await host.isAlive({ ...holder, instance: "page-other" })).toBe(true);
    expect(await host.isAlive({ ...holder, instance: "page-gone", host: "elsewhere" })).toBe(true);
    expect(await pageHost(undefined).isAlive({ ...holder, instance: "page-gone" })).toBe(true);
  });
});
