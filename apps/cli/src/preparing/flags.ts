// Layer: apps/cli, preparing. What `data prepare` is told, and which of it goes with which kind of data. Prepares nothing.
import { existsSync } from "node:fs";
import { corpora, dataSets } from "@diffmamba/datasets";
import { UsageError } from "../errors.js";
import { didYouMean } from "../suggest.js";

export interface PrepareFlags {
  readonly from?: string;
  readonly out: string;
  readonly tokenizer?: string;
  readonly newline?: "keep" | "drop";
  readonly valid?: number;
  readonly test?: number;
  readonly splitSeed?: number;
  readonly strip?: boolean;
  readonly name?: string;
  readonly level?: "words" | "raw";
  readonly eos?: "standard" | "doubled";
  readonly variant?: string;
  readonly tasks?: readonly number[];
  readonly field?: string;
  readonly config?: string;
  readonly revision?: string;
  readonly splits?: readonly string[];
  readonly downloads?: string;
  readonly threads?: number;
  readonly shardTokens?: number;
  readonly overwrite?: boolean;
}

/** What is prepared: a data set by its name, a text or bytes, or a data set on the hub. */
export type Kind = "set" | "wikitext-103" | "pg19" | "babi" | "text" | "bytes" | "hub";

export interface Wanted {
  readonly kind: Kind;
  /** The name as it was given; for a path "text". */
  readonly name: string;
  /** `--from`, or the path that was given in place of a name. */
  readonly from: string | undefined;
}

export const hubPrefix = "hf:";
const named = [...Object.keys(dataSets), ...Object.keys(corpora)];
export const kindNames = [...named, "text", "bytes"];

const always = ["from", "out", "downloads", "threads", "shardTokens", "overwrite"] as const;

/** The flags of each kind besides those of all. */
const allowed: Readonly<Record<Kind, readonly (keyof PrepareFlags)[]>> = {
  set: ["newline"],
  "wikitext-103": ["level", "eos", "tokenizer"],
  pg19: ["tokenizer"],
  babi: ["tokenizer", "variant", "tasks"],
  text: ["tokenizer", "valid", "test", "splitSeed", "strip", "name", "field"],
  bytes: ["newline", "valid", "test", "strip", "name"],
  hub: ["tokenizer", "valid", "test", "splitSeed", "name", "field", "config", "revision", "splits"],
};

const flagOf = (name: string): string => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

function kindOf(what: string): Kind | undefined {
  if (Object.hasOwn(dataSets, what)) return "set";
  if (Object.hasOwn(corpora, what)) return what as Kind;
  if (what === "text" || what === "bytes") return what;
  if (what.startsWith(hubPrefix)) return "hub";
  return existsSync(what) ? "text" : undefined;
}

/** @throws UsageError for a kind that there is not, or a flag that does not go with it */
export function checkFlags(what: string, flags: PrepareFlags): Wanted {
  const kind = kindOf(what);
  if (kind === undefined) {
    throw new UsageError(`data prepare ${what}: no such kind of data.${didYouMean(what, kindNames, 9)}`);
  }
  const fits: readonly string[] = [...always, ...allowed[kind]];
  const wrong = Object.entries(flags).find(
    ([name, value]) => value !== undefined && name !== "json" && !fits.includes(name),
  );
  const path = kind === "text" && what !== "text";
  if (wrong !== undefined)
    throw new UsageError(`${flagOf(wrong[0])} does not go with data prepare ${path ? "text" : what}.`);
  if (flags.newline !== undefined && kind === "set" && dataSets[what]?.symbols !== "bytes") {
    throw new UsageError(`--newline does not go with data prepare ${what}.`);
  }
  if (path && flags.from !== undefined)
    throw new UsageError(`data prepare ${what}: --from names the data a second time.`);
  if ((what === "text" || what === "bytes") && flags.from === undefined) {
    throw new UsageError(`data prepare ${what} wants --from, a file${what === "text" ? " or a folder" : ""}.`);
  }
  if (kind === "wikitext-103" && flags.level !== "raw" && flags.tokenizer !== undefined) {
    throw new UsageError("--tokenizer wants --level raw: words have the vocabulary of the train split.");
  }
  if (kind === "wikitext-103" && flags.level === "raw" && flags.eos !== undefined) {
    throw new UsageError("--eos wants --level words.");
  }
  return { kind, name: path ? "text" : what, from: path ? what : flags.from };
}
