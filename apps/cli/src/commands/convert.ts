// Layer: apps/cli, commands. `convert`: a model folder into another form, or a vanilla Mamba-2 into a differential one.
import { existsSync } from "node:fs";
import path from "node:path";
import { type FileSystem, joinPath, writeFileAtomic } from "@diffmamba/files";
import { nodeFiles } from "@diffmamba/files/node";
import {
  configName,
  convertToDifferential,
  type LambdaMode,
  lambdaModes,
  MambaLM,
  openCheckpointTensors,
  type Slicing,
  stringifyLooseJson,
  writeConfig,
  writeShardedSafetensors,
} from "@diffmamba/models";
import { type DType, type HostTensor, isFloat, reference } from "@diffmamba/tensor";
import { huggingFaceFile, loadTokenizer, saveTokenizer, tokenizerFile } from "@diffmamba/tokenizer";
import { resolveCheckpoint } from "@diffmamba/train";
import { type Command, Option } from "commander";
import { CommandError, UsageError } from "../errors.js";
import { addJsonOption, wholeNumber } from "../options.js";
import type { Context } from "../program.js";
import { didYouMean } from "../suggest.js";
import type { Terminal } from "../terminal.js";
import { count } from "../text.js";
import { patternValue } from "../training/settings.js";

interface ConvertFlags {
  readonly from: string;
  readonly to: string;
  readonly variant?: string;
  readonly pattern?: string;
  readonly slicing?: Slicing;
  readonly lambda?: LambdaMode;
  readonly seed?: number;
}

/** What a vanilla model can be made into. */
const targets = ["diffmamba2"];

/** Flags that say how a model is made differential. */
const differentialFlags = ["pattern", "slicing", "lambda", "seed"] as const;

function checkFlags(flags: ConvertFlags): void {
  const { variant } = flags;
  if (variant !== undefined && !targets.includes(variant)) {
    throw new UsageError(`--variant ${variant}: nothing is converted to it.${didYouMean(variant, targets, 5)}`);
  }
  const idle = variant === undefined ? differentialFlags.find((name) => flags[name] !== undefined) : undefined;
  if (idle !== undefined) throw new UsageError(`--${idle} wants --variant diffmamba2, the model that it describes.`);
}

/** The type that the weights of a folder have; f32 where they have several. */
async function weightType(files: FileSystem, folder: string): Promise<DType> {
  const tensors = await openCheckpointTensors(files, folder);
  try {
    const types = new Set([...tensors.names].map((name) => tensors.describe(name).dtype).filter(isFloat));
    return types.size === 1 ? ([...types][0] as DType) : "f32";
  } finally {
    await tensors.close();
  }
}

/** Puts the tokenizer of a folder into another, where there is one. */
async function copyTokenizer(files: FileSystem, from: string, to: string): Promise<boolean> {
  const has = [tokenizerFile, huggingFaceFile].some((name) => existsSync(path.join(from, name)));
  if (has) await saveTokenizer(files, to, await loadTokenizer(files, from));
  return has;
}

const typeNames: Readonly<Partial<Record<DType, string>>> = {
  f32: "float32",
  f64: "float64",
  bf16: "bfloat16",
  f16: "float16",
};

/** Writes a differential model made of `parent`; returns its number of parameters. */
async function writeDifferential(
  files: FileSystem,
  parent: MambaLM,
  dtype: DType,
  flags: ConvertFlags,
  folder: string,
) {
  const { pattern = "alternate", slicing = "semantic", lambda, seed = 0 } = flags;
  const { config, tensors } = await convertToDifferential(await parent.stateDict(), parent.config, {
    pattern: patternValue(pattern) as never,
    slicing,
    seed,
    ...(lambda && { lambda }),
  });
  await writeShardedSafetensors(files, folder, tensors);
  const { bos, eos, pad } = parent.tokenIds;
  const ids = { bos_token_id: bos, eos_token_id: eos, pad_token_id: pad };
  const json = { ...writeConfig(config), torch_dtype: typeNames[dtype] ?? "float32", ...ids };
  await writeFileAtomic(files, joinPath(folder, configName), `${stringifyLooseJson(json)}\n`);
  const sizeOf = ({ shape }: HostTensor) => shape.reduce((product, n) => product * n, 1);
  return { config, parameters: [...tensors.values()].reduce((sum, tensor) => sum + sizeOf(tensor), 0) };
}

async function run(terminal: Terminal, flags: ConvertFlags): Promise<void> {
  checkFlags(flags);
  const files = nodeFiles();
  const { to, variant } = flags;
  if (existsSync(to)) throw new CommandError(`${to}: something is already there; choose another folder, or remove it.`);
  const from = await resolveCheckpoint(files, flags.from);
  await using device = reference();
  const dtype = await weightType(files, from);
  using model = await MambaLM.load(files, from, { device, dtype });
  // The folder appears under its name when it is whole.
  const temporary = `${to}.tmp`;
  await files.remove(temporary);
  await files.makeDirectory(temporary);
  try {
    let { config } = model;
    let parameters = model.parameterCount();
    if (variant === undefined) await model.save(files, temporary);
    else ({ config, parameters } = await writeDifferential(files, model, dtype, flags, temporary));
    const tokenizer = await copyTokenizer(files, from, temporary);
    await files.rename(temporary, to);
    terminal.result(
      { from, to, variant: config.variant, pattern: config.pattern, parameters, dtype, tokenizer },
      `${to}: ${config.variant}, ${count(parameters)} parameters in ${dtype}${tokenizer ? "" : "; there was no tokenizer to take along"}`,
    );
  } catch (error) {
    await files.remove(temporary).catch(() => undefined);
    throw error;
  }
}

export function registerConvert(program: Command, context: Context): void {
  const command = program
    .command("convert")
    .summary("a checkpoint into a Hugging Face folder, or a vanilla model into a differential one")
    .description(
      "Reads a model folder (Hugging Face, or the original form of state-spaces; safetensors or .bin) and writes a Hugging Face folder\n" +
        "with safetensors, the weights in the type that they have. With --variant, a vanilla Mamba-2 becomes a differential one.",
    )
    .requiredOption("--from <folder>", "a model folder, a run, or one of its step-N folders")
    .requiredOption("--to <folder>", "where the new folder goes; nothing may be there")
    .option("--variant <name>", `make it differential: ${targets.join(", ")}`)
    .option("--pattern <layers>", "which layers: all, alternate, quarter, or 0,2,5 (default: alternate)")
    .addOption(
      new Option(
        "--slicing <how>",
        "how the branches come from their parent: semantic, or as the released code does it (default: semantic)",
      ).choices(["semantic", "reference"]),
    )
    .addOption(
      new Option("--lambda <mode>", "how lambda comes from its parameter (default: as configured)").choices([
        ...lambdaModes,
      ]),
    )
    .option("--seed <n>", "of the first lambdas (default: 0)", wholeNumber(0));
  addJsonOption(command).action(context.run(run));
}
