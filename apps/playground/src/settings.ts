// Layer: apps/playground. What a run can be told, the sizes to choose from, and how the page's address changes them.
// Knows numbers and names. Knows no page, no device and no model.

export interface RunSettings {
  /** Residual layers. */
  readonly layers: number;
  /** dModel of both models. */
  readonly width: number;
  /** dState: numbers of state a channel. */
  readonly state: number;
  /** headDim of the vanilla mixer; the branches of the differential one have half. */
  readonly headDim: number;
  /** Characters of a sequence. */
  readonly length: number;
  /** Sequences of a step. */
  readonly batch: number;
  readonly steps: number;
  /** Greatest learning rate. */
  readonly rate: number;
  readonly warmup: number;
  /** Steps between two looks at the held-out text. */
  readonly evaluateEvery: number;
  /** Characters of the held-out text that are scored then. */
  readonly evaluateTokens: number;
  readonly sampleEvery: number;
  readonly sampleTokens: number;
  readonly seed: number;
}

export type Size = "tiny" | "small" | "medium" | "large";

const shared = { evaluateTokens: 4096, sampleTokens: 160, seed: 1 };
const paces = {
  quick: { evaluateEvery: 40, sampleEvery: 80 },
  usual: { evaluateEvery: 50, sampleEvery: 100 },
  calm: { evaluateEvery: 100, sampleEvery: 200 },
};

/** Shapes of the models. */
const shapes = {
  tiny: { layers: 1, width: 32, state: 16, headDim: 16, length: 32, batch: 4 },
  small: { layers: 2, width: 64, state: 32, headDim: 32, length: 64, batch: 8 },
  medium: { layers: 4, width: 128, state: 64, headDim: 64, length: 128, batch: 8 },
  large: { layers: 6, width: 256, state: 64, headDim: 64, length: 256, batch: 16 },
};

/** Models to choose from. Many small steps get further in the same time than few large ones: batches are small. */
export const sizes: Readonly<Record<Size, RunSettings>> = {
  tiny: { ...shared, ...shapes.tiny, ...paces.quick, steps: 400, rate: 2e-2, warmup: 10, evaluateTokens: 1024 },
  small: { ...shared, ...shapes.small, ...paces.usual, steps: 800, rate: 1e-2, warmup: 20 },
  medium: { ...shared, ...shapes.medium, ...paces.usual, steps: 1200, rate: 5e-3, warmup: 40 },
  large: { ...shared, ...shapes.large, ...paces.calm, steps: 2000, rate: 3e-3, warmup: 100 },
};

export const sizeNames = Object.keys(sizes) as readonly Size[];

/** The least and the most that a setting may be, and whether it is a whole number. */
export const limits: Readonly<Record<keyof RunSettings, readonly [least: number, most: number, whole: boolean]>> = {
  layers: [1, 48, true],
  width: [16, 1024, true],
  state: [4, 256, true],
  headDim: [4, 128, true],
  length: [8, 2048, true],
  batch: [1, 256, true],
  steps: [1, 1_000_000, true],
  rate: [1e-6, 1, false],
  warmup: [0, 10_000, true],
  evaluateEvery: [1, 10_000, true],
  evaluateTokens: [16, 1_000_000, true],
  sampleEvery: [1, 100_000, true],
  sampleTokens: [1, 2000, true],
  seed: [0, 2 ** 31, true],
};

/** What is wrong with a setting, or undefined. @param called its name for whoever reads that */
export function faultOf(name: keyof RunSettings, value: number, called: string = name): string | undefined {
  const [least, most, whole] = limits[name];
  if (value >= least && value <= most && (!whole || Number.isInteger(value))) return undefined;
  return `${called} is ${value}; it must be a ${whole ? "whole number" : "number"} from ${least} to ${most}.`;
}

/** What is wrong with settings as a whole, or undefined. @param names what settings are called for whoever reads that */
export function faultOfSettings(
  settings: RunSettings,
  names: Readonly<Partial<Record<keyof RunSettings, string>>> = {},
): string | undefined {
  for (const name of Object.keys(settings) as (keyof RunSettings)[]) {
    const fault = faultOf(name, settings[name], names[name]);
    if (fault !== undefined) return fault;
  }
  const { width, headDim } = settings;
  if (headDim % 2 === 0 && (2 * width) % headDim === 0) return undefined;
  return `${names.headDim ?? "headDim"} is ${headDim}; it must be even, and divide twice the width, ${2 * width}.`;
}

/** Settings that the page's address names, as in `?layers=1&width=32`; what it names wrongly is told by `onFault`. */
export function settingsOf(query: URLSearchParams, onFault: (fault: string) => void): Partial<RunSettings> {
  const found: Partial<Record<keyof RunSettings, number>> = {};
  for (const name of Object.keys(limits) as (keyof RunSettings)[]) {
    const text = query.get(name);
    if (text === null) continue;
    const value = Number(text);
    const fault = text.trim() === "" ? `${name} has no value.` : faultOf(name, value);
    if (fault === undefined) found[name] = value;
    else onFault(`In the address: ${fault}`);
  }
  return found;
}

/**
 * The learning rate after so many steps: a straight line up to the peak, then falling with the root of the steps. It does not know
 * where the run ends, so that a run can be made longer without having been another one.
 */
export function rateAt({ rate, warmup }: RunSettings, step: number): number {
  const rise = Math.min(1, (step + 1) / (warmup + 1));
  const slow = 400;
  return rate * rise * Math.sqrt(slow / (slow + Math.max(0, step - warmup)));
}
