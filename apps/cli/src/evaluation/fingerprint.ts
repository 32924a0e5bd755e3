// Layer: apps/cli, evaluation. What tells a model from every other, and which code measured it. Knows files and git.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream, readdirSync } from "node:fs";
import path from "node:path";
import type { Tokenizer } from "@diffmamba/tokenizer";

/** Files of a model folder that say what it computes. */
const modelFiles = /^(config\.json|(model|pytorch_model).*\.(safetensors|bin|json))$/;

/** SHA-256 over a model's configuration and weights, its tokenizer, and the backend that computes. */
export async function fingerprint(folder: string, tokenizer: Tokenizer, backend: string): Promise<string> {
  const hash = createHash("sha256").update(JSON.stringify([backend, tokenizer]));
  for (const name of readdirSync(folder).sort()) {
    if (!modelFiles.test(name)) continue;
    hash.update(name);
    for await (const bytes of createReadStream(path.join(folder, name))) hash.update(bytes as Buffer);
  }
  return hash.digest("hex");
}

/** The commit of this program where it runs from a clone, and whether the clone has changes; null elsewhere. */
export function commit(): { readonly id: string; readonly modified: boolean } | null {
  const folder = path.join(import.meta.dirname, "../..");
  const git = (...args: readonly string[]) =>
    execFileSync("git", ["-C", folder, ...args], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  try {
    // A copy in some other project's node_modules is not among that project's files.
    git("ls-files", "--error-unmatch", "package.json");
    return { id: git("rev-parse", "HEAD"), modified: git("status", "--porcelain", "--untracked-files=no") !== "" };
  } catch {
    return null;
  }
}
