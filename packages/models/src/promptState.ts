// The state after a prompt, as a value: what a model remembers of the tokens it has read, of constant size, and the logits
// of the next token. It can be cloned, cut into rows, saved, loaded, and gone on from.
// Knows tensors and safetensors files. Knows a model's shapes, but neither its layers nor how a token is drawn.

import type { FileSystem } from "@diffmamba/files";
import type { StateDType } from "@diffmamba/ssm";
import { type HostTensor, keep, noGrad, scope, type Tensor, ValueError } from "@diffmamba/tensor";
import type { ModelState } from "./backbone.js";
import { FormatError } from "./formats/errors.js";
import { SafetensorsFile } from "./formats/safetensors.js";
import { writeSafetensors } from "./formats/safetensorsWrite.js";
import type { MambaLM } from "./model.js";

const format = "diffmamba.prompt";

/** Rows of token numbers. */
export type TokenRows = readonly (readonly number[])[];

export class PromptState {
  readonly #tokens: number[][];

  /** Takes over the tensors. Made by `prefill`, {@link load} or from another state. */
  constructor(
    /** Of every mixer; the first axis of each tensor is the batch. */
    readonly state: ModelState,
    /** (B, V) f32, or f64 in a model of f64: of the token after each row's last. */
    readonly logits: Tensor,
    tokens: TokenRows,
  ) {
    for (const tensor of [logits, ...state.flat()]) keep(tensor);
    this.#tokens = tokens.map((row) => [...row]);
  }

  /** Before any token: zeros, or what the model has learned. */
  static empty(model: MambaLM, batch: number, stateDtype?: StateDType): PromptState {
    const dtype = model.parameters()[0].dtype === "f64" ? "f64" : "f32";
    return scope(() => {
      const logits = model.device.zeros([batch, model.config.vocabSize], dtype);
      return new PromptState(
        model.initialState(batch, stateDtype),
        logits,
        Array.from({ length: batch }, () => []),
      );
    });
  }

  /** Rows. */
  get batch(): number {
    return this.#tokens.length;
  }

  /** The tokens that each row has read. */
  get tokens(): TokenRows {
    return this.#tokens;
  }

  /** How many tokens each row has read. */
  get lengths(): readonly number[] {
    return this.#tokens.map(({ length }) => length);
  }

  /** Internal: the tensors have been changed in place by these tokens. */
  wasRead(rows: TokenRows): void {
    for (const [i, row] of rows.entries()) for (const token of row) this.#tokens[i].push(token);
  }

  /** The same value with memory of its own. */
  clone(): PromptState {
    return this.#map(this.#tokens, (tensor) => tensor.clone());
  }

  /** Some of the rows, in the order given, as a value of its own. A row may be there several times. @throws ValueError */
  slice(rows: readonly number[]): PromptState {
    const wrong = rows.find((row) => !Number.isInteger(row) || row < 0 || row >= this.batch);
    if (wrong !== undefined) {
      throw new ValueError(`slice: there is no row ${wrong}; the state has ${this.batch}, counted from 0.`);
    }
    if (rows.length === 0) throw new ValueError("slice: no row was named; a state has at least one.");
    const { device } = this.logits;
    const tokens = rows.map((row) => this.#tokens[row]);
    return this.#map(tokens, (tensor) => {
      const index = device.from([...rows], [rows.length], "i32");
      return tensor
        .reshape(this.batch, -1)
        .gather(index)
        .reshape(rows.length, ...tensor.shape.slice(1));
    });
  }

  #map(tokens: TokenRows, change: (tensor: Tensor) => Tensor): PromptState {
    const changed = (tensor: Tensor) => keep(scope(() => noGrad(() => change(tensor))));
    return new PromptState(
      this.state.map((mixer) => mixer.map(changed)),
      changed(this.logits),
      tokens,
    );
  }

  /** Writes the state to a safetensors file, bit for bit. @throws FileError */
  async save(files: FileSystem, path: string): Promise<void> {
    const tensors: [string, HostTensor][] = [];
    for (const [name, tensor] of named(this.state, this.logits)) {
      tensors.push([name, { dtype: tensor.dtype, shape: tensor.shape, data: await tensor.hostData() }]);
    }
    const { batch, lengths } = this;
    const flat = Int32Array.from(this.#tokens.flat());
    tensors.push(["lengths", { dtype: "i32", shape: [batch], data: Int32Array.from(lengths) }]);
    tensors.push(["tokens", { dtype: "i32", shape: [flat.length], data: flat }]);
    await writeSafetensors(files, path, tensors, { metadata: { format }, atomic: true });
  }

  /**
   * Reads what {@link save} has written, for the model that it was saved from. Whether it was another model of the same
   * shapes is not known here.
   * @throws FormatError where the file is missing, is something else, or belongs to a model of other shapes
   */
  static async load(files: FileSystem, path: string, model: MambaLM): Promise<PromptState> {
    const file = await SafetensorsFile.open(files, path);
    if (file.metadata.get("format") !== format) throw new FormatError(path, "holds no state after a prompt.");
    const tokens = readRows(path, (await file.read("lengths")).data, (await file.read("tokens")).data);
    const types = file.names.filter((name) => name.startsWith("state.")).map((name) => file.describe(name).dtype);
    const result = PromptState.empty(
      model,
      tokens.length,
      types.find((type) => type === "bf16" || type === "f16"),
    );
    try {
      const wanted = named(result.state, result.logits);
      for (const name of file.names) {
        const known = name === "lengths" || name === "tokens" || wanted.some(([own]) => own === name);
        if (!known) throw new FormatError(path, `has a tensor "${name}" that the model has no place for.`);
      }
      for (const [name, tensor] of wanted) {
        const { dtype, shape, data } = await file.read(name);
        if (dtype !== tensor.dtype || `${shape}` !== `${tensor.shape}`) {
          const [found, expected] = [`${dtype} (${shape.join(", ")})`, `${tensor.dtype} (${tensor.shape.join(", ")})`];
          throw new FormatError(path, `"${name}" is ${found}; the model has ${expected}. Is it another model's?`);
        }
        tensor.write(data);
      }
    } catch (error) {
      result.dispose();
      throw error;
    }
    result.wasRead(tokens);
    return result;
  }

  /** Frees the tensors. */
  dispose(): void {
    for (const tensor of [this.logits, ...this.state.flat()]) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function named(state: ModelState, logits: Tensor): [string, Tensor][] {
  const parts = state.flatMap((mixer, i) => mixer.map((x, j): [string, Tensor] => [`state.${i}.${j}`, x]));
  return [["logits", logits], ...parts];
}

function readRows(path: string, lengths: ArrayLike<number>, tokens: ArrayLike<number>): number[][] {
  let at = 0;
  const rows = Array.from(lengths, (length) => {
    at += length;
    return Array.from(tokens).slice(at - length, at);
  });
  if (rows.length === 0 || at !== tokens.length || rows.some((row, i) => row.length !== lengths[i])) {
    throw new FormatError(path, `holds ${tokens.length} tokens, but rows of ${Array.from(lengths).join(", ")}.`);
  }
  return rows;
}
