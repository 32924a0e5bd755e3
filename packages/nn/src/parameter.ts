// Parameter: a tensor that is trained. It outlives every scope and keeps its memory; only its content changes. Under mixed
// precision it is an f32 master with a cast copy, and the copy is what ops compute with and what gradients are taken of.
// Knows tensors. Knows no module and no optimizer.

import { type Device, type DType, keep, Tensor } from "@diffmamba/tensor";

export class Parameter extends Tensor {
  /** The cast copy, and by how much the versions of master and copy differ while the copy is the master's. */
  #copy: { readonly tensor: Tensor; lead: number } | undefined;

  /** A new parameter with arbitrary content; with `compute`, another type than its own, it has a copy of that type. */
  static empty(device: Device, shape: readonly number[], dtype: DType, compute: DType = dtype): Parameter {
    using memory = device.empty(shape, dtype);
    const parameter = keep(new Parameter(device, memory.storage.retain(), dtype, memory));
    // An impossible lead: the copy is made when it is first asked for.
    if (compute !== dtype) parameter.#copy = { tensor: keep(device.empty(shape, compute)), lead: Number.NaN };
    return parameter;
  }

  /**
   * What ops compute with: the copy where there is one, else the parameter itself. The copy is made again where the parameter has
   * been written since; an optimizer that writes both, or a recording that does, leaves nothing to do.
   */
  get compute(): Tensor {
    const copy = this.#copy;
    if (copy === undefined) return this;
    const { tensor } = copy;
    if (this.storage.version - tensor.storage.version !== copy.lead) {
      tensor.assign(this);
      copy.lead = this.storage.version - tensor.storage.version;
    }
    return tensor;
  }

  /** The copy, for who is about to write both; undefined where the parameter computes for itself. */
  get copy(): Tensor | undefined {
    return this.#copy && this.compute;
  }

  override dispose(): void {
    this.#copy?.tensor.dispose();
    super.dispose();
  }
}
