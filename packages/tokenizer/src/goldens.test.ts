// Layer: tokenizer, tests. GPT-NeoX's and GPT-2's ids against the merge rule written out, and round trips, on real text and hard cases: run
// where DIFFMAMBA_DATA names a folder that holds the files, skipped by name elsewhere. Megabytes of text: long on a busy machine.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { nodeFiles } from "@diffmamba/files/node";
import { describe, expect, it } from "vitest";
import type { HuggingFaceTokenizer } from "./hugging-face.js";
import { loadTokenizer } from "./load.js";
import { hardCases, straightEncoder, wellFormed } from "./merge-rule.testing.js";

const data = process.env.DIFFMAMBA_DATA ?? "";
const has = (...names: string[]) => data !== "" && names.every((name) => existsSync(`${data}/${name}`));
const wiki = () => gunzipSync(readFileSync(`${data}/wiki.test.raw.gz`)).toString("utf8");
/** All novels behind one another, through the system's tar. */
function novels(): string {
  const { stdout, status } = spawnSync("tar", ["-xJOf", `${data}/novels.tar.xz`], { maxBuffer: 1 << 28 });
  if (status !== 0) throw new Error("tar could not unpack novels.tar.xz");
  return stdout.toString("utf8");
}

const kinds = [
  ["GPT-NeoX", "tokenizers/gpt-neox-20b", true, [12092, 1533]],
  ["GPT-2", "tokenizers/gpt2", false, [15496, 995]],
] as const;

describe.each(kinds)("%s", (name, folder, nfc, hello) => {
  describe.skipIf(!has(folder, "wiki.test.raw.gz", "novels.tar.xz"))(
    `${name} (needs DIFFMAMBA_DATA with ${folder}, wiki.test.raw.gz and novels.tar.xz)`,
    { timeout: 300_000 },
    () => {
      const load = async () => (await loadTokenizer(nodeFiles(), `${data}/${folder}`)) as HuggingFaceTokenizer;
      const result = (text: string) => (nfc ? wellFormed(text).normalize("NFC") : wellFormed(text));

      it("gives the ids of the merge rule", async () => {
        const tokenizer = await load();
        const straight = straightEncoder(tokenizer.toJSON().tokenizer);
        expect([...tokenizer.encode("Hello world")]).toEqual(hello);
        for (const text of hardCases) {
          expect([...tokenizer.encode(text)], JSON.stringify(text)).toEqual(straight(text));
          expect([...tokenizer.encode(text, { addSpecialTokens: true })], "the library").toEqual(straight(text));
        }
        for (const text of [wiki(), novels().slice(0, 1_000_000)]) {
          expect(
            Buffer.compare(
              Buffer.from(tokenizer.encode(text).buffer),
              Buffer.from(Int32Array.from(straight(text)).buffer),
            ),
          ).toBe(0);
        }
      });

      it(nfc ? "gives every text back composed (NFC)" : "gives every text back", async () => {
        const tokenizer = await load();
        for (const text of hardCases) {
          expect(tokenizer.decode(tokenizer.encode(text)), JSON.stringify(text)).toBe(result(text));
        }
        for (const text of [wiki(), novels(), hardCases.join("\n")]) {
          expect(tokenizer.decode(tokenizer.encode(text)) === result(text)).toBe(true);
        }
        expect(tokenizer.decode(tokenizer.encode("a\ud800b"))).toBe("a\uFFFDb");
      });
    },
  );
});
