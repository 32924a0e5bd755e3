// Building: where new parameters go (device, element type) and where their first values come from (seed and path).
// Every parameter draws from a stream of its own, named by its path, so that adding one changes no other.
// Knows devices and streams. Knows no layer.

import { RandomStream } from "@diffmamba/random";
import { currentDevice, type Device, type DType, keep, type Tensor } from "@diffmamba/tensor";
import type { Initializer } from "./init.js";
import { Parameter } from "./parameter.js";

export interface BuildOptions {
  /** The current device by default. */
  readonly device?: Device;
  /** f32 by default. */
  readonly dtype?: DType;
  /**
   * Mixed precision: weights stay masters of `dtype`, f32, and have copies of this type, bf16 or f16, with which they compute. What
   * is numerically delicate (A, D, the bias of dt, lambda, states) has none. No copies by default.
   */
  readonly compute?: DType;
  /** 0 by default. */
  readonly seed?: number;
  /** false leaves parameters with arbitrary content, for whoever writes all of them next; true by default. */
  readonly draw?: boolean;
}

/** The step that dropout's random numbers count by: a () i32 tensor that all of a model's layers share. */
export interface Clock {
  readonly step: Tensor;
}

export class Build {
  readonly device: Device;
  readonly dtype: DType;
  readonly compute: DType;
  readonly seed: number;
  readonly draw: boolean;
  readonly path: string;
  readonly #root: { clock?: Clock };

  constructor(options: BuildOptions = {}, path = "", parent?: Build) {
    this.device = options.device ?? currentDevice();
    this.dtype = options.dtype ?? "f32";
    this.compute = options.compute ?? this.dtype;
    if (this.compute !== this.dtype && this.dtype !== "f32") {
      throw new RangeError(`Build: weights of ${this.dtype} have no copies of ${this.compute}; masters are f32.`);
    }
    this.seed = options.seed ?? 0;
    this.draw = options.draw ?? true;
    this.path = path;
    this.#root = parent === undefined ? {} : parent.#root;
  }

  /** The place of a member called `name`. */
  at(name: string): Build {
    return new Build(this, this.#join(name), this);
  }

  /**
   * A weight with its first values, drawn on the host.
   * @param copied false for a weight that something is folded into before it is used: what is made of it is cast then
   */
  parameter(name: string, shape: readonly number[], initialize: Initializer, copied = true): Parameter {
    return this.#create(name, shape, initialize, this.dtype, copied ? this.compute : this.dtype);
  }

  /** Like {@link parameter}, of what stays f32 where weights are bf16 or f16: A, D, the bias of dt, lambda, states. */
  dynamics(name: string, shape: readonly number[], initialize: Initializer): Parameter {
    return this.#create(name, shape, initialize, this.dtype === "f64" ? "f64" : "f32");
  }

  #create(
    name: string,
    shape: readonly number[],
    initialize: Initializer,
    dtype: DType,
    compute: DType = dtype,
  ): Parameter {
    const parameter = Parameter.empty(this.device, shape, dtype, compute);
    if (!this.draw || !this.device.backend.holdsData) return parameter;
    const values = new Float64Array(parameter.size);
    initialize(values, shape, new RandomStream(this.seed, this.#join(name)));
    const source = this.device.from(dtype === "f64" ? values : Float32Array.from(values), shape, dtype);
    parameter.assign(source);
    source.dispose();
    return parameter;
  }

  /** The clock of everything built from the same root. */
  get clock(): Clock {
    this.#root.clock ??= { step: keep(this.device.zeros([], "i32")) };
    return this.#root.clock;
  }

  #join(name: string): string {
    return [this.path, name].filter((part) => part !== "").join(".");
  }
}
