// Layer: apps/cli, settings. Presets: settings under a name, to begin from. The paper's models are those of @diffmamba/models; how they
// are trained is here, from arXiv 2507.06204, appendix A, and from its released code where the two differ. Knows setting names and
// model presets by name. Knows no file.
import { preset as modelPreset, presetNames as modelPresetNames } from "@diffmamba/models";
import { UsageError } from "../errors.js";
import { didYouMean } from "../suggest.js";
import type { SettingsSource } from "./resolve.js";

type Group = { readonly [setting: string]: unknown };

export interface Preset {
  /** What it is for, in a line. */
  readonly about: string;
  readonly model: Group;
  readonly data: Group;
  readonly train: Group;
}

/** What a reference backend trains in seconds or minutes. */
const small = { dState: 16, headDim: 16, chunkSize: 16, lambda: "scalar" };

const tiny: Preset = {
  about: "a differential Mamba-2 of two layers: 200 steps in seconds on any backend",
  model: { ...small, variant: "diffmamba2", dModel: 32, nLayers: 2 },
  data: { tokenizer: "bytes", valid: 0.1 },
  train: {
    steps: 200,
    batchSize: 4,
    length: 32,
    // No decay, so that a run may be made longer afterwards.
    schedule: "constant",
    lr: 5e-3,
    warmup: 10,
    evalEvery: 100,
    evalTokens: 2048,
    saveEvery: 50,
    sampleTokens: 48,
  },
};

/** Two of equal width and state, side by side: what the demo trains on the reference backend. */
const smallDemo = (variant: string): Preset => ({
  about: `${variant} of the demo on the reference backend: two layers of width 48 on the characters of a text`,
  model: { ...small, variant, dModel: 48, nLayers: 2 },
  data: { tokenizer: "characters", valid: 0.1 },
  train: {
    steps: 600,
    batchSize: 4,
    length: 64,
    lr: 2e-2,
    warmup: 20,
    lrFloor: 0.05,
    evalEvery: 100,
    evalTokens: 16_384,
    saveEvery: 300,
    sampleTokens: 300,
    samplePrompt: "interface ",
  },
});

/**
 * The same on a backend that is fast: a dozen times the parameters. Measured in equal time: many small steps get further than few
 * large ones, wider models with fewer steps no further, and rates from 3e-3 to 8e-3 end within 0.03 bits of each other.
 */
const demo = (variant: string): Preset => {
  const { data, train } = smallDemo(variant);
  return {
    about: `${variant} of the demo: four layers of width 128 on the characters of a text`,
    model: { variant, dModel: 128, nLayers: 4, dState: 64, headDim: 64, chunkSize: 64, lambda: "scalar" },
    data,
    train: {
      ...train,
      steps: 600,
      length: 128,
      lr: 5e-3,
      warmup: 40,
      evalEvery: 150,
      saveEvery: 300,
      sampleTokens: 400,
      samplePrompt: "interface Mamba {\n    ",
      sampleTemperature: 0.6,
    },
  };
};

interface PaperRun {
  readonly batchSize: number;
  readonly lr: number;
  /** Of 40 epochs; the paper's seeds are 0, 42 and 77. */
  readonly steps: number;
  readonly tokenizer: string;
}

/** The paper's small language models, by data set and blocks: post-norm, blocks of two mixers and a feed-forward. */
const paperRuns: Readonly<Record<string, PaperRun>> = {
  "text8-6": { batchSize: 170, lr: 5e-4, steps: 41_400, tokenizer: "text8" },
  "text8-12": { batchSize: 50, lr: 5e-5, steps: 140_640, tokenizer: "text8" },
  "enwik8-6": { batchSize: 170, lr: 5e-4, steps: 40_920, tokenizer: "bytes" },
  "enwik8-12": { batchSize: 80, lr: 1e-4, steps: 86_920, tokenizer: "bytes" },
  "wt103-6": { batchSize: 100, lr: 5e-4, steps: 80_680, tokenizer: "words" },
  "wt103-12": { batchSize: 50, lr: 5e-4, steps: 161_320, tokenizer: "words" },
};

/** The paper's names of what is trained, by the endings of the presets. */
const paperKinds = { mamba2: "Mamba-2", diffmamba2: "Diff-Mamba-2", control: "control without lambda" } as const;

/** A model of @diffmamba/models as settings. */
const modelGroup = (name: string): Group => ({ ...modelPreset(name) });

/** How the paper trains its small models; the schedule is much longer than the runs, so that the rate hardly falls. */
function paperTraining({ tokenizer: _, ...run }: PaperRun): Group {
  return {
    ...run,
    length: 512,
    schedule: "cosine",
    warmup: 1000,
    scheduleSteps: 800_000,
    lrFloor: 0,
    weightDecay: 0.1,
    decayRule: "backbone",
    decayEmbeddings: true,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    clip: 0,
    evalEvery: 1000,
    saveEvery: 1000,
  };
}

function paperPreset(run: string, model: string, about: string): Preset {
  // The vocabulary is that of the data: 27 letters, the bytes or the words that are there.
  const { vocabSize: _, ...fields } = modelGroup(model);
  const { tokenizer } = paperRuns[run];
  return { about, model: fields, data: { order: "rows", tokenizer }, train: paperTraining(paperRuns[run]) };
}

function paperPresets(): Record<string, Preset> {
  const all: Record<string, Preset> = {};
  for (const run of Object.keys(paperRuns)) {
    const [data, blocks] = run.split("-");
    for (const [kind, name] of Object.entries(paperKinds)) {
      const about = `the paper's ${name} of ${blocks} blocks on ${data}`;
      all[kind === "mamba2" ? run : `${run}-${kind}`] = paperPreset(run, `${run}-${kind}`, about);
    }
  }
  return all;
}

/** The rows of the paper's table 2: text8 with 6 blocks, in 15,000 steps, of which the table shows the tenth epoch (step 10,350). */
function ablationPresets(): Record<string, Preset> {
  const names = modelPresetNames.filter((name) => name.startsWith("table2-"));
  return Object.fromEntries(
    names.map((name) => {
      const preset = paperPreset("text8-6", name, `a row of the paper's table 2: ${name.slice("table2-".length)}`);
      return [name, { ...preset, train: { ...preset.train, steps: 15_000 } }];
    }),
  );
}

/** The 370M models of the Pile; what the paper leaves open (betas, clipping, the floor) is Mamba's own recipe. */
const pile = (about: string, name: string): Preset => ({
  about,
  model: modelGroup(name),
  data: { valid: 0.001 },
  train: {
    steps: 47_684,
    batchSize: 8,
    accumulate: 64,
    length: 2048,
    lr: 1.5e-3,
    warmup: 10_000,
    lrFloor: 1e-5 / 1.5e-3,
    weightDecay: 0.1,
    beta2: 0.95,
    clip: 1,
    evalEvery: 1000,
    evalTokens: 1_048_576,
    saveEvery: 1000,
  },
});

export const presets: Readonly<Record<string, Preset>> = {
  tiny,
  "demo-mamba2": demo("mamba2"),
  "demo-diffmamba2": demo("diffmamba2"),
  "demo-mamba2-small": smallDemo("mamba2"),
  "demo-diffmamba2-small": smallDemo("diffmamba2"),
  ...paperPresets(),
  ...ablationPresets(),
  "mamba2-370m": pile("Mamba-2 of 370M parameters", "mamba2-370m"),
  "diffmamba2-370m": pile("Diff-Mamba-2 of 370M, every other layer differential (the paper's)", "diffmamba2-370m"),
  "diffmamba2-370m-full": pile("Diff-Mamba-2 of 370M, every layer differential", "diffmamba2-370m-full"),
  "diffmamba2-370m-control": pile("its control without lambda, every other layer", "diffmamba2-370m-control"),
  "diffmamba2-370m-full-control": pile("its control without lambda, every layer", "diffmamba2-370m-full-control"),
};

export const presetNames: readonly string[] = Object.keys(presets);

/** The settings of a preset. @throws UsageError naming the nearest one */
export function presetSource(name: string): SettingsSource {
  if (!presetNames.includes(name)) {
    const hint = didYouMean(name, presetNames);
    throw new UsageError(`--preset ${name}: no such preset.${hint || ` There are ${presetNames.join(", ")}.`}`);
  }
  const { about: _, ...groups } = presets[name];
  return { label: (key) => `preset ${name}: ${key}`, values: groups };
}
