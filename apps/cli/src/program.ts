// Layer: apps/cli. The command tree and how a command is run: streams, exit codes, and errors without stack traces.
// Knows the commands by their files. Knows nothing of what they do.
import { createRequire } from "node:module";
import process from "node:process";
import { Command, type CommanderError } from "commander";
import { exitCodeOf, exitCodes, formatError, messageOf } from "./errors.js";
import { didYouMean } from "./suggest.js";
import { openTerminal, type Terminal, toJson } from "./terminal.js";

export interface Context {
  readonly version: string;
  /** Makes an action of a command: `work` gets the streams, the command's arguments and, last, its options. */
  run<Args extends readonly unknown[]>(
    work: (terminal: Terminal, ...args: Args) => Promise<void>,
  ): (...args: Args) => Promise<void>;
}

const { version } = createRequire(import.meta.url)("../package.json") as { version: string };

/** What Commander says, without the prefix and the brackets that it puts around. */
function tidy({ message }: CommanderError): string {
  return message.replace(/^error: /, "").replace(/\n\((.*)\)$/, ". $1");
}

/**
 * What is wrong with a command line, in a sentence. A flag that is missing may be one that is misspelt: the misspelt one is named then,
 * which Commander would only do once nothing is missing.
 */
function complaint(program: Command, args: readonly string[], error: CommanderError): string {
  if (error.code !== "commander.missingMandatoryOptionValue") return tidy(error);
  let command = program;
  for (const arg of args) command = command.commands.find((sub) => sub.name() === arg) ?? command;
  const known = [...command.options, ...program.options].flatMap(({ long }) => (long ? [long] : [])).concat("--help");
  const unknown = args.map((arg) => arg.split("=")[0]).find((arg) => /^--[a-z]/.test(arg) && !known.includes(arg));
  return unknown === undefined ? tidy(error) : `unknown option '${unknown}'.${didYouMean(unknown, known)}`;
}

type Register = (program: Command, context: Context) => void;

/** The commands, in the order of the help. Each is loaded when it is asked for: loading all takes longer than most of them do. */
const commands: Readonly<Record<string, () => Promise<Register>>> = {
  train: async () => (await import("./commands/train.js")).registerTrain,
  eval: async () => (await import("./commands/eval.js")).registerEval,
  generate: async () => (await import("./commands/generate.js")).registerGenerate,
  convert: async () => (await import("./commands/convert.js")).registerConvert,
  data: async () => (await import("./commands/data.js")).registerData,
  tokenizer: async () => (await import("./commands/tokenizer.js")).registerTokenizer,
  probe: async () => (await import("./commands/probe.js")).registerProbe,
  report: async () => (await import("./commands/report.js")).registerReport,
  doctor: async () => (await import("./commands/doctor.js")).registerDoctor,
};

/** The program with the command that a command line names, or with all of them where it names none that there is. */
async function createProgram(args: readonly string[], json: boolean): Promise<Command> {
  const context: Context = {
    version,
    run:
      (work) =>
      (...args) =>
        work(openTerminal(json), ...args),
  };
  const program = new Command("diffmamba")
    .description("Train, evaluate and run Mamba, Mamba-2 and Differential Mamba language models.")
    .version(version)
    .option("--debug", "show stack traces of errors (also: DIFFMAMBA_DEBUG=1)")
    .exitOverride()
    .configureOutput({ outputError: () => undefined, ...(json && { writeOut: (text) => process.stderr.write(text) }) });
  const name = args.find((arg) => !arg.startsWith("-")) ?? "";
  const wanted = Object.hasOwn(commands, name) ? [commands[name]] : Object.values(commands);
  for (const load of wanted) (await load())(program, context);
  return program;
}

/**
 * Runs a command line.
 * @returns the exit code: 0, 1 for a failure, 2 for wrong usage
 */
export async function main(args: readonly string[]): Promise<number> {
  const end = args.indexOf("--");
  const flags = end < 0 ? args : args.slice(0, end);
  const json = flags.includes("--json");
  const debug = flags.includes("--debug") || !["", "0", undefined].includes(process.env.DIFFMAMBA_DEBUG);
  // A reader that has gone away (`diffmamba … | head`) is no failure.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));
  const program = await createProgram(flags, json);
  try {
    await program.parseAsync([...args], { from: "user" });
    return exitCodes.ok;
  } catch (error) {
    const code = exitCodeOf(error);
    if (code === exitCodes.ok) return code;
    const isCommander = error instanceof Error && error.name === "CommanderError";
    const message = isCommander ? complaint(program, flags, error as CommanderError) : messageOf(error);
    const shown = isCommander && !debug ? `error: ${message}\n` : formatError(error, debug);
    const isHelp = isCommander && (error as CommanderError).code === "commander.help";
    if (!isHelp) process.stderr.write(shown);
    if (json) process.stdout.write(toJson({ error: { message, exitCode: code } }));
    return code;
  }
}
