// Layer: apps/bench, peers. PyTorch on the same GPU, by a short script of its own (peers/pytorch.py), where DIFFMAMBA_PYTHON names a Python
// that has it. The script times by itself, so that its figures are those of a PyTorch program; it says what it used.
// Knows a process and lines of JSON. Knows no op.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Entry, Peer } from "../race.js";

/** Beside the package's sources, or beside a bundle's. */
const places = ["../../peers/pytorch.py", "../peers/pytorch.py"].map((at) =>
  fileURLToPath(new URL(at, import.meta.url)),
);
const script = places.find((place) => existsSync(place)) ?? places[0];

/** What the script prints for one case. */
interface Answer {
  /** Milliseconds of one run; of one token, for generation. */
  readonly ms: number;
  /** "torch 2.11 + mamba_ssm 2.3.2" */
  readonly with: string;
  /** Tokens of one run, for training. */
  readonly tokens?: number;
}

function ask(python: string, name: string, shape: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const child = spawn(python, [script, name, shape], { stdio: ["ignore", "pipe", "pipe"] });
    let out = "";
    let err = "";
    child.stdout.on("data", (chunk) => {
      out += chunk;
    });
    child.stderr.on("data", (chunk) => {
      err = (err + chunk).slice(-2000);
    });
    child.on("error", reject);
    child.on("close", (code) => {
      const last = out.trim().split("\n").at(-1) ?? "";
      if (code !== 0) reject(new Error(err.trim().split("\n").at(-1) || `the script ended with ${code}`));
      else resolve(JSON.parse(last) as Answer);
    });
  });
}

/**
 * The case of the suite `cuda` with this name and shape, where DIFFMAMBA_PYTHON is set. Its figure is the script's: nothing runs while
 * ours is timed.
 */
export function pytorchPeers(name: string, shape: string): readonly Peer[] {
  const python = process.env.DIFFMAMBA_PYTHON;
  if (python === undefined) return [];
  const open = async (): Promise<Entry> => {
    const { ms, with: parts, tokens = 0 } = await ask(python, name, shape);
    const seconds = ms / 1e3;
    return {
      name: parts,
      backend: null,
      work: { ms: 1, "ms/token": 1, ...(tokens > 0 && { "tokens/s": tokens }) },
      measured: { median: seconds, min: seconds, spread: 0, samples: 1 },
      run: () => undefined,
    };
  };
  return [{ name: `PyTorch, ${name}`, open }];
}
