// Parameter: a tensor that is trained. It outlives every scope and keeps its memory; only its content changes.
// Knows tensors. Knows no module and no optimizer.

import { type Device, type DType, keep, Tensor } from "@diffmamba/tensor";

export class Parameter extends Tensor {
  /** A new parameter with arbitrary content. */
  static empty(device: Device, shape: readonly number[], dtype: DType): Parameter {
    using memory = device.empty(shape, dtype);
    return keep(new Parameter(device, memory.storage.retain(), dtype, memory));
  }
}
