// Layer: train. Plain JSON: settings made fit for a file, and two of them compared key by key.
// Knows no setting by name.

/** What a JSON file can hold. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
export type JsonObject = { readonly [key: string]: Json };

export const isObject = (value: unknown): value is { readonly [key: string]: unknown } =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/**
 * A value as it will be read back from a file: without undefined members; NaN and the infinities as the strings "NaN",
 * "Infinity" and "-Infinity", which JSON would turn into null.
 */
export function toJson(value: unknown): Json {
  const text = JSON.stringify(value, (_, member: unknown) =>
    typeof member === "number" && !Number.isFinite(member) ? String(member) : member,
  );
  return text === undefined ? null : (JSON.parse(text) as Json);
}

/** One place where two values differ: `model.dModel`. */
export interface Difference {
  readonly path: string;
  readonly before: Json | undefined;
  readonly now: Json | undefined;
}

/** The places where two values differ, down to single members of objects and whole lists. */
export function differences(before: Json | undefined, now: Json | undefined, path = ""): Difference[] {
  if (isObject(before) && isObject(now)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(now)])];
    return keys.flatMap((key) => {
      const at = path === "" ? key : `${path}.${key}`;
      return differences(before[key] as Json | undefined, now[key] as Json | undefined, at);
    });
  }
  return JSON.stringify(before) === JSON.stringify(now) ? [] : [{ path, before, now }];
}

/** A value as messages show it; "not set" where there is none. */
export function shownJson(value: Json | undefined): string {
  if (value === undefined) return "not set";
  const text = JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
