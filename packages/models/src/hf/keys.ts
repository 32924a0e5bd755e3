// Model folders: the keys of a config.json, read one by one, each with what it must be. Messages name file and key.
// Knows JSON. Knows no model.

import { FormatError, isJsonObject, type JsonObject, type JsonValue, stringifyLooseJson } from "../formats/index.js";

/** Reads the keys of one JSON object. A key without a default must be there. */
export class Keys {
  constructor(
    readonly json: JsonObject,
    /** The file, for messages. */
    readonly path: string,
    /** The keys that lead to the object, for messages: "ssm_cfg." */
    readonly prefix = "",
  ) {}

  /** @throws FormatError naming the key, its value and what it must be */
  fail(key: string, wanted: string): never {
    const value = this.json[key];
    const is = value === undefined ? "missing" : stringifyLooseJson(value, { indent: 0 });
    throw new FormatError(this.path, `"${this.prefix}${key}" is ${is}; it must be ${wanted}`);
  }

  /** The value as `accept` takes it; undefined where it does not. An absent key is given to it as the default. */
  value<T>(key: string, wanted: string, accept: (value: JsonValue) => T | undefined, initial?: JsonValue): T {
    const value = this.json[key] ?? initial;
    const taken = value === undefined ? undefined : accept(value);
    return taken === undefined ? this.fail(key, wanted) : taken;
  }

  whole(key: string, initial?: number): number {
    return this.value(key, "a whole number of at least 1", (x) => (isCount(x) && x >= 1 ? x : undefined), initial);
  }

  number(key: string, initial: number): number {
    return this.value(key, "a number", (x) => (typeof x === "number" ? x : undefined), initial);
  }

  flag(key: string, initial: boolean): boolean {
    return this.value(key, "true or false", (x) => (typeof x === "boolean" ? x : undefined), initial);
  }

  /** For what has one meaning here: anything else is refused. */
  only(key: string, allowed: readonly JsonValue[], initial: JsonValue): void {
    const texts = allowed.map((one) => JSON.stringify(one));
    const accept = (value: JsonValue) => texts.includes(JSON.stringify(value)) || undefined;
    this.value(key, texts.join(" or "), accept, initial);
  }

  /** A limit below and above; null stands for none above, as do the ways in which a file spells infinity. */
  limits(key: string): readonly [number, number | null] {
    const accept = (value: JsonValue): readonly [number, number | null] | undefined => {
      if (!Array.isArray(value) || value.length !== 2) return undefined;
      const [low, high] = value.map(numberOf);
      if (low === undefined || high === undefined || !Number.isFinite(low)) return undefined;
      return [low, high === Number.POSITIVE_INFINITY ? null : high];
    };
    return this.value(key, "two numbers, the second of which may be Infinity", accept, [0, Number.POSITIVE_INFINITY]);
  }

  /** The keys of an object inside; an empty one where it is absent. */
  inner(key: string): Keys {
    const json = this.value(key, "an object", (x) => (isJsonObject(x) ? x : undefined), {});
    return new Keys(json, this.path, `${this.prefix}${key}.`);
  }

  /** @throws FormatError for a key that is none of these */
  expectOnly(known: readonly string[]): void {
    const unknown = Object.keys(this.json).find((key) => !known.includes(key));
    if (unknown !== undefined) this.fail(unknown, `left out; known here are ${known.join(", ")}`);
  }
}

function isCount(value: JsonValue): value is number {
  return typeof value === "number" && Number.isSafeInteger(value);
}

/** A number, or what transformers 5 writes for one that JSON has no form for: { "__float__": "Infinity" }. */
function numberOf(value: JsonValue): number | undefined {
  if (typeof value === "number") return value;
  if (isJsonObject(value) && value.__float__ === "Infinity") return Number.POSITIVE_INFINITY;
  return undefined;
}
