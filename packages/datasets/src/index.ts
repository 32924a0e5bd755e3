// Layer: datasets. The public entry: sources, preparation, token stores and batches.
export {
  type Batch,
  type Batches,
  type BatchOptions,
  type BatchState,
  randomBatches,
  rowBatches,
  windowBatches,
} from "./batches.js";
export { type ByteSource, fileSource, joinSources, memorySource } from "./byte-source.js";
export { type DataSet, type DataSetOptions, dataSets, prepareDataSet } from "./data-sets.js";
export { DocumentIndex } from "./documents.js";
export { type ShardManifest, type SplitManifest, type StoreManifest, shardsOf, storeFile } from "./manifest.js";
export { addBeta, addBetaLosses, MarkovChains, type MarkovOptions } from "./markov.js";
export {
  type PrepareBytesOptions,
  type PrepareOptions,
  type PrepareProgress,
  type PrepareTextOptions,
  prepareBytes,
  prepareText,
  type Share,
  type SplitRules,
} from "./prepare.js";
export { type StoreOptions, TokenSplit, TokenStore } from "./store.js";
export { arraySource, StoreError, type TokenSource, type TokenType } from "./token-source.js";
export type { WriteOptions } from "./write-store.js";
