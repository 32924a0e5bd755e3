// Layer: apps/playground, page. The worker, seen from the page: requests that resolve to their answers, and events.
// Knows the protocol. Knows no element.

import type { Answer, Ask, Event, RequestName, WorkerMessage } from "../protocol.js";

/** A request that the worker could not do. The message is meant for the visitor. */
export class RequestError extends Error {
  override readonly name = "RequestError";
}

interface Pending {
  resolve(answer: unknown): void;
  reject(error: Error): void;
  readonly onText?: (text: string) => void;
}

export class WorkerClient {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #next = 1;

  /** @param onCrash called when the worker itself has failed: nothing it held is left */
  constructor(onEvent: (event: Event) => void, onCrash: (message: string) => void) {
    this.#worker = new Worker(new URL("../worker/main.ts", import.meta.url), { type: "module", name: "training" });
    this.#worker.addEventListener("message", ({ data }: MessageEvent<WorkerMessage>) => this.#receive(data, onEvent));
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      const message = event.message || "its program could not be loaded";
      for (const { reject } of this.#pending.values()) reject(new RequestError(`The worker has failed: ${message}.`));
      this.#pending.clear();
      onCrash(message);
    });
  }

  /** Asks the worker for something. @throws RequestError with what the worker says went wrong */
  ask<N extends RequestName>(name: N, ask: Ask<N>, onText?: (text: string) => void): Promise<Answer<N>> {
    const id = this.#next++;
    return new Promise<Answer<N>>((resolve, reject) => {
      const settle = (answer: unknown) => resolve(answer as Answer<N>);
      this.#pending.set(id, { resolve: settle, reject, ...(onText && { onText }) });
      this.#worker.postMessage({ id, name, ask });
    });
  }

  #receive(message: WorkerMessage, onEvent: (event: Event) => void): void {
    if (message.kind === "event") {
      const { event } = message;
      if (event.type === "text") this.#pending.get(event.request)?.onText?.(event.text);
      else onEvent(event);
      return;
    }
    const pending = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if (message.kind === "answer") pending?.resolve(message.answer);
    else pending?.reject(new RequestError(message.message));
  }
}
