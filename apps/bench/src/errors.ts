// Layer: apps/bench. The errors of the program and the exit code of each. Knows nothing else.

/** What was asked for cannot be: an unknown suite, flag, backend or size. Exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** What was asked for did not work. Exit code 1. */
export class FailureError extends Error {
  override readonly name = "FailureError";
}

/** The text of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
