// Tensor: a handle on a view of counted memory, with the ops as methods.
// Knows layouts, scopes and, by their functions, the ops. Knows no backend and no gradient.

import type { Device } from "./device.js";
import { bytesPerElement, type DType, type TypedArray, typedArray } from "./dtype.js";
import { formatShape, LifetimeError, ShapeError, ValueError } from "./errors.js";
import { bf16ToF32Array, f16ToF32Array } from "./half.js";
import { isContiguous, type Layout, sizeOf } from "./layout.js";
import * as copy from "./ops/copy.js";
import * as elementwise from "./ops/elementwise.js";
import * as indexing from "./ops/indexing.js";
import { matmul } from "./ops/matmul.js";
import * as reduce from "./ops/reduce.js";
import * as views from "./ops/views.js";
import { disown, own } from "./scope.js";
import type { Storage } from "./storage.js";
import type { View } from "./view.js";

let nextId = 1;

/** A number stands for a tensor of that one value, of the other operand's type. */
export type Operand = Tensor | number;

export class Tensor implements Layout {
  readonly id = nextId++;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
  #disposed = false;

  /** Internal: tensors come from a device or from ops. The handle takes over one reference of `storage`. */
  constructor(
    readonly device: Device,
    readonly storage: Storage,
    readonly dtype: DType,
    layout: Layout,
  ) {
    this.shape = layout.shape;
    this.strides = layout.strides;
    this.offset = layout.offset;
    storage.use.tensors++;
    device.leaks?.watch(this, layout.shape, storage.bytes);
    own(this);
  }

  /** Number of axes. */
  get rank(): number {
    return this.shape.length;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** The size of an axis, counted from the end when negative. */
  dim(axis: number): number {
    const size = this.shape[axis < 0 ? axis + this.rank : axis];
    if (size === undefined) {
      throw new ShapeError(`dim: axis ${axis} does not exist; the tensor is ${formatShape(this.shape)}.`);
    }
    return size;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Gives up this handle; the memory goes with the last one. Doing so twice is fine. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.storage.use.tensors--;
    this.device.leaks?.forget(this);
    disown(this);
    this.storage.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** What kernels see. @throws LifetimeError after `dispose` */
  view(): View {
    if (this.#disposed) {
      throw new LifetimeError(
        `tensor ${formatShape(this.shape)} was disposed; a scope that ended, or dispose(), freed it. Return it from the scope, or keep() it.`,
      );
    }
    const { shape, strides, offset, dtype } = this;
    return { buffer: this.storage.buffer, dtype, shape, strides, offset };
  }

  /** Another handle on the same memory with another layout. Not recorded: ops build on it. */
  withLayout(layout: Layout): Tensor {
    this.view();
    return new Tensor(this.device, this.storage.retain(), this.dtype, layout);
  }

  /** Another handle on the same value. */
  alias(): Tensor {
    return this.withLayout(this);
  }

  isContiguous(): boolean {
    return isContiguous(this);
  }

  // ---- reading and writing ----

  /** The elements in row-major order, bit for bit (bf16 and f16 as bit patterns). */
  async hostData(): Promise<TypedArray> {
    using whole = this.isContiguous() ? this.alias() : copy.contiguousCopy(this);
    const width = bytesPerElement[this.dtype];
    const bytes = await this.device.backend.read(whole.storage.buffer, whole.offset * width, this.size * width);
    return typedArray(this.dtype, bytes.buffer, bytes.byteOffset, this.size);
  }

  /** The elements in row-major order as numbers; bf16 and f16 as a Float32Array. */
  async data(): Promise<Exclude<TypedArray, Uint16Array>> {
    const { dtype } = this;
    const data = await this.hostData();
    if (data instanceof Uint16Array) return dtype === "bf16" ? bf16ToF32Array(data) : f16ToF32Array(data);
    return data;
  }

  /** The one element as a number. @throws ShapeError if there are more */
  async item(): Promise<number> {
    if (this.size !== 1) {
      throw new ShapeError(`item: the tensor is ${formatShape(this.shape)}; item() reads a single number. Use data().`);
    }
    return (await this.data())[0];
  }

  /** Replaces the content, in place: `data` in row-major order, in the element type's own array. */
  write(data: TypedArray): void {
    if (data.length !== this.size || data.byteLength !== this.size * bytesPerElement[this.dtype]) {
      throw new ValueError(
        `write: ${data.constructor.name} of ${data.length} does not fill ${formatShape(this.shape)} ${this.dtype}.`,
      );
    }
    if (!this.isContiguous()) throw new ShapeError("write: the tensor is a strided view; write to a contiguous one.");
    const { buffer } = this.view();
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    this.device.backend.write(buffer, this.offset * bytesPerElement[this.dtype], bytes);
    this.storage.version++;
  }

  /** Replaces the content by `source`, broadcast and converted, in place. For optimizers and caches, outside a tape. */
  assign(source: Tensor): void {
    copy.assign(this, source);
  }

  /**
   * Like {@link assign} for a source that is of no use afterwards: its content is then arbitrary. Costs nothing where each
   * of the two has memory of its own, and they agree in shape and type.
   */
  take(source: Tensor): void {
    copy.take(this, source);
  }

  fillInPlace(value: number): void {
    copy.fill(this, value);
  }

  addInPlace(other: Tensor): void {
    elementwise.addInPlace(this, other);
  }

  mulInPlace(other: Tensor): void {
    elementwise.mulInPlace(this, other);
  }

  // ---- views and copies ----

  /** One size may be -1: it is worked out. A view where strides allow it, else a copy. */
  reshape(...shape: readonly number[]): Tensor {
    return views.reshape(this, shape);
  }

  /** Swaps two axes; the last two when none are given. A view. */
  transpose(a = -2, b = -1): Tensor {
    return views.transpose(this, a, b);
  }

  permute(...axes: readonly number[]): Tensor {
    return views.permute(this, axes);
  }

  /** Elements `start` up to `end` of an axis. A view. */
  slice(axis: number, start: number, end?: number): Tensor {
    return views.slice(this, axis, start, end);
  }

  /** Views side by side along an axis; the sizes must add up. Their gradients share one packed tensor. */
  split(sizes: readonly number[], axis = -1): Tensor[] {
    return views.split(this, sizes, axis);
  }

  /** Repeats axes of size 1, and adds leading ones, without a copy. */
  expand(...shape: readonly number[]): Tensor {
    return views.expand(this, shape);
  }

  /** Itself if it is contiguous, else a copy that is. */
  contiguous(): Tensor {
    return copy.contiguous(this);
  }

  /** Itself if it has the type, else a converted copy. Gradients are converted back. */
  cast(dtype: DType): Tensor {
    return copy.cast(this, dtype);
  }

  /** A copy with memory of its own. */
  clone(): Tensor {
    return copy.clone(this);
  }

  /** The same value on another device. */
  async to(device: Device): Promise<Tensor> {
    if (device === this.device) return this.alias();
    return device.fromHost({ dtype: this.dtype, shape: this.shape, data: await this.hostData() });
  }

  // ---- arithmetic ----

  add(other: Operand): Tensor {
    return elementwise.binary("add", this, other);
  }
  sub(other: Operand): Tensor {
    return elementwise.binary("sub", this, other);
  }
  mul(other: Operand): Tensor {
    return elementwise.binary("mul", this, other);
  }
  div(other: Operand): Tensor {
    return elementwise.binary("div", this, other);
  }
  maximum(other: Operand): Tensor {
    return elementwise.binary("max", this, other);
  }
  minimum(other: Operand): Tensor {
    return elementwise.binary("min", this, other);
  }
  pow(exponent: Operand): Tensor {
    return elementwise.binary("pow", this, exponent);
  }
  neg(): Tensor {
    return elementwise.unary("neg", this);
  }
  abs(): Tensor {
    return elementwise.unary("abs", this);
  }
  sign(): Tensor {
    return elementwise.unary("sign", this);
  }
  exp(): Tensor {
    return elementwise.unary("exp", this);
  }
  log(): Tensor {
    return elementwise.unary("log", this);
  }
  sqrt(): Tensor {
    return elementwise.unary("sqrt", this);
  }
  rsqrt(): Tensor {
    return elementwise.unary("rsqrt", this);
  }
  square(): Tensor {
    return elementwise.unary("square", this);
  }
  reciprocal(): Tensor {
    return elementwise.unary("reciprocal", this);
  }
  sigmoid(): Tensor {
    return elementwise.unary("sigmoid", this);
  }
  tanh(): Tensor {
    return elementwise.unary("tanh", this);
  }
  softplus(): Tensor {
    return elementwise.unary("softplus", this);
  }
  silu(): Tensor {
    return elementwise.unary("silu", this);
  }
  erf(): Tensor {
    return elementwise.unary("erf", this);
  }
  /** u8: 1 where equal. */
  equal(other: Operand): Tensor {
    return elementwise.compare("eq", this, other);
  }
  less(other: Operand): Tensor {
    return elementwise.compare("lt", this, other);
  }
  lessEqual(other: Operand): Tensor {
    return elementwise.compare("le", this, other);
  }
  /** Of a u8 condition: `a` where it is 1, else `b`. */
  where(a: Tensor, b: Tensor): Tensor {
    return elementwise.where(this, a, b);
  }

  // ---- reductions, products, lookups ----

  /** Over the axes given, all of them by default. */
  sum(axes?: number | readonly number[], keepDims = false): Tensor {
    return reduce.sum(this, axes, keepDims);
  }
  mean(axes?: number | readonly number[], keepDims = false): Tensor {
    return reduce.mean(this, axes, keepDims);
  }
  max(axes?: number | readonly number[], keepDims = false): Tensor {
    return reduce.max(this, axes, keepDims);
  }
  /** i32 index of the first greatest element of the last axis. */
  argmax(): Tensor {
    return reduce.argmax(this);
  }
  cumsum(axis = -1, reverse = false): Tensor {
    return reduce.cumsum(this, axis, reverse);
  }
  /** (..., M, K) x (..., K, N) -> (..., M, N); leading axes broadcast. */
  matmul(other: Tensor): Tensor {
    return matmul(this, other);
  }
  /** Rows of a table: (V, D) and i32 indices of any shape S -> (S, D). */
  gather(index: Tensor): Tensor {
    return indexing.gather(this, index);
  }

  toString(): string {
    return `Tensor ${formatShape(this.shape)} ${this.dtype} on ${this.device.name}`;
  }
}
