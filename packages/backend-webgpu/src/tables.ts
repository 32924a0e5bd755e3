// Layer: the WebGPU backend. What was measured on an adapter, remembered from one start to the next: where it is kept, under which name,
// and a place for it in a browser.
// Knows tables as plain JSON. Knows no file and no kernel but the matrix product's search.

import type { Device } from "@diffmamba/tensor";
import { tuneMatmul } from "./kernels/matmul.js";
import { parseMatmulTable } from "./kernels/matmulTuning.js";

/** Where tables are kept: plain JSON by name. What fails is as good as absent. */
export interface TableStore {
  read(name: string): Promise<unknown>;
  write(name: string, table: unknown): Promise<void>;
}

const DATABASE = "diffmamba";
const OBJECTS = "tables";

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB gave no reason"));
  });
}

async function objects(mode: IDBTransactionMode): Promise<IDBObjectStore> {
  const opening = indexedDB.open(DATABASE, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(OBJECTS);
  return (await settled(opening)).transaction(OBJECTS, mode).objectStore(OBJECTS);
}

/** A browser's own store of this page's origin; workers have it too. */
export const browserTables: TableStore = {
  read: async (name) => settled((await objects("readonly")).get(name)),
  write: async (name, table) => void (await settled((await objects("readwrite")).put(table, name))),
};

/**
 * Gives the device the tiles that were measured on its adapter before, or measures and keeps them; see {@link tuneMatmul}. A store that
 * cannot be read or written changes nothing but the time it takes.
 * @param search false to take what is there and measure nothing
 */
export async function recallMatmul(device: Device, store: TableStore, search: boolean): Promise<void> {
  const name = `matmul ${device.backend.device}`;
  const stored = parseMatmulTable(await store.read(name).catch(() => undefined));
  if (stored === undefined && !search) return;
  const table = await tuneMatmul(device, { stored });
  if (stored === undefined) await store.write(name, table).catch(() => undefined);
}
