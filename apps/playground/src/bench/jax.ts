// Layer: apps/playground, bench. The same work on @jax-js/jax. Its arrays are counted by reference: a call consumes its arguments, `.ref`
// keeps one alive. Knows nothing of ours.

import * as jax from "@jax-js/jax";
import { type Contender, learningRate, type StepShape, type StepValues, type Work } from "./contender.js";

type Matrix = ReturnType<typeof jax.numpy.array>;

export class Jax implements Contender {
  readonly name = "@jax-js/jax";

  private constructor() {}

  /** @throws Error where it does not start here */
  static async open(device: "wasm" | "webgpu"): Promise<Jax> {
    const available = await jax.init(device);
    if (!available.includes(device)) throw new Error(`@jax-js/jax has no ${device} here`);
    jax.defaultDevice(device);
    return new Jax();
  }

  async matmul(n: number, left: Float32Array, right: Float32Array): Promise<Work> {
    const { numpy, jit } = jax;
    const [a, b] = [numpy.array(left.slice()).reshape([n, n]), numpy.array(right.slice()).reshape([n, n])];
    const product = jit((x: Matrix, y: Matrix) => numpy.matmul(x, y));
    return {
      run: async () => {
        const out = product(a.ref, b.ref);
        await out.blockUntilReady();
        out.dispose();
      },
      result: async () => [...(await product(a.ref, b.ref).data())].map(Number),
      dispose: () => {
        product.dispose();
        a.dispose();
        b.dispose();
      },
    };
  }

  async step({ batch, input, hidden, output }: StepShape, values: StepValues): Promise<Work> {
    const { numpy, nn, jit, valueAndGrad } = jax;
    const matrix = (data: Float32Array, rows: number, columns: number) =>
      numpy.array(data.slice()).reshape([rows, columns]);
    const [x, y] = [matrix(values.x, batch, input), matrix(values.y, batch, output)];
    let [w1, w2] = [matrix(values.w1, input, hidden), matrix(values.w2, hidden, output)];
    const loss = (first: Matrix, second: Matrix, from: Matrix, to: Matrix) =>
      numpy.mean(numpy.square(numpy.matmul(nn.silu(numpy.matmul(from, first)), second).sub(to)));
    const step = jit((first: Matrix, second: Matrix, from: Matrix, to: Matrix) => {
      const [value, [d1, d2]] = valueAndGrad(loss, { argnums: [0, 1] })(first.ref, second.ref, from, to);
      return [value, first.sub(d1.mul(learningRate)), second.sub(d2.mul(learningRate))];
    });
    const losses: number[] = [];
    return {
      run: async () => {
        const [value, next1, next2] = step(w1, w2, x.ref, y.ref) as [Matrix, Matrix, Matrix];
        [w1, w2] = [next1, next2];
        losses.push(Number((await value.data())[0]));
      },
      result: async () => losses,
      dispose: () => {
        step.dispose();
        for (const array of [x, y, w1, w2]) array.dispose();
      },
    };
  }

  async dispose(): Promise<void> {}
}
