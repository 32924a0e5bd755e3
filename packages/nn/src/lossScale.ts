// Dynamic loss scaling (Micikevicius et al. 2018): the loss is multiplied by a power of two, so that gradients of f16 do not vanish.
// A step whose gradients overflow halves it, and a long run of steps that do not doubles it. All of it lives on the device.
// Knows tensors. Knows no optimizer and no loop.

import { type Device, keep, noGrad, scope, type Tensor } from "@diffmamba/tensor";

export interface LossScaleSettings {
  /** 2^16 by default. */
  readonly initial?: number;
  /** Steps without an overflow after which it doubles; 2000 by default. */
  readonly growthInterval?: number;
}

/** What a checkpoint keeps of it. */
export interface LossScaleState {
  readonly scale: number;
  /** Steps since the last overflow or doubling. */
  readonly steps: number;
}

const LEAST = 1;
const MOST = 2 ** 24;

export class LossScale {
  /** () f32 */
  readonly scale: Tensor;
  readonly #steps: Tensor;
  readonly #interval: number;

  constructor(device: Device, { initial = 2 ** 16, growthInterval = 2000 }: LossScaleSettings = {}) {
    this.scale = keep(device.full([], initial));
    this.#steps = keep(device.zeros([], "i32"));
    this.#interval = growthInterval;
  }

  /** After a step whose gradients had this norm, () f32. */
  update(norm: Tensor): void {
    noGrad(() =>
      scope(() => {
        const { scale } = this;
        const { device } = scale;
        // NaN is below nothing.
        const finite = norm.abs().less(Number.POSITIVE_INFINITY);
        const steps = finite.where(this.#steps.add(1), device.zeros([], "i32"));
        const grows = steps.equal(this.#interval);
        const risen = grows.where(scale.mul(2).minimum(MOST), scale);
        scale.assign(finite.where(risen, scale.mul(0.5).maximum(LEAST)));
        this.#steps.assign(grows.where(device.zeros([], "i32"), steps));
      }),
    );
  }

  async state(): Promise<LossScaleState> {
    return { scale: await this.scale.item(), steps: await this.#steps.item() };
  }

  restore({ scale, steps }: LossScaleState): void {
    this.scale.fillInPlace(scale);
    this.#steps.fillInPlace(steps);
  }

  dispose(): void {
    this.scale.dispose();
    this.#steps.dispose();
  }
}
