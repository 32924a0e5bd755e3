// Layer: train, tests of the folder: what a checkpoint argument means, how a checkpoint appears, and what is kept.
import { memoryFiles } from "@diffmamba/files/memory";
import { faultyFiles } from "@diffmamba/files/testing";
import { describe, expect, it } from "vitest";
import { RunError } from "./errors.js";
import { RunFolder, resolveCheckpoint, stepOf } from "./runFolder.js";
import { errorOf, namesIn, put } from "./runs.testing.js";

async function folderWith(...steps: number[]) {
  const files = memoryFiles();
  await files.makeDirectory("runs/x");
  const folder = new RunFolder(files, "runs/x");
  for (const step of steps)
    await folder.publish(step, (path) => put(files, `${path}/config.json`, `{"step": ${step}}`));
  return { files, folder };
}

describe("resolveCheckpoint", () => {
  it("takes a run, a step, its pointers, and any model folder", async () => {
    const { files, folder } = await folderWith(2, 4);
    await folder.point("best", 2);
    expect(await resolveCheckpoint(files, "runs/x")).toBe("runs/x/step-4");
    expect(await resolveCheckpoint(files, "runs/x/step-2")).toBe("runs/x/step-2");
    expect(await resolveCheckpoint(files, "runs/x/best")).toBe("runs/x/step-2");
    expect(await resolveCheckpoint(files, "runs/x/last")).toBe("runs/x/step-4");
    await files.makeDirectory("mamba2-130m");
    await put(files, "mamba2-130m/config.json", "{}");
    expect(await resolveCheckpoint(files, "mamba2-130m")).toBe("mamba2-130m");
  });

  it.each([
    ["a missing folder", "runs/y", "runs/y: no such checkpoint: nothing is there"],
    ["a file", "runs/x/step-2/config.json", "runs/x/step-2/config.json: a file; a checkpoint is a folder"],
    ["an unfinished one", "runs/x/step-5.tmp", "runs/x/step-5.tmp: a checkpoint that was never finished"],
    ["a folder of something else", "runs", "runs: neither a run folder (with a file `last`) nor a model folder"],
    ["a run without a checkpoint", "runs/new", "runs/new: a run that has saved no checkpoint yet"],
    ["a pointer to nothing", "runs/lost", "runs/lost/last: it names runs/lost/step-9, which does not exist"],
    ["a pointer that is none", "runs/odd", 'runs/odd/last: it holds "../step-2"; expected the name of a checkpoint'],
  ])("names %s", async (_, path, message) => {
    const { files } = await folderWith(2);
    await files.makeDirectory("runs/x/step-5.tmp");
    for (const name of ["new", "lost", "odd"]) {
      await files.makeDirectory(`runs/${name}`);
      await put(files, `runs/${name}/run.json`, "{}");
    }
    await put(files, "runs/lost/last", "step-9\n");
    await put(files, "runs/odd/last", "../step-2\n");
    const error = await errorOf(resolveCheckpoint(files, path));
    expect(error).toBeInstanceOf(RunError);
    expect(error.message).toContain(message);
  });
});

describe("a run's folder", () => {
  it("knows the names of checkpoints", () => {
    expect(["step-0", "step-12", "step-", "step-1.tmp", "step--1", "xstep-1"].map(stepOf)).toEqual([
      0,
      12,
      ...Array(4),
    ]);
  });

  it("publishes in the order that a crash at any point allows", async () => {
    const inner = memoryFiles();
    await inner.makeDirectory("run");
    const files = faultyFiles(inner);
    await new RunFolder(files, "run").publish(3, (path) => put(files, `${path}/weights`, "new"));
    expect(files.log).toEqual([
      "remove run/step-3.tmp",
      "makeDirectory run/step-3.tmp",
      "writer run/step-3.tmp/weights",
      "write run/step-3.tmp/weights 3",
      "close run/step-3.tmp/weights",
      "syncDirectory run/step-3.tmp",
      "rename run/step-3.tmp run/step-3",
      "syncDirectory run",
      "writer run/last.tmp",
      "write run/last.tmp 7",
      "close run/last.tmp",
      "rename run/last.tmp run/last",
      "syncDirectory run",
    ]);
  });

  it("replaces a folder of the same step that was never named, and removes what failed on the way", async () => {
    const { files, folder } = await folderWith(2);
    await files.makeDirectory("runs/x/step-4");
    await put(files, "runs/x/step-4/torn", "x");
    await folder.publish(4, (path) => put(files, `${path}/config.json`, "{}"));
    expect(await namesIn(files, "runs/x/step-4")).toEqual(["config.json"]);
    await expect(folder.publish(6, () => Promise.reject(new Error("no")))).rejects.toThrow("no");
    expect(await namesIn(files, "runs/x")).toEqual(["last", "step-2", "step-4"]);
    expect(await resolveCheckpoint(files, "runs/x")).toBe("runs/x/step-4");
  });

  it("keeps the newest and the named, and drops what lies beyond the last", async () => {
    const { folder } = await folderWith(10, 9, 100, 20, 30);
    await folder.prune(30, 2, [9]);
    expect(await folder.steps()).toEqual([9, 20, 30]);
  });

  it("cleans its own leftovers and nothing else", async () => {
    const { files, folder } = await folderWith(2);
    await files.makeDirectory("runs/x/step-3.tmp/training");
    for (const name of ["last.tmp", "best.tmp", "run.json.tmp", "notes.tmp"]) await put(files, `runs/x/${name}`, "");
    await folder.clean();
    expect(await namesIn(files, "runs/x")).toEqual(["last", "notes.tmp", "step-2"]);
  });
});
