// The error classes of the tensor core. Every message names the op or thing, what it got and what it expected.

/** A shape, axis or option that an op cannot take. */
export class ShapeError extends Error {
  override readonly name = "ShapeError";
}

/** An element type that an op or a backend cannot take. */
export class DTypeError extends Error {
  override readonly name = "DTypeError";
}

/** A value out of range, such as a token beyond the vocabulary. */
export class ValueError extends Error {
  override readonly name = "ValueError";
}

/** Use of a tensor or a device after it was disposed, or of a saved value after it was changed in place. */
export class LifetimeError extends Error {
  override readonly name = "LifetimeError";
}

/** A failure inside a backend: no memory, a lost device, a kernel that is missing. */
export class BackendError extends Error {
  override readonly name = "BackendError";
}

/** "(2, 3)": how shapes are written in messages. */
export function formatShape(shape: readonly number[]): string {
  return `(${shape.join(", ")}${shape.length === 1 ? "," : ""})`;
}
