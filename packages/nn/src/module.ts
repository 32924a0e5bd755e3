// Modules: named parameters and submodules, the names under which they are published, and training or evaluation mode.
// Memory may hold a parameter fused where checkpoints hold it in parts; the list of published tensors is the way between.
// Knows tensors on a device. Knows no file, no layer and no optimizer.

import type { Device, HostTensor } from "@diffmamba/tensor";
import type { Parameter } from "./parameter.js";
import { type PublishedTensor, pack, publishedShape, unpack, whole } from "./published.js";

/** What a module is made of: parameters and other modules, under the names that checkpoints use. */
type Member = Parameter | Module;

/** What a module may hold besides. */
interface Held {
  dispose(): void;
}

export abstract class Module {
  readonly #members = new Map<string, Member>();
  readonly #held: Held[] = [];
  #training = true;

  /** True while training: dropout acts. */
  get training(): boolean {
    return this.#training;
  }

  /** Registers a parameter or a submodule under its published name; "" adds no part to the path. @returns it */
  protected register<T extends Member>(name: string, member: T): T {
    if (this.#members.has(name)) throw new Error(`${this.constructor.name}: two members are called ${name}.`);
    this.#members.set(name, member);
    return member;
  }

  /** Takes over what steps of decoding keep: training lets go of it. @returns it */
  protected hold<T extends Held>(held: T): T {
    this.#held.push(held);
    return held;
  }

  /** The submodules by name. */
  children(): [string, Module][] {
    return [...this.#members].filter((entry): entry is [string, Module] => entry[1] instanceof Module);
  }

  /** All parameters as memory holds them, by path. A parameter used twice appears once, under its first path. */
  namedParameters(prefix = ""): Map<string, Parameter> {
    const found = new Map<string, Parameter>();
    const seen = new Set<Parameter>();
    for (const [name, member] of this.#members) {
      const path = [prefix, name].filter((part) => part !== "").join(".");
      const inner = member instanceof Module ? member.namedParameters(path) : new Map([[path, member]]);
      for (const [key, parameter] of inner) {
        if (seen.has(parameter)) continue;
        seen.add(parameter);
        found.set(key, parameter);
      }
    }
    return found;
  }

  parameters(): Parameter[] {
    return [...this.namedParameters().values()];
  }

  /** How many numbers are trained. */
  parameterCount(): number {
    return this.parameters().reduce((sum, parameter) => sum + parameter.size, 0);
  }

  /** The module's own parameters, without those of its submodules, as published; a fused module overrides this. */
  protected ownPublished(): PublishedTensor[] {
    return [...this.#members].flatMap(([name, member]) => (member instanceof Module ? [] : [whole(name, member)]));
  }

  /** All tensors that a checkpoint of this module holds, by their published names. */
  published(prefix = ""): PublishedTensor[] {
    const at = (name: string) => [prefix, name].filter((part) => part !== "").join(".");
    const seen = new Set<string>();
    const own = this.ownPublished().map((entry) => ({ ...entry, name: at(entry.name) }));
    const inner = this.publishedChildren().flatMap(([name, child]) => child.published(at(name)));
    return [...own, ...inner].filter(({ name }) => !seen.has(name) && seen.add(name));
  }

  /** The submodules whose tensors are published under their own names. */
  protected publishedChildren(): [string, Module][] {
    return this.children();
  }

  /** Every published tensor, read from the device. */
  async stateDict(): Promise<Map<string, HostTensor>> {
    return unpack(this.published(), (parameter) => parameter.hostData());
  }

  /**
   * Writes published tensors to the parameters, bit for bit or converted between float types.
   * @throws Error naming the tensors that are missing, unknown (unless `strict` is false) or of another shape; then
   * nothing was written
   */
  loadStateDict(tensors: ReadonlyMap<string, HostTensor>, options: { readonly strict?: boolean } = {}): void {
    const published = this.published();
    const known = new Set(published.map(({ name }) => name));
    const missing = published.filter(({ name }) => !tensors.has(name)).map(({ name }) => name);
    const unknown = [...tensors.keys()].filter((name) => !known.has(name));
    if (missing.length > 0) throw new Error(`loadStateDict: ${list(missing)} missing.`);
    if (unknown.length > 0 && options.strict !== false)
      throw new Error(`loadStateDict: ${list(unknown)} unknown to the model.`);
    for (const entry of published) {
      const shape = tensors.get(entry.name)?.shape ?? [];
      const wanted = publishedShape(entry);
      if (shape.length !== wanted.length || shape.some((n, i) => n !== wanted[i])) {
        throw new Error(`loadStateDict: ${entry.name} is (${shape.join(", ")}); the model has (${wanted.join(", ")}).`);
      }
    }
    for (const [parameter, data] of pack(published, tensors)) parameter.write(data);
  }

  /** Training mode, for this module and all in it. */
  train(training = true): this {
    this.#training = training;
    if (training) for (const held of this.#held) held.dispose();
    for (const [, child] of this.children()) child.train(training);
    return this;
  }

  /** Evaluation mode: dropout does nothing. */
  eval(): this {
    return this.train(false);
  }

  /** Where the parameters live. Asked for with each token: no list of all of them is made for it. */
  get device(): Device {
    const first = this.#firstParameter();
    if (first === undefined) throw new Error(`${this.constructor.name}: has no parameters, and so no device.`);
    return first.device;
  }

  #firstParameter(): Parameter | undefined {
    for (const member of this.#members.values()) {
      const found = member instanceof Module ? member.#firstParameter() : member;
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Frees all parameters, and what submodules hold besides. */
  dispose(): void {
    for (const held of [...this.#held, ...this.#members.values()]) held.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, 5).join(", ");
  const more = names.length > 5 ? ` and ${names.length - 5} more` : "";
  return `${shown}${more} ${names.length === 1 ? "is" : "are"}`;
}
