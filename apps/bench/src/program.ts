// Layer: apps/bench. The program: from arguments to an exit code, with the result on stdout and all else on stderr.
// Knows arguments, backends and the runner. Knows no process.
import os from "node:os";
import type { Device } from "@diffmamba/tensor";
import { type Arguments, listSuites, parseArguments, usage } from "./arguments.js";
import { defaultBackend, openDevice, openDevices } from "./backends.js";
import { check } from "./check.js";
import { messageOf, UsageError } from "./errors.js";
import type { Settings, Suite } from "./race.js";
import { caseText, type Log, runTasks, type Task } from "./runner.js";
import { rowLine, table } from "./table.js";

/** Where the program writes. */
export interface Output {
  stdout(text: string): void;
  stderr(text: string): void;
}

function settingsOf({ settings, quick }: Suite, { quick: isQuick, set }: Arguments): Settings {
  const own = Object.entries(set).filter(([key]) => key in settings);
  return { ...settings, ...(isQuick && quick), ...Object.fromEntries(own) };
}

function tasksOf(given: Arguments): Task[] {
  const wanted = given.filter.toLowerCase();
  const tasks = given.suites.flatMap((suite) =>
    suite
      .cases(settingsOf(suite, given), given.threads)
      .filter((item) => caseText(item).toLowerCase().includes(wanted))
      .map((item) => ({ suite, case: item })),
  );
  if (tasks.length === 0) throw new UsageError(`--filter ${given.filter}: no case of the suite has that in its name.`);
  return tasks;
}

async function run(given: Arguments, { stdout, stderr }: Output): Promise<number> {
  const tasks = tasksOf(given);
  const line = (text: string) => stderr(`${text}\n`);
  const cpus = os.cpus();
  line(`Node ${process.versions.node}, ${cpus[0]?.model.trim() ?? process.arch}, ${cpus.length} cores`);
  const describe = ({ name, backend }: Device) => line(`backend ${name}: ${backend.device}`);
  // A suite's own backend that does not work here ends the run at once, not each of its cases.
  for (const name of new Set(given.suites.flatMap(({ backend }) => backend ?? []))) {
    await using device = await openDevice(name);
    describe(device);
  }
  const shared = given.suites.some(({ backend }) => backend === undefined);
  const names = given.backends.length > 0 ? given.backends : shared ? [defaultBackend] : [];
  const devices = await openDevices(names);
  try {
    for (const device of devices) describe(device);
    const log: Log = { progress: line, note: line, row: (row) => line(`    ${rowLine(row)}`) };
    const { rows, failures } = await runTasks(tasks, { devices, open: openDevice, log, budget: given.budget });
    stdout(given.json ? `${JSON.stringify(rows)}\n` : table(rows));
    if (failures > 0) stderr(`${failures} ${failures === 1 ? "case or peer" : "cases or peers"} failed\n`);
    return failures > 0 ? 1 : 0;
  } finally {
    for (const device of devices) await device.dispose();
  }
}

/** Runs the command line `bench ARGV`. @returns the exit code: 0, 1 for a failure, 2 for wrong usage */
export async function bench(argv: readonly string[], suites: readonly Suite[], output: Output): Promise<number> {
  try {
    if (argv[0] === "check") return await check(argv.slice(1), output);
    const given = parseArguments(argv, suites);
    if (given.help || given.list) {
      const lines = suites.map(({ name, summary, settings }) => ({ name, summary, settings }));
      const text = given.help ? usage(suites) : listSuites(suites);
      output.stdout(given.json ? `${JSON.stringify(lines)}\n` : text);
      return 0;
    }
    return await run(given, output);
  } catch (error) {
    output.stderr(`error: ${messageOf(error)}\n`);
    return error instanceof UsageError ? 2 : 1;
  }
}
