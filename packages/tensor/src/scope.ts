// Scopes: who frees the intermediates. A tensor belongs to the scope that is open when it is made; when the scope ends,
// all of its tensors are disposed but those that its function returns, which move to the scope around it.
// Knows that tensors can be disposed. Knows no op, no tape and no device.

import { LifetimeError } from "./errors.js";

/** What a scope can own. */
export interface Disposable {
  dispose(): void;
}

class Scope {
  readonly owned = new Set<Disposable>();
}

const open: Scope[] = [];

/** Called by the constructor of a tensor: the innermost scope, if any, owns it from now on. */
export function own(value: Disposable): void {
  open[open.length - 1]?.owned.add(value);
}

/** Called by `dispose`: nothing is left to own. Tensors mostly die in the scope they were made in. */
export function disown(value: Disposable): void {
  for (let i = open.length - 1; i >= 0; i--) if (open[i].owned.delete(value)) return;
}

/** Takes a value out of all scopes: whoever calls this disposes of it. @returns the value */
export function keep<T extends Disposable>(value: T): T {
  disown(value);
  return value;
}

function isDisposable(value: object): value is Disposable {
  return "dispose" in value && typeof value.dispose === "function";
}

/** Calls `visit` with each disposable in a value: itself, or those in (nested) arrays, maps and plain objects. */
export function visitDisposables(value: unknown, visit: (found: Disposable) => void): void {
  if (typeof value !== "object" || value === null) return;
  if (isDisposable(value)) visit(value);
  else if (Array.isArray(value)) for (const item of value) visitDisposables(item, visit);
  else if (value instanceof Map) for (const item of value.values()) visitDisposables(item, visit);
  else if (Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) visitDisposables(item, visit);
  }
}

/**
 * Runs `fn` and disposes of every tensor made in it, but for those in its result (a tensor, or arrays, maps and plain
 * objects of them). A scope is synchronous: across an `await`, hold tensors with `using`.
 * @throws LifetimeError if `fn` returns a promise
 */
export function scope<T>(fn: () => T): T {
  const scope = new Scope();
  open.push(scope);
  let result: T;
  try {
    result = fn();
    if (result instanceof Promise) {
      result.catch(() => undefined);
      throw new LifetimeError(
        "scope: the function returned a promise; a scope is synchronous. Hold tensors with `using` across an await.",
      );
    }
  } catch (error) {
    close(scope);
    throw error;
  }
  const outer = open[open.length - 2];
  visitDisposables(result, (found) => {
    if (scope.owned.delete(found)) outer?.owned.add(found);
  });
  close(scope);
  return result;
}

function close(scope: Scope): void {
  open.pop();
  for (const value of scope.owned) value.dispose();
}
