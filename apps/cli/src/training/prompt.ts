// Layer: apps/cli, training. What a run's samples begin with. Knows tokenizers and tokens. Knows no model.
import type { TokenSource } from "@diffmamba/datasets";
import type { Tokenizer } from "@diffmamba/tokenizer";
import { UsageError } from "../errors.js";

/** Tokens of the held-out text that a sample begins with where no prompt is set. */
const borrowed = 32;

/** The prompt that is set, or else the beginning of a text. @throws UsageError where the tokenizer lacks one of its symbols */
export async function samplePrompt(
  setting: string,
  tokenizer: Tokenizer,
  source: TokenSource,
): Promise<{ text: string; ids: Int32Array }> {
  if (setting === "") {
    const ids = await source.read(0, Math.min(borrowed, source.length));
    return { text: tokenizer.decode(ids), ids };
  }
  try {
    return { text: setting, ids: tokenizer.encode(setting) };
  } catch (error) {
    throw new UsageError(`train.samplePrompt: ${(error as Error).message}`, { cause: error });
  }
}
