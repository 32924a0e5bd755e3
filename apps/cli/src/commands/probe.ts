// Layer: apps/cli, commands. `probe`: small experiments whose best possible outcome is known.
import { preset as modelPreset } from "@diffmamba/models";
import { stopSignals } from "@diffmamba/train/node";
import { type Command, Option } from "commander";
import { chooseDevice, type DeviceFlags, openDevice } from "../backends.js";
import { addBackendOptions, addJsonOption, numberBetween, wholeNumber } from "../options.js";
import { markovProbe } from "../probes/markov.js";
import type { Context } from "../program.js";
import { showSteps } from "../progress.js";
import { stoppedError } from "../stopped.js";
import type { Terminal } from "../terminal.js";
import { count } from "../text.js";

interface MarkovFlags extends DeviceFlags {
  readonly variant: string;
  readonly order: number;
  readonly symbols: number;
  readonly length: number;
  readonly batchSize: number;
  readonly steps: number;
  readonly lr: number;
  readonly conv: number;
  readonly seed: number;
}

async function markov(terminal: Terminal, flags: MarkovFlags): Promise<void> {
  const { variant, conv, order, symbols, length, batchSize, steps, lr, seed } = flags;
  using stop = stopSignals();
  await using device = await openDevice(chooseDevice(flags, terminal.note));
  const progress = showSteps(terminal, "training");
  const config = { ...modelPreset(`markov-${variant}`), dConv: conv };
  const task = { order, symbols, length, batchSize, steps, lr, seed };
  try {
    const onStep = (step: number) => progress.show({ step, steps });
    const result = await markovProbe({ ...task, config, device, signal: stop.signal, onStep });
    terminal.result(
      { probe: "markov", variant, conv, ...task, backend: device.name, ...result },
      [
        `parameters   ${count(result.parameters)}`,
        `model        ${result.loss.toFixed(4)} nats a symbol`,
        `add-one rule ${result.oracle.toFixed(4)} nats, the least there is`,
        `gap          ${result.gap.toFixed(4)} nats`,
      ].join("\n"),
    );
  } catch (error) {
    throw stoppedError(error, stop, "nothing was measured");
  } finally {
    progress.end();
  }
}

export function registerProbe(program: Command, context: Context): void {
  const probe = program.command("probe").summary("small experiments whose best outcome is known");
  const command = probe
    .command("markov")
    .summary("learn to read Markov chains in context")
    .description(
      "Trains one small layer on random Markov chains, each row a chain of its own, and compares its loss on other chains with that\n" +
        "of the add-one rule, the least that any model can have.",
    )
    .addOption(new Option("--variant <name>", "which layer").choices(["mamba2", "diffmamba2"]).default("diffmamba2"))
    .option("--order <n>", "symbols that the next one depends on", wholeNumber(0, 16), 1)
    .option("--symbols <n>", "symbols", wholeNumber(2, 1000), 2)
    .option("--length <n>", "symbols of a row", wholeNumber(1), 128)
    .option("--batch-size <n>", "rows of a step", wholeNumber(1), 32)
    .option("--steps <n>", "steps", wholeNumber(1), 600)
    .option("--lr <rate>", "highest learning rate", numberBetween(0), 1e-2)
    .option("--conv <n>", "taps of the convolution; 1 for none", wholeNumber(1, 64), 4)
    .option("--seed <n>", "of weights and chains", wholeNumber(0), 0);
  addBackendOptions(command);
  addJsonOption(command).action(context.run(markov));
}
