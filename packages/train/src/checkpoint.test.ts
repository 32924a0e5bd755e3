// Layer: train, tests of checkpoints across layouts: weights and moments of fused parameters go into parts and back, and misfits are named.
import { type FileSystem, joinPath } from "@diffmamba/files";
import { memoryFiles } from "@diffmamba/files/memory";
import { writeSafetensors } from "@diffmamba/models";
import { AdamW, Build, type BuildOptions, init, Module, type Parameter, type PublishedTensor } from "@diffmamba/nn";
import { reference, type TypedArray } from "@diffmamba/tensor";
import { afterAll, describe, expect, it } from "vitest";
import { readCheckpoint, type TrainingState, writeCheckpoint } from "./checkpoint.js";
import { errorOf } from "./runs.testing.js";

const device = reference();
afterAll(() => device.dispose());

abstract class Saved extends Module {
  async save(files: FileSystem, folder: string): Promise<void> {
    await writeSafetensors(files, joinPath(folder, "model.safetensors"), await this.stateDict());
  }
}

/** a (2, 3), b (3, 3) as two parameters, and c (2,). */
class Parts extends Saved {
  readonly a: Parameter;
  readonly b: Parameter;
  readonly c: Parameter;
  constructor(options: BuildOptions, names = ["a", "b", "c"]) {
    super();
    const build = new Build({ device, ...options });
    const [a, b, c] = names.map((name, i) =>
      this.register(name, build.parameter(name, [[2, 3], [3, 3], [2]][i], init.normal(1))),
    );
    [this.a, this.b, this.c] = [a, b, c];
  }
}

/** The same with a and b in one (5, 3): rows 0, 4 are a; rows 1 to 3 are b. */
class Fused extends Saved {
  readonly ab: Parameter;
  readonly c: Parameter;
  constructor(options: BuildOptions) {
    super();
    const build = new Build({ device, ...options });
    this.ab = this.register("ab", build.parameter("ab", [5, 3], init.normal(1)));
    this.c = this.register("c", build.parameter("c", [2], init.normal(1)));
  }
  protected override ownPublished(): PublishedTensor[] {
    const [c] = super.ownPublished().filter(({ name }) => name === "c");
    return [
      {
        name: "a",
        parameter: this.ab,
        axis: 0,
        pieces: [
          [0, 1],
          [4, 5],
        ],
      },
      { name: "b", parameter: this.ab, axis: 0, pieces: [[1, 4]] },
      c,
    ];
  }
}

const state: TrainingState = {
  step: 5,
  tokens: 640,
  seconds: 1.5,
  skipped: 1,
  best: { step: 4, loss: 2.5 },
  data: { step: 9 },
};

/** Makes every moment, and the count of steps, something of its own. */
function fill(optimizer: AdamW, groups: number): void {
  const values = (start: number, size: number): TypedArray =>
    Float32Array.from({ length: size }, (_, i) => start + i / 7);
  optimizer.restore({
    steps: new Array<number>(groups).fill(4),
    m: new Map(optimizer.parameters.map((p, i) => [p, values(10 * i, p.size)])),
    v: new Map(optimizer.parameters.map((p, i) => [p, values(100 + 10 * i, p.size)])),
  });
}

const groupOf = (module: Module) => [{ parameters: module.parameters(), weightDecay: 0 }];

async function saved(model: Saved, groups = groupOf(model)) {
  const files = memoryFiles();
  await files.makeDirectory("step-5");
  const optimizer = new AdamW(groups);
  fill(optimizer, groups.length);
  await writeCheckpoint(files, "step-5", { model, optimizer, state });
  return { files, optimizer };
}

async function load(files: FileSystem, model: Saved, groups = groupOf(model)) {
  const optimizer = new AdamW(groups);
  return { optimizer, state: await readCheckpoint(files, "step-5", { model, optimizer, groups: groups.length }) };
}

const fileNames = ["model.safetensors", "training/optimizer.safetensors", "training/state.json"];

describe("a checkpoint", () => {
  it("goes from parts to fused and back, weights, moments and steps, bit for bit", async () => {
    const { files } = await saved(new Parts({ seed: 1 }));
    const fused = new Fused({ seed: 2 });
    const { optimizer, state: found } = await load(files, fused);
    expect(found).toMatchObject(state);
    const moments = await optimizer.state();
    expect(moments.steps).toEqual([4]);
    // a is (2, 3) from 0 on, b (3, 3) from 10 on
    const row = (start: number) => [start, start + 1 / 7, start + 2 / 7];
    const expected = [0, 10, 10 + 3 / 7, 10 + 6 / 7, 3 / 7].flatMap(row);
    expect(moments.m.get(fused.ab)).toEqual(Float32Array.from(expected));

    await files.makeDirectory("back");
    await writeCheckpoint(files, "back", { model: fused, optimizer, state });
    for (const name of fileNames)
      expect(await files.read(`back/${name}`), name).toEqual(await files.read(`step-5/${name}`));
  });

  it("goes into groups that are cut otherwise", async () => {
    const { files } = await saved(new Parts({ seed: 1 }));
    const model = new Parts({ seed: 2 });
    const groups = [model.c, model.a, model.b].map((p) => ({ parameters: [p], weightDecay: 0 }));
    const { optimizer } = await load(files, model, groups);
    expect((await optimizer.state()).steps).toEqual([4, 4, 4]);
    expect((await optimizer.state()).m.get(model.c)).toEqual(Float32Array.of(20, 20 + 1 / 7));
  });

  it("holds moments only of what is trained", async () => {
    const model = new Parts({ seed: 1 });
    const { files } = await saved(model, [{ parameters: [model.b], weightDecay: 0 }]);
    const error = await errorOf(load(files, new Parts({ seed: 2 })));
    expect(error.message).toBe(
      'step-5/training/optimizer.safetensors: has no tensor "m.a", which the model trains; is it the checkpoint of another model?',
    );
  });

  it("names a tensor that is missing, of another type or of another shape, and then changes nothing", async () => {
    const { files } = await saved(new Parts({ seed: 1 }));
    const other = new Parts({ seed: 2 }, ["a", "b", "d"]);
    const before = await other.stateDict();
    expect((await errorOf(load(files, other))).message).toContain('step-5/model.safetensors: has no tensor "d"');
    expect(await other.stateDict()).toEqual(before);
    const wide = await errorOf(load(files, new Parts({ seed: 2, dtype: "f64" })));
    expect(wide.message).toBe('step-5/model.safetensors: "a" is f32, but the model holds f64; make the model in f32');
    const swapped = await errorOf(load(files, new Parts({ seed: 2 }, ["b", "a", "c"])));
    expect(swapped.message).toContain("loadStateDict: b is (3, 3); the model has (2, 3).");
  });

  it("refuses groups of unequal steps where the groups are not the same", async () => {
    const { files } = await saved(new Parts({ seed: 1 }));
    const path = "step-5/training/state.json";
    const json = JSON.parse(new TextDecoder().decode(await files.read(path)));
    await files.remove(path);
    await files.createExclusive(path, new TextEncoder().encode(JSON.stringify({ ...json, optimizerSteps: [3, 4] })));
    expect((await errorOf(load(files, new Parts({ seed: 2 })))).message).toBe(
      `${path}: has 2 groups of parameters of unequal steps; this run has 1`,
    );
  });

  it.each([
    ["step", { step: -1 }, 'its "step" is -1; expected a count'],
    ["best", { best: 3 }, 'its "best" is 3; expected null, or a step and a loss'],
    ["optimizerSteps", { optimizerSteps: "4" }, 'its "optimizerSteps" is "4"; expected a list of counts'],
    ["version", { version: 2 }, "not a training state of this package"],
  ])("names a wrong %s of its state", async (_, change, message) => {
    const { files } = await saved(new Parts({ seed: 1 }));
    const path = "step-5/training/state.json";
    const json = JSON.parse(new TextDecoder().decode(await files.read(path)));
    await files.remove(path);
    await files.createExclusive(path, new TextEncoder().encode(JSON.stringify({ ...json, ...change })));
    expect((await errorOf(load(files, new Parts({ seed: 2 })))).message).toContain(`${path}: ${message}`);
  });
});
