// Layer: apps/cli, commands. `train`: a run from its first line to its last checkpoint, or the rest of one.
import process from "node:process";
import type { Command } from "commander";
import { addBackendOptions, addJsonOption, gather, wholeNumber } from "../options.js";
import type { Context } from "../program.js";
import { presetNames } from "../settings/presets.js";
import { precisions } from "../settings/schema.js";
import type { Terminal } from "../terminal.js";
import { count } from "../text.js";
import { type TrainOutcome, train } from "../training/run.js";
import { planRun, type TrainFlags } from "../training/settings.js";

function summary({ folder, result, evaluation }: TrainOutcome): string {
  if (result.stopped === "signal") {
    const saved = result.checkpoint === undefined ? "nothing was saved yet" : `saved ${result.checkpoint}`;
    return `${saved}; go on with: diffmamba train --resume --out ${folder}`;
  }
  const scores = evaluation && [
    `held-out loss ${evaluation.loss.toFixed(4)} nats a token`,
    ...(evaluation.bpb === undefined ? [] : [`${evaluation.bpb.toFixed(4)} bits a byte`]),
  ];
  return [`${count(result.step)} steps, saved ${result.checkpoint}`, ...(scores ?? [])].join("; ");
}

async function run(terminal: Terminal, version: string, flags: TrainFlags): Promise<void> {
  const outcome = await train(terminal, flags.out, await planRun(flags), version);
  const { result, evaluation, initial, folder, parameters, vocabSize } = outcome;
  terminal.result(
    { folder, parameters, vocabSize, ...result, ...(initial && { initial }), ...(evaluation && { evaluation }) },
    summary(outcome),
  );
  if (outcome.exitCode !== undefined) process.exitCode = outcome.exitCode;
}

export function registerTrain(program: Command, context: Context): void {
  const command = program
    .command("train")
    .summary("train a model, or go on with a run")
    .description(
      "Trains a model. Settings come from a preset, a settings file and --set, merged in this order. The folder holds the run: its\n" +
        "record, metrics.jsonl, and checkpoints step-N that are Hugging Face model folders. Ctrl-C saves and stops.",
    )
    .option("--preset <name>", `settings to begin with: ${presetNames.join(", ")}`)
    .option("--config <file>", "settings, as JSON or YAML")
    .option("--data <data>", "a text file, a token store, or a name in the folder DIFFMAMBA_DATA")
    .requiredOption("--out <folder>", "the run's folder")
    .option("--resume", "go on with the run in the folder; the settings are those it began with")
    .option("--steps <n>", "steps altogether", wholeNumber(1))
    .option("--seed <n>", "of weights, dropout and data order", wholeNumber(0))
    .option("--variant <name>", "mamba, mamba2, diffmamba, diffmamba2, diffs6, diffs6mamba2, diffmamba2e")
    .option("--lambda <mode>", "vecsum, scalar, channel or none")
    .option("--pattern <layers>", "which layers are differential: all, alternate, quarter, none, or 0,2,5")
    .option("--tokenizer <name>", "bytes, characters, text8, or a folder or file with a tokenizer")
    .option(
      "--precision <type>",
      `what is computed in, beside masters and an optimizer of f32: ${precisions.join(", ")}`,
    )
    .option("--checkpoint-activations", "hold less for the gradients and compute it again: less memory, the same bits")
    .option(
      "--set <key=value>",
      "any setting, such as model.dModel=256 or dModel=256; may be given more than once",
      gather,
    );
  addBackendOptions(command);
  addJsonOption(command).action(context.run((terminal, flags: TrainFlags) => run(terminal, context.version, flags)));
}
