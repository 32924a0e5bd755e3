// Checkpoint formats: what every opened file of named tensors offers, whatever its format.
// Knows neither bytes nor formats.
import type { DType, HostTensor } from "@diffmamba/tensor";

/** What is known of a tensor before its elements are read. */
export interface TensorDescription {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Named tensors in one or several files; elements are read from disk when asked for, and only those. */
export interface TensorFile {
  /** The file that was opened (for shards, their index). */
  readonly path: string;
  readonly names: readonly string[];
  has(name: string): boolean;
  /** dtype and shape as `read` will give them. @throws FormatError where there is no such tensor or its type has no form here */
  describe(name: string): TensorDescription;
  /** The tensor, contiguous. @throws FormatError as `describe`, and where the elements cannot be read */
  read(name: string): Promise<HostTensor>;
  /** Ends the use of the file. No format here holds a handle open today, but callers must not rely on that. */
  close(): Promise<void>;
}
