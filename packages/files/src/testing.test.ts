// Layer: files, tests of the faults: what is left behind when a save is killed at each of its operations.
import { describe, expect, it } from "vitest";
import { type FileSystem, readText, writeFileAtomic } from "./index.js";
import { memoryFiles } from "./memory.js";
import { type FaultOptions, faultyFiles } from "./testing.js";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

async function saved(): Promise<FileSystem> {
  const files = memoryFiles();
  await writeFileAtomic(files, "state", "old content");
  return files;
}

async function save(options: FaultOptions) {
  const inner = await saved();
  const files = faultyFiles(inner, options);
  const error = await writeFileAtomic(files, "state", "new content").then(
    () => undefined,
    (cause: Error) => cause,
  );
  return { inner, files, error };
}

describe("faultyFiles", () => {
  it("counts the changes of a save and lets it pass", async () => {
    const { inner, files, error } = await save({});
    expect(error).toBeUndefined();
    expect(files.operations).toBe(5);
    expect(files.log).toEqual([
      "writer state.tmp",
      "write state.tmp 11",
      "close state.tmp",
      "rename state.tmp state",
      "syncDirectory .",
    ]);
    expect(files.failed).toBe(false);
    expect(await readText(inner, "state")).toBe("new content");
  });

  for (const mode of ["error", "kill", "partial"] as const) {
    it(`leaves the old content or the new, whatever operation fails (${mode})`, async () => {
      for (let failAt = 1; failAt <= 5; failAt++) {
        const { inner, files, error } = await save({ failAt, mode });
        expect(error?.message).toContain(`operation ${failAt}, by a test`);
        expect(files.failed).toBe(true);
        expect(await readText(inner, "state")).toBe(failAt <= 4 ? "old content" : "new content");
      }
    });
  }

  it("lets a program that lives on clean up, and a dead one not", async () => {
    const lives = await save({ failAt: 2, mode: "error" });
    expect((lives.error as { code?: string }).code).toBe("full");
    expect((await lives.inner.list("")).map(({ name }) => name)).toEqual(["state"]);

    const died = await save({ failAt: 2, mode: "kill" });
    expect((await died.inner.list("")).map(({ name }) => name)).toEqual(["state", "state.tmp"]);
    expect(await readText(died.inner, "state.tmp")).toBe("");
    await expect(died.files.read("state")).rejects.toThrow("killed");
    await expect(died.files.remove("state")).rejects.toThrow("killed");
    expect(died.files.operations).toBe(2);
  });

  it("tears the write that it dies in", async () => {
    const { inner } = await save({ failAt: 2, mode: "partial" });
    expect(await readText(inner, "state.tmp")).toBe("new c");
    const files = faultyFiles(inner, { failAt: 1, mode: "partial" });
    await expect(files.createExclusive("lock", bytes("1234"))).rejects.toThrow("killed");
    expect(await readText(inner, "lock")).toBe("12");
    await expect(files.createExclusive("other", bytes("1234"))).rejects.toThrow("killed");
    expect(await inner.stat("other")).toBeUndefined();
  });

  it("fails with the code asked for", async () => {
    const files = faultyFiles(memoryFiles(), { failAt: 1, code: "denied" });
    await expect(files.makeDirectory("d")).rejects.toMatchObject({
      code: "denied",
      operation: "makeDirectory",
      path: "d",
    });
    await files.makeDirectory("d");
    expect(() => faultyFiles(memoryFiles(), { failAt: 0 })).toThrow(RangeError);
  });
});
