// Decoding on the device: a step reads the tokens that the step before drew, and draws the next, without the host. It is recorded and
// replayed where the backend can; only the tokens are read back, and the next step may be under way meanwhile. Where the backend would keep
// tokens beside the states of scans, as of many rows on a GPU, they are taken in some at a time, and all of them in the end.
// Knows the model's step, the state and the drawing of tokens. Knows no text and no end of a row.

import { streamKey } from "@diffmamba/random";
import { replaceState } from "@diffmamba/ssm";
import { keep, noGrad, type Recorded, sample, scope, type Tensor, ValueError } from "@diffmamba/tensor";
import type { ModelState } from "./backbone.js";
import type { MambaLM } from "./model.js";
import type { PromptState } from "./promptState.js";
import { type Draw, type SamplingOptions, samplerStream } from "./sampling.js";

/** True where every rule of the options is one that the device knows. */
export function drawsOnDevice(model: MambaLM, { repetitionPenalty = 1 }: SamplingOptions): boolean {
  return repetitionPenalty === 1 && model.device.backend.kernels.sample !== undefined;
}

/** Tokens that are under way: read once. */
export interface PendingDraws {
  /** To be called before the next step is asked for, which writes over what was drawn; the wait for it may come later. */
  read(): Promise<Draw[]>;
  dispose(): void;
}

/** (B,) each: the tokens as they were drawn, -1 where none could be, and ln of their probabilities. */
interface Drawn {
  readonly tokens: Tensor;
  readonly logprobs: Tensor;
}

export class DeviceDecoder {
  /** (B, 2), (B,): what the next token of each row is drawn by. */
  readonly #keys: Tensor;
  readonly #positions: Tensor;
  /** () i32: tokens that were kept beside the states; see {@link Mixer.defer}. */
  readonly #count: Tensor;
  /** (B + 1,): both, which grow by 1 with each token. */
  readonly #counts: Tensor;
  /** (B, 1): the tokens that the next step reads. */
  readonly #tokens: Tensor;
  /** () each: what is added to positions, and the least token that can be read. */
  readonly #one: Tensor;
  readonly #zero: Tensor;
  /** The state's own tensors, with what is kept beside them. */
  readonly #states: ModelState;
  #steps = 0;
  #recorded: Recorded<Drawn> | undefined;

  /**
   * The state stays the caller's, and is advanced in place; until {@link dispose} it may be behind. The model must be in evaluation mode.
   * @throws BackendError where there is no memory
   */
  constructor(
    readonly model: MambaLM,
    readonly state: PromptState,
    readonly options: SamplingOptions & { readonly logprobs?: boolean },
    seeds: readonly number[],
  ) {
    const { device } = model;
    const { batch, lengths } = state;
    const integers = (data: Iterable<number>, shape: readonly number[]) =>
      keep(device.from(Int32Array.from(data), shape, "i32"));
    this.#keys = integers(
      seeds.flatMap((seed) => streamKey(seed, samplerStream)),
      [batch, 2],
    );
    this.#counts = integers([...lengths, 0], [batch + 1]);
    this.#positions = keep(this.#counts.slice(0, 0, batch));
    this.#count = keep(scope(() => this.#counts.slice(0, batch).reshape()));
    this.#tokens = keep(device.zeros([batch, 1], "i32"));
    this.#one = integers([1], []);
    this.#zero = integers([0], []);
    this.#states = model.backbone.mixers.map((mixer, i) => mixer.defer(state.state[i], this.#count));
  }

  /** Draws the first token from the logits of the state. */
  first(): PendingDraws {
    return this.#plainly(() => this.#draw());
  }

  /** Reads the tokens that were drawn last, and draws the next ones. */
  next(): PendingDraws {
    const { device } = this.model;
    // The first step is taken plainly: what is made once is made outside of the recording.
    if (this.#steps++ === 0 || !device.canRecord) return this.#plainly(() => this.#step());
    this.#recorded ??= device.record(() => noGrad(() => this.#step()));
    this.#recorded.replay();
    return this.#pending(this.#recorded.result, () => undefined);
  }

  #plainly(compute: () => Drawn): PendingDraws {
    const { tokens, logprobs } = noGrad(() => scope(compute));
    const drawn = { tokens: keep(tokens), logprobs: keep(logprobs) };
    return this.#pending(drawn, () => {
      for (const tensor of [drawn.tokens, drawn.logprobs]) tensor.dispose();
    });
  }

  #step(): Drawn {
    const { model, state } = this;
    const result = model.run(this.#tokens, { initialState: this.#states, replacesState: true });
    for (const [i, mixer] of this.#states.entries()) replaceState(mixer, result.state[i]);
    const { hidden } = result;
    model.vocabulary.logitsInto(hidden.reshape(state.batch, hidden.dim(-1)), state.logits);
    this.#counts.addInPlace(this.#one);
    return this.#draw();
  }

  #draw(): Drawn {
    const { temperature = 1, topK = 0, topP = 1, minP = 0 } = this.options;
    const drawn = sample(this.state.logits, this.#keys, this.#positions, { temperature, topK, topP, minP });
    // A row that nothing could be drawn from is an error once it is read; until then it reads some token.
    this.#tokens.assign(drawn.tokens.maximum(this.#zero).reshape(-1, 1));
    return drawn;
  }

  #pending({ tokens, logprobs }: Drawn, dispose: () => void): PendingDraws {
    return {
      dispose,
      read: async () => {
        try {
          const reading = [tokens.data(), ...(this.options.logprobs ? [logprobs.data()] : [])];
          const [drawn, probabilities] = await Promise.all(reading);
          return Array.from(drawn, (token, row) => {
            if (token < 0) {
              throw new ValueError(
                `generate: no token can be drawn for row ${row}: its logits are no numbers. Are the weights sound?`,
              );
            }
            return { token, logprob: probabilities?.[row] ?? 0 };
          });
        } finally {
          dispose();
        }
      },
    };
  }

  get #defers(): boolean {
    return this.#states.some((mixer, i) => mixer !== this.state.state[i]);
  }

  /** Makes the state that was given whole, and frees everything else. */
  dispose(): void {
    try {
      if (this.#defers) for (const [i, mixer] of this.model.backbone.mixers.entries()) mixer.settle(this.#states[i]);
    } finally {
      this.#recorded?.dispose();
      for (const [i, mixer] of this.#states.entries()) {
        for (const tensor of mixer.slice(this.state.state[i].length)) tensor.dispose();
      }
      const own = [this.#keys, this.#positions, this.#count, this.#counts, this.#tokens, this.#one, this.#zero];
      for (const tensor of own) tensor.dispose();
    }
  }
}
