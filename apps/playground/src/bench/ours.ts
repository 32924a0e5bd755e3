// Layer: apps/playground, bench. The work on a device of the house. Knows tensors. Knows no backend by name.

import { type Device, scope, type Tensor, valueAndGrad } from "@diffmamba/tensor";
import { type Contender, learningRate, type StepShape, type StepValues, type Work } from "./contender.js";

export class Ours implements Contender {
  constructor(
    readonly name: string,
    readonly device: Device,
  ) {}

  async matmul(n: number, left: Float32Array, right: Float32Array): Promise<Work> {
    const { device } = this;
    const [a, b] = [device.from(left, [n, n]), device.from(right, [n, n])];
    return {
      run: async () => {
        a.matmul(b).dispose();
        await device.synchronize();
      },
      result: async () => {
        using product = a.matmul(b);
        return [...(await product.data())].map(Number);
      },
      dispose: () => {
        a.dispose();
        b.dispose();
      },
    };
  }

  async step({ batch, input, hidden, output }: StepShape, values: StepValues): Promise<Work> {
    const { device } = this;
    const [x, y] = [device.from(values.x, [batch, input]), device.from(values.y, [batch, output])];
    let weights: Tensor[] = [device.from(values.w1, [input, hidden]), device.from(values.w2, [hidden, output])];
    const losses: number[] = [];
    return {
      run: async () => {
        const [w1, w2] = weights;
        const loss = () => x.matmul(w1).silu().matmul(w2).sub(y).square().mean();
        const old = weights;
        const { value, next } = scope(() => {
          const { value, gradients } = valueAndGrad(loss, old);
          return { value, next: old.map((weight, i) => weight.sub(gradients[i].mul(learningRate))) };
        });
        for (const weight of old) weight.dispose();
        weights = next;
        losses.push(await value.item());
        value.dispose();
      },
      result: async () => losses,
      dispose: () => {
        for (const tensor of [x, y, ...weights]) tensor.dispose();
      },
    };
  }

  dispose(): Promise<void> {
    return this.device.dispose();
  }
}
