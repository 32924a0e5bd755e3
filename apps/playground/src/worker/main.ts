// Layer: apps/playground, worker. The entry: requests come in, answers and events go out. Knows the lab and the protocol.

import "./polyfill.js";
import type { Ask, Event, RequestMessage, RequestName, WorkerMessage } from "../protocol.js";
import { backendReports, openBackend } from "./backends.js";
import { Lab } from "./lab.js";

/** What is used of a worker's global object. */
interface WorkerScope {
  postMessage(message: WorkerMessage, transfer?: readonly ArrayBuffer[]): void;
  addEventListener(type: "message", listener: (event: { readonly data: RequestMessage }) => void): void;
}
const worker = globalThis as unknown as WorkerScope;

const post = (event: Event) => worker.postMessage({ kind: "event", event });
const lab = new Lab({ reports: backendReports, open: openBackend }, post);

function answer({ id, name, ask }: RequestMessage): Promise<unknown> {
  // The name says which request it is; the types of one message cannot.
  const as = <N extends RequestName>(_: N) => ask as Ask<N>;
  switch (name) {
    case "open":
      return lab.open(as(name));
    case "train":
      return lab.train(as(name));
    case "pause":
      return lab.pause();
    case "resume":
      return lab.resume();
    case "extend":
      return lab.extend(as(name));
    case "generate":
      return lab.generate(as(name), (text) => post({ type: "text", request: id, text }));
    case "cancel":
      return lab.cancel();
    case "load":
      return lab.load(as(name));
    case "export":
      return lab.export(as(name));
  }
}

worker.addEventListener("message", async ({ data }) => {
  const { id } = data;
  try {
    const result = await answer(data);
    const zip = (result as { zip?: Uint8Array<ArrayBuffer> } | undefined)?.zip;
    worker.postMessage({ kind: "answer", id, answer: result }, zip ? [zip.buffer] : []);
  } catch (error) {
    const { name, message } = error instanceof Error ? error : new Error(String(error));
    worker.postMessage({ kind: "error", id, name, message });
  }
});
