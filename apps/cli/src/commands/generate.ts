// Layer: apps/cli, commands. `generate`: text that follows a prompt, as it comes.
import { generate } from "@diffmamba/models";
import type { StateDType } from "@diffmamba/ssm";
import { stopSignals } from "@diffmamba/train/node";
import { type Command, Option } from "commander";
import { chooseDevice, type DeviceFlags, openDevice } from "../backends.js";
import { type CheckpointFlags, openCheckpoint } from "../checkpoint.js";
import { UsageError } from "../errors.js";
import { addBackendOptions, addJsonOption, gather, numberBetween, wholeNumber } from "../options.js";
import type { Context } from "../program.js";
import { precisions } from "../settings/schema.js";
import type { Terminal } from "../terminal.js";

interface GenerateFlags extends CheckpointFlags, DeviceFlags {
  readonly prompt: string;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly stop?: readonly string[];
  readonly seed: number;
  readonly stateDtype?: StateDType;
}

/** The tokens of a prompt; an empty one begins with the token that begins texts, where the vocabulary has one. */
function promptTokens(
  { prompt }: GenerateFlags,
  { tokenizer }: { readonly tokenizer: import("@diffmamba/tokenizer").Tokenizer },
) {
  const ids = tokenizer.encode(prompt);
  if (ids.length > 0) return ids;
  const { bos, eos } = tokenizer.specialTokens;
  const first = bos ?? eos;
  if (first !== undefined) return Int32Array.of(first);
  throw new UsageError(
    "--prompt: it is empty, and this model has no token that begins a text; give at least one character.",
  );
}

async function run(terminal: Terminal, flags: GenerateFlags): Promise<void> {
  using stop = stopSignals();
  await using device = await openDevice(chooseDevice(flags, terminal.note));
  const checkpoint = await openCheckpoint(flags, device);
  using model = checkpoint.model.eval();
  const { tokenizer, folder } = checkpoint;
  const { eos } = tokenizer.specialTokens;
  const { prompt, maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed, stateDtype } = flags;
  const ids: number[] = [];
  let text = "";
  let finished: string | undefined;
  terminal.text(prompt);
  const steps = generate(model, promptTokens(flags, checkpoint), {
    maxTokens,
    temperature,
    ...(topK !== undefined && { topK }),
    ...(topP !== undefined && { topP }),
    ...(minP !== undefined && { minP }),
    ...(repetitionPenalty !== undefined && { repetitionPenalty }),
    ...(stateDtype && { stateDtype }),
    ...(flags.stop && { stop: flags.stop }),
    ...(eos !== undefined && { eos }),
    seed,
    decode: () => tokenizer.stream(),
    signal: stop.signal,
  });
  try {
    for await (const step of steps) {
      ids.push(step.tokens[0]);
      const piece = step.text?.[0] ?? "";
      text += piece;
      finished = step.finished[0];
      terminal.text(piece);
    }
  } catch (error) {
    // Ctrl-C ends the text where it is.
    if (error !== stop.signal.reason) throw error;
    finished = "signal";
    process.exitCode = stop.exitCode;
  }
  terminal.text("\n");
  terminal.result({ prompt, text, tokens: ids.length, seed, ids, finished: finished ?? "length", checkpoint: folder });
}

export function registerGenerate(program: Command, context: Context): void {
  const command = program
    .command("generate")
    .summary("go on with a prompt")
    .description(
      "Writes the prompt and the text that follows it to stdout, as it comes. The same seed gives the same text.",
    )
    .requiredOption("--checkpoint <folder>", "a run, one of its step-N folders, or any Hugging Face model folder")
    .requiredOption("--prompt <text>", "what the text begins with")
    .option("--max-tokens <n>", "new tokens, at most", wholeNumber(1), 256)
    .option("--temperature <t>", "0 takes the most probable token", numberBetween(0), 1)
    .option("--top-k <n>", "draw from the n most probable tokens", wholeNumber(1))
    .option("--top-p <p>", "draw from the most probable tokens of this probability together", numberBetween(0, 1))
    .option("--min-p <p>", "draw from tokens of at least this share of the greatest probability", numberBetween(0, 1))
    .option("--repetition-penalty <x>", "above 1: makes tokens that are there already less probable", numberBetween(0))
    .option("--stop <text>", "ends the text where it appears; may be given more than once", gather)
    .option("--seed <n>", "of what is drawn", wholeNumber(0), 0)
    .option("--tokenizer <path>", "a folder or file with the tokenizer (default: the checkpoint's)");
  command.addOption(
    new Option("--precision <type>", "what the weights are held and computed in (default: f32)").choices(precisions),
  );
  command.addOption(
    new Option(
      "--state-dtype <type>",
      "what the scans' states are kept in between tokens: 16 bits are half of the memory, rounded once a token (default: f32)",
    ).choices(precisions),
  );
  addBackendOptions(command);
  addJsonOption(command).action(context.run(run));
}
