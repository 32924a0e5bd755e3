// Layer: apps/cli. The two streams: results on stdout, everything else on stderr; with --json stdout holds one JSON document and
// nothing else. Knows no command.
import process from "node:process";
import pc from "picocolors";

export interface Terminal {
  readonly json: boolean;
  /** Colours for stderr. */
  readonly colors: ReturnType<typeof pc.createColors>;
  /** Whether stderr is a terminal that can redraw a line. */
  readonly interactive: boolean;
  /** A line for the user beside the result, on stderr. */
  note(line: string): void;
  /** A part of the result as text, on stdout; nothing with --json. */
  text(part: string): void;
  /** The result: with --json the one document on stdout, else `lines`. Called once. */
  result(document: object, lines?: string): void;
}

/** JSON for other programs: numbers that JSON lacks become null. */
export function toJson(document: object): string {
  return `${JSON.stringify(document)}\n`;
}

export function openTerminal(json: boolean): Terminal {
  const interactive = process.stderr.isTTY === true;
  return {
    json,
    colors: pc.createColors(pc.isColorSupported && interactive),
    interactive,
    note(line) {
      process.stderr.write(`${line}\n`);
    },
    text(part) {
      if (!json) process.stdout.write(part);
    },
    result(document, lines = "") {
      if (json) process.stdout.write(toJson(document));
      else if (lines !== "") process.stdout.write(lines.endsWith("\n") ? lines : `${lines}\n`);
    },
  };
}
