// Layer: apps/playground. What the page and its worker say to each other: requests with one answer each, and events.
// Plain data only. Knows no page, no device and no model.

import type { RunSettings } from "./settings.js";

export type BackendName = "webgpu" | "wasm" | "reference";

/** The two models that are trained side by side. */
export type Contender = "vanilla" | "differential";
export const contenders: readonly Contender[] = ["vanilla", "differential"];

/** A model that text can be had from. */
export type Slot = Contender | "loaded";

export interface BackendReport {
  readonly name: BackendName;
  readonly title: string;
  readonly available: boolean;
  /** Why it cannot be had; "" where it can. */
  readonly reason: string;
  /** Whether it is a GPU's interface that the CPU computes for, many times slower than WebAssembly. */
  readonly software: boolean;
}

/** What computes now. */
export interface BackendState {
  readonly name: BackendName;
  readonly title: string;
  /** What it computes on, such as a GPU's name, or instruction set and threads. */
  readonly device: string;
  readonly reports: readonly BackendReport[];
  /** Why it is not the one that was asked for. */
  readonly note?: string;
}

export interface ModelSummary {
  readonly slot: Slot;
  readonly title: string;
  readonly parameters: number;
  readonly layers: number;
  readonly width: number;
  /** Which layers are differential. */
  readonly differential: readonly number[];
  /** Symbols of the vocabulary. */
  readonly symbols: number;
  /** Lambda of each differential layer that has one. */
  readonly lambda: readonly LambdaValue[];
  /** Steps that it was trained here, where it was. */
  readonly step?: number;
}

export interface LambdaValue {
  readonly layer: number;
  readonly value: number;
}

export type Phase = "preparing" | "training" | "paused" | "finished" | "interrupted";

export interface RunSummary {
  readonly name: string;
  /** Characters that are trained on, and held out. */
  readonly characters: number;
  readonly heldOut: number;
  readonly symbols: number;
  /** What a token is: the unit of all losses is bits for one of them. */
  readonly symbol: "character" | "byte";
  /** What samples begin with. */
  readonly prompt: string;
  readonly models: readonly ModelSummary[];
  readonly settings: RunSettings;
}

/** Where a checkpoint comes from. Paths are relative, with `/` between their parts. */
export type CheckpointSource =
  | { readonly kind: "folder"; readonly name: string; readonly handle: FileSystemDirectoryHandle }
  | { readonly kind: "files"; readonly name: string; readonly files: readonly { path: string; file: File }[] }
  | { readonly kind: "zip"; readonly name: string; readonly file: File };

/** Each request with what it asks and what it is answered. */
export interface Requests {
  /** Opens a backend, the best that works here where none is named; a run goes on where it stood. */
  open: { ask: { readonly backend?: BackendName; readonly threads?: number }; answer: BackendState };
  /** Begins to train on a text. Answered once the first step may be taken, after the event "run". */
  train: { ask: { readonly name: string; readonly text: string; readonly settings: RunSettings }; answer: undefined };
  pause: { ask: object; answer: undefined };
  /** Goes on after a pause, or after an interruption from what was saved last. */
  resume: { ask: object; answer: undefined };
  /** Takes more steps, behind the last one. */
  extend: { ask: { readonly steps: number }; answer: undefined };
  generate: {
    ask: {
      readonly slot: Slot;
      readonly prompt: string;
      readonly temperature: number;
      readonly maxTokens: number;
      readonly seed: number;
    };
    answer: { readonly tokens: number; readonly seconds: number; readonly stopped: boolean };
  };
  /** Stops generating, now. */
  cancel: { ask: object; answer: undefined };
  load: { ask: CheckpointSource; answer: ModelSummary };
  /** Writes a model's folder: below a directory, or as a zip. */
  export: {
    ask: { readonly slot: Slot; readonly to?: FileSystemDirectoryHandle };
    answer: { readonly name: string; readonly zip?: Uint8Array<ArrayBuffer> };
  };
}

export type RequestName = keyof Requests;
export type Ask<N extends RequestName> = Requests[N]["ask"];
export type Answer<N extends RequestName> = Requests[N]["answer"];

export interface RequestMessage<N extends RequestName = RequestName> {
  readonly id: number;
  readonly name: N;
  readonly ask: Ask<N>;
}

/** What the worker tells of its own accord. */
export type Event =
  /** A new run: whatever comes after this is about it. */
  | { readonly type: "run"; readonly run: RunSummary }
  | { readonly type: "phase"; readonly phase: Phase; readonly step: number; readonly steps: number }
  | {
      readonly type: "step";
      readonly slot: Contender;
      readonly step: number;
      readonly bits: number;
      readonly tokensPerSecond: number;
      readonly lambda?: readonly LambdaValue[];
    }
  | { readonly type: "heldOut"; readonly slot: Contender; readonly step: number; readonly bits: number }
  | { readonly type: "sample"; readonly slot: Contender; readonly step: number; readonly prompt: string }
  | { readonly type: "sampleText"; readonly slot: Contender; readonly text: string }
  /** A piece of text of the request that is under way. */
  | { readonly type: "text"; readonly request: number; readonly text: string }
  /** Training had to stop; `savedStep` is what `resume` goes on from. */
  | { readonly type: "interrupted"; readonly message: string; readonly savedStep: number }
  | { readonly type: "warning"; readonly message: string };

export type WorkerMessage =
  | { readonly kind: "answer"; readonly id: number; readonly answer: unknown }
  | { readonly kind: "error"; readonly id: number; readonly name: string; readonly message: string }
  | { readonly kind: "event"; readonly event: Event };
