// Layer: datasets. bAbI (Weston et al. 2015), v1.2: its stories and questions, from the published archive or a folder, and their texts in the
// form in which the paper trains on them.
import { baseName, type FileSystem, joinPath } from "@diffmamba/files";
import { tarFiles } from "./archives.js";
import { fileSource, memorySource } from "./byte-source.js";
import { linesOf, type TextSource } from "./text-source.js";
import { StoreError } from "./token-source.js";

/** A question about a story. */
export interface BabiSample {
  /** 1 to 20. */
  readonly task: number;
  /** The sentences of the story up to the question. */
  readonly facts: readonly string[];
  readonly question: string;
  readonly answer: string;
  /** Which of the facts answer it, from 0. */
  readonly support: readonly number[];
}

export const babiTasks = 20;

/** The folder of the archive: 1,000 questions a task and split, 10,000 to train on, or with a valid split. */
export const babiVariants = ["en", "en-10k", "en-valid", "en-valid-10k"] as const;
export type BabiVariant = (typeof babiVariants)[number];

/**
 * The samples of a file of bAbI.
 * @throws StoreError naming the line that is not of its form
 */
export async function* babiSamples(source: ReturnType<typeof memorySource>, task: number): AsyncGenerator<BabiSample> {
  let facts: string[] = [];
  /** The fact of each line number. */
  let places = new Map<number, number>();
  let number = 0;
  for await (const line of linesOf(source)) {
    number++;
    if (line.trim() === "") continue;
    const match = /^(\d+) (.*)$/.exec(line);
    if (match === null)
      throw new StoreError(
        source.name,
        `line ${number} does not begin with its number: ${JSON.stringify(line.slice(0, 60))}`,
      );
    const id = Number(match[1]);
    if (id === 1) [facts, places] = [[], new Map()];
    const [text, answer, support] = (match[2] as string).split("\t").map((part) => part.trim()) as [
      string,
      string?,
      string?,
    ];
    if (answer === undefined) {
      places.set(id, facts.length);
      facts.push(text);
      continue;
    }
    const supporting = (support ?? "")
      .split(" ")
      .filter((part) => part !== "")
      .map((part) => places.get(Number(part)));
    if (supporting.includes(undefined)) {
      throw new StoreError(
        source.name,
        `line ${number} is supported by line ${support}, which is no sentence of its story`,
      );
    }
    yield { task, facts: [...facts], question: text, answer, support: supporting as number[] };
  }
}

/** A sample as text: the form of the fine-tuning of arXiv 2507.06204 (its code, finetune_needle.py). */
export function babiText({ facts, question, answer }: BabiSample): string {
  return `<context> \n${facts.join(" ")}\n</context>\n\nQuestion: ${question} Answer: ${answer}`;
}

interface BabiFile {
  readonly variant: string;
  readonly task: number;
  readonly split: "train" | "valid" | "test";
  readonly path: string;
  readonly content?: Uint8Array;
}

/** `…/en/qa1_single-supporting-fact_train.txt` */
function parsePath(path: string, content?: Uint8Array): BabiFile | undefined {
  const match = /(?:^|\/)([\w-]+)\/qa(\d+)(?:_[\w-]+?)?_(train|valid|test)\.txt$/.exec(path);
  if (match === null) return undefined;
  const [, variant = "", task, split] = match;
  return { variant, task: Number(task), split: split as BabiFile["split"], path, ...(content && { content }) };
}

async function* babiFiles(files: FileSystem, from: string): AsyncGenerator<BabiFile> {
  if ((await files.stat(from))?.kind !== "directory") {
    for await (const { name, content } of tarFiles(fileSource(files, from))) {
      const file = parsePath(name, content);
      if (file !== undefined) yield file;
    }
    return;
  }
  for (const { name, kind } of await files.list(from)) {
    const path = joinPath(from, name);
    if (kind === "directory") yield* babiFiles(files, path);
    else {
      const file = parsePath(path);
      if (file !== undefined) yield file;
    }
  }
}

export interface BabiOptions {
  readonly variant?: BabiVariant;
  /** Tasks, from 1; all 20 unless told. */
  readonly tasks?: readonly number[];
}

/**
 * The samples of each split of bAbI as documents, task by task.
 * @param from the archive (`.tar`, perhaps packed) or a folder
 * @throws StoreError naming the task and split that is missing
 */
export async function babiSources(
  files: FileSystem,
  from: string,
  { variant = "en", tasks = Array.from({ length: babiTasks }, (_, i) => i + 1) }: BabiOptions = {},
): Promise<Readonly<Record<string, TextSource>>> {
  const found = new Map<string, BabiFile>();
  for await (const file of babiFiles(files, from)) {
    if (file.variant === variant && tasks.includes(file.task)) found.set(`${file.split} ${file.task}`, file);
  }
  const names = variant.startsWith("en-valid") ? (["train", "valid", "test"] as const) : (["train", "test"] as const);
  const missing = names
    .flatMap((split) => tasks.map((task) => ({ split, task })))
    .filter(({ split, task }) => !found.has(`${split} ${task}`));
  if (missing.length > 0) {
    const list = missing.slice(0, 6).map(({ split, task }) => `qa${task} (${split})`);
    throw new StoreError(
      from,
      `this is not all of bAbI's "${variant}": it lacks ${list.join(", ")}${missing.length > 6 ? ", ..." : ""}`,
    );
  }
  const sourceOf = ({ path, content, task }: BabiFile): TextSource => ({
    name: `${baseName(from)}/${path}`,
    async *parts() {
      const source = content === undefined ? fileSource(files, path) : memorySource(path, content);
      for await (const sample of babiSamples(source, task)) yield { text: babiText(sample), ends: true };
    },
  });
  return Object.fromEntries(
    names.map((split) => {
      const parts = tasks.map((task) => sourceOf(found.get(`${split} ${task}`) as BabiFile));
      const name = `${from} (${variant}, ${split})`;
      return [
        split,
        {
          name,
          parts: async function* () {
            for (const part of parts) yield* part.parts();
          },
        },
      ];
    }),
  );
}
