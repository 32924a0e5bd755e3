// Layer: apps/cli, tests. Everything that can be wrong with what the command is given: the message names it, the exit code is 2 for wrong
// usage and 1 for failures, stdout stays empty, and there is no stack trace unless it is asked for. Most run in this process; some of
// either exit code, and whatever depends on the environment, the disk or what is called, in processes of their own.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, rmSync } from "node:fs";
import process from "node:process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Outcome, program, smallest, someText, type Workplace, workplace } from "./command.testing.js";

let place: Workplace;

const training = (...more: string[]) => ["train", ...smallest, "--data", "text.txt", "--out", "never", ...more];
const scoring = (checkpoint: string, data = "text.txt") => ["eval", "--checkpoint", checkpoint, "--data", data];
const talking = (checkpoint: string) => [
  "generate",
  "--checkpoint",
  checkpoint,
  "--prompt",
  "the",
  "--max-tokens",
  "1",
];

beforeAll(async () => {
  place = workplace();
  place.write("text.txt", someText(2000));
  place.write("empty.txt", "");
  place.write("broken.json", '{ "train": ');
  place.write("broken.yaml", "train: [1\n  x: {");
  place.write("list.yaml", "- 1\n- 2\n");
  place.write("wrong.yaml", "train:\n  stepps: 3\n");
  place.write("group.yaml", "trian:\n  steps: 3\n");
  const run = ["--data", "text.txt", "--out", "run", "--steps", "2", "--tokenizer", "characters"];
  await place.json(["train", ...smallest, ...run]);
});
afterAll(() => place?.dispose());

function expectFailure({ code, stdout, stderr }: Outcome, wanted: 1 | 2, message: string | RegExp): void {
  expect(stderr).toMatch(message);
  expect(stderr).toMatch(/^error: /m);
  expect(stderr).not.toMatch(/^\s+at /m);
  expect({ code, stdout }).toEqual({ code: wanted, stdout: "" });
}

/** A copy of the trained model in a folder of that name, to be damaged. */
function copy(name: string): void {
  cpSync(place.at("run/step-2"), place.at(name), { recursive: true });
}

describe("wrong usage (exit code 2)", () => {
  it.each<[what: string, args: () => string[], message: string]>([
    ["a command", () => ["trian"], "unknown command 'trian'. Did you mean train?"],
    ["a flag", () => training("--sede", "3"), "unknown option '--sede'. Did you mean --seed?"],
    [
      "a flag that another one is missing for",
      () => ["eval", "--chekpoint", "run", "--data", "text.txt"],
      "unknown option '--chekpoint'. Did you mean --checkpoint?",
    ],
    ["no flag at all", () => ["eval"], "required option '--checkpoint <folder>' not specified"],
    ["a preset", () => training("--preset", "tyni"), "--preset tyni: no such preset. Did you mean tiny?"],
    ["a setting", () => training("--set", "dModle=8"), "--set dModle=8: no such setting. Did you mean dModel?"],
    [
      "a dotted setting",
      () => training("--set", "train.step=8"),
      "--set train.step=8: no such setting. Did you mean train.steps?",
    ],
    [
      "a setting of a file",
      () => training("--config", "wrong.yaml"),
      "wrong.yaml: train.stepps: no such setting. Did you mean train.steps?",
    ],
    [
      "a group of a file",
      () => training("--config", "group.yaml"),
      "group.yaml: trian: no such group of settings. Did you mean train?",
    ],
    [
      "a file that is a list",
      () => training("--config", "list.yaml"),
      "list.yaml: expected settings, names with values, but it holds a list",
    ],
    [
      "a flag's value",
      () => training("--steps", "many"),
      "'--steps <n>' argument 'many' is invalid. It must be a whole number of at least 1.",
    ],
    [
      "a choice",
      () => [...scoring("run"), "--batching", "column"],
      "'column' is invalid. Allowed choices are windows, rows.",
    ],
    ["a setting's value", () => training("--set", "lr=-1"), "--set lr=-1: train.lr must be a number of at least 0"],
    [
      "a setting's choice",
      () => training("--set", "schedule=cosin"),
      "train.schedule must be one of constant, linear, cosine, wsd",
    ],
    [
      "a model's value",
      () => training("--set", "dModel=1.5"),
      "--set dModel=1.5: model.dModel is 1.5; it must be a whole number",
    ],
    ["a model's value by its flag", () => training("--variant", "mamba3"), "--variant mamba3: model.variant is"],
    ["an assignment without =", () => training("--set", "dModel"), "--set dModel: expected KEY=VALUE"],
    ["a backend", () => training("--backend", "cud"), "--backend cud: no such backend. Did you mean cuda?"],
    [
      "a number of threads",
      () => training("--threads", "0"),
      "'--threads <n>' argument '0' is invalid. It must be a whole number from 1 to 1024.",
    ],
    [
      "threads of a backend that has none",
      () => [...scoring("run"), "--backend", "reference", "--threads", "2"],
      "--threads 2: the backend reference has no threads; cpu has.",
    ],
    [
      "a kind of data",
      () => ["data", "prepare", "tex", "--from", "text.txt", "--out", "x"],
      "data prepare tex: no such kind of data. Did you mean text?",
    ],
    [
      "a variant to convert to",
      () => ["convert", "--from", "run", "--to", "x", "--variant", "difmamba2"],
      "Did you mean diffmamba2?",
    ],
    [
      "a flag that wants another",
      () => ["convert", "--from", "run", "--to", "x", "--slicing", "semantic"],
      "--slicing wants --variant diffmamba2",
    ],
    [
      "a type of states",
      () => ["generate", "--checkpoint", "run", "--prompt", "a", "--state-dtype", "f8"],
      "'--state-dtype <type>' argument 'f8' is invalid. Allowed choices are f32, bf16, f16",
    ],
    ["a missing --data", () => ["train", "--preset", "tiny", "--out", "never"], "train wants --data"],
    ["an empty prompt", () => ["generate", "--checkpoint", "run", "--prompt", ""], "--prompt: it is empty"],
  ])("%s", async (_, args, message) => {
    expectFailure(await place.here(args()), 2, message);
  });

  it("a number of threads in DIFFMAMBA_THREADS", async () => {
    const outcome = await place.run([...talking("run"), "--backend", "cpu"], { DIFFMAMBA_THREADS: "many" });
    expectFailure(outcome, 2, 'DIFFMAMBA_THREADS is "many"; it must be a whole number from 1 to 1024.');
  });

  it("leaves no run behind", () => {
    expect(existsSync(place.at("never"))).toBe(false);
  });
});

describe("things that are not there (exit code 1)", () => {
  it.each<[what: string, args: string[], message: string]>([
    ["a checkpoint", scoring("nowhere"), "nowhere: no such checkpoint"],
    ["a data file", scoring("run", "nothing.txt"), "nothing.txt: no such file or folder"],
    ["data to train on", ["train", "--data", "nothing.txt", "--out", "n1"], "nothing.txt: no such file or folder"],
    ["a settings file", training("--config", "no.yaml"), "no.yaml: the settings cannot be read: no such file"],
    [
      "a run to go on with",
      ["train", "--resume", "--out", "nowhere"],
      "nowhere: no such folder, so there is nothing to resume",
    ],
    ["a run to report", ["report", "nowhere"], "nowhere: no such folder"],
    ["a model to convert", ["convert", "--from", "nowhere", "--to", "x"], "nowhere: no such checkpoint"],
    ["a tokenizer", [...scoring("run"), "--tokenizer", "no.json"], "no.json"],
  ])("%s", async (_, args, message) => {
    expectFailure(await place.here(args), 1, message);
  });

  it.each([training("--backend", "cuda"), [...talking("run"), "--backend", "cuda"]])("a GPU (%s)", async (...args) => {
    // Whatever this machine has is hidden.
    const outcome = await place.run(args, { CUDA_VISIBLE_DEVICES: "" });
    expectFailure(outcome, 1, /backend cuda does not work here: .+`diffmamba doctor` lists the backends that do/);
  });
});

/** A safetensors file whose header was changed. */
function withHeader(
  file: Buffer,
  change: (header: Record<string, { data_offsets: number[]; shape: number[] }>) => void,
) {
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, 8 + length).toString());
  change(header);
  const text = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([size, text, file.subarray(8 + length)]);
}

/** A zip archive of one stored entry, as far as torch.load would look at it. */
function zipped(name: string, content: Buffer): Buffer {
  const sizes = Buffer.alloc(8);
  sizes.writeUInt32LE(content.length, 0);
  sizes.writeUInt32LE(content.length, 4);
  const start = Buffer.from([0x50, 0x4b, 3, 4, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  const local = Buffer.concat([start, sizes, Buffer.from([name.length, 0, 0, 0]), Buffer.from(name), content]);
  const entry = Buffer.from([0x50, 0x4b, 1, 2, 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  const central = Buffer.concat([entry, sizes, Buffer.from([name.length, 0]), Buffer.alloc(16), Buffer.from(name)]);
  const end = Buffer.alloc(22);
  end.set([0x50, 0x4b, 5, 6, 0, 0, 0, 0, 1, 0, 1, 0]);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(local.length, 16);
  return Buffer.concat([local, central, end]);
}

describe("damaged files (exit code 1)", () => {
  const tensor = "backbone.embeddings.weight";

  it.each(["broken.json", "broken.yaml"])("settings that are not what they say: %s", async (file) => {
    expectFailure(
      await place.here(training("--config", file)),
      1,
      `${file}: this is not ${/json/.test(file) ? "JSON" : "YAML"}`,
    );
  });

  it("a model.safetensors that is cut short", async () => {
    copy("short");
    const file = place.read("short/model.safetensors");
    place.write("short/model.safetensors", file.subarray(0, file.length / 2));
    expectFailure(await place.here(scoring("short")), 1, /short\/model\.safetensors: .*cut short/);
  });

  it("a model.safetensors whose header lies about sizes", async () => {
    copy("lying");
    const file = place.read("lying/model.safetensors");
    place.write(
      "lying/model.safetensors",
      withHeader(file, (header) => {
        header[tensor].data_offsets[1] += 4;
      }),
    );
    expectFailure(await place.here(scoring("lying")), 1, `lying/model.safetensors: tensor "${tensor}": data_offsets`);
    file.writeBigUInt64LE(1n << 60n, 0);
    place.write("lying/model.safetensors", file);
    expectFailure(await place.here(scoring("lying")), 1, /lying\/model\.safetensors: .*header/);
  });

  it("a tensor of another shape than the configuration wants", async () => {
    copy("shaped");
    const config = JSON.parse(place.read("shaped/config.json").toString());
    config.diffmamba_config.dModel *= 2;
    place.write("shaped/config.json", JSON.stringify(config));
    expectFailure(
      await place.here(scoring("shaped")),
      1,
      /shaped\/model\.safetensors: "backbone\.embeddings\.weight" is \(19, 16\), but the model's is \(19, 32\)/,
    );
  });

  it("a config.json that is not JSON", async () => {
    copy("worded");
    place.write("worded/config.json", "model_type: mamba2\n");
    expectFailure(await place.here(talking("worded")), 1, "worded/config.json: line 1, column 1");
  });

  it("a .bin that calls os.system: it is named, and not called", async () => {
    copy("evil");
    rmSync(place.at("evil/model.safetensors"));
    const call = `cos\nsystem\n(S'touch ${place.at("called")}'\ntR.`;
    place.write(
      "evil/pytorch_model.bin",
      zipped("archive/data.pkl", Buffer.concat([Buffer.from([0x80, 2]), Buffer.from(call)])),
    );
    expectFailure(await place.run(scoring("evil")), 1, /evil\/pytorch_model\.bin: .*os\.system/);
    expect(existsSync(place.at("called"))).toBe(false);
  });

  it("an empty data file", async () => {
    expectFailure(
      await place.here(["train", ...smallest, "--data", "empty.txt", "--out", "n2"]),
      1,
      "empty.txt: it is empty",
    );
    expectFailure(await place.here(scoring("run", "empty.txt")), 1, "empty.txt: it is empty");
  });

  it("a text with a character that the model does not know", async () => {
    place.write("foreign.txt", "the state Ω of a space");
    expectFailure(await place.here(scoring("run", "foreign.txt")), 1, /foreign\.txt.*Ω/);
  });

  it("a store with a token outside its vocabulary", async () => {
    cpSync(place.at("run/data"), place.at("store"), { recursive: true });
    place.write("store/train.u8", Buffer.alloc(place.read("store/train.u8").length, 255));
    const message = /store\/train\.u8: token \d+ is 255, outside the vocabulary of \d+/;
    expectFailure(await place.here(["train", ...smallest, "--data", "store", "--out", "n3"]), 1, message);
    expectFailure(await place.here([...scoring("run", "store"), "--split", "train"]), 1, message);
  });

  it("a folder that is no store, and a file of another size than its name says", async () => {
    mkdirSync(place.at("folder"));
    expectFailure(await place.here(scoring("run", "folder")), 1, "folder: a folder without store.json");
    const text8 = ["data", "prepare", "text8", "--from", "text.txt", "--out", "x"];
    expectFailure(await place.here(text8), 1, "text.txt: this is not text8");
  });
});

describe("how failures are shown", () => {
  it("with --json, as one document on stdout beside the message on stderr", async () => {
    const { code, stdout, stderr } = await place.run([...scoring("nowhere"), "--json"]);
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toEqual({ error: { message: expect.stringContaining("nowhere: "), exitCode: 1 } });
    expect(stderr).toMatch(/^error: nowhere: /);
  });

  it("with a stack trace where --debug or DIFFMAMBA_DEBUG asks for it", async () => {
    expect((await place.run(["--debug", ...scoring("nowhere")])).stderr).toMatch(/^\s+at /m);
    expect((await place.run(scoring("nowhere"), { DIFFMAMBA_DEBUG: "1" })).stderr).toMatch(/^\s+at /m);
    expect((await place.run(scoring("nowhere"), { DIFFMAMBA_DEBUG: "0" })).stderr).not.toMatch(/^\s+at /m);
  });
});

const namespaces = spawnSync("unshare", ["-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]).status === 0;

describe("a full disk (needs unshare and tmpfs)", () => {
  /** Runs the command where the folder `disk` has so many bytes, and keeps what it left in `kept`. */
  function onDisk(size: string, args: readonly string[]): Promise<Outcome> {
    for (const name of ["disk", "kept"]) {
      rmSync(place.at(name), { recursive: true, force: true });
      mkdirSync(place.at(name));
    }
    const script = `mount -t tmpfs -o size=${size} tmpfs disk && "$@"; status=$?; cp -r disk/. kept; exit $status`;
    return place.shell("unshare", ["-rm", "sh", "-c", script, "sh", process.execPath, program, ...args]);
  }

  it.skipIf(!namespaces)("names the file and the last good checkpoint, from which the run goes on", async () => {
    const flags = ["--data", "text.txt", "--steps", "40", "--set", "keep=9"];
    const outcome = await onDisk("400k", ["train", ...smallest, ...flags, "--out", "disk/run"]);
    expectFailure(
      outcome,
      1,
      /cannot write disk\/run\/\S+: no space left.* The last good checkpoint is disk\/run\/step-\d+\.$/m,
    );
    expect(await place.json(["train", "--resume", "--out", "kept/run"])).toMatchObject({
      stopped: "finished",
      step: 40,
    });
  });

  it.skipIf(!namespaces)("names the file before there is a checkpoint, and in the other commands", async () => {
    const start = ["train", ...smallest, "--data", "text.txt", "--steps", "2", "--out", "disk/run"];
    expectFailure(await onDisk("16k", start), 1, /disk\/run\/\S+: no space left/);
    expectFailure(
      await onDisk("16k", ["convert", "--from", "run", "--to", "disk/model"]),
      1,
      /disk\/model\S*: no space left/,
    );
    expect(existsSync(place.at("kept/model"))).toBe(false);
    expectFailure(
      await onDisk("8k", ["report", "run", "--out", "disk/report.html"]),
      1,
      /disk\/report\.html\S*: no space left/,
    );
    expect(existsSync(place.at("kept/report.html"))).toBe(false);
  });
});
