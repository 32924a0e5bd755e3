// Layer: datasets. The public entry: sources, preparation, token stores and batches.

export { tarFiles, zipEntrySource } from "./archives.js";
export {
  type BabiOptions,
  type BabiSample,
  type BabiVariant,
  babiSamples,
  babiSources,
  babiText,
  babiVariants,
} from "./babi.js";
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
export { corpora, type FetchOptions, fetchDataSet, fetchHub, pg19Counts, pg19Sources } from "./corpora.js";
export { type DataSet, type DataSetOptions, dataSets, prepareDataSet } from "./data-sets.js";
export { DocumentIndex } from "./documents.js";
export { type Download, DownloadError, type DownloadOptions, type DownloadProgress, download } from "./download.js";
export { type HubFile, type HubOptions, hubFiles } from "./hub.js";
export { type ShardManifest, type SplitManifest, type StoreManifest, shardsOf, storeFile } from "./manifest.js";
export { addBeta, addBetaLosses, MarkovChains, type MarkovOptions } from "./markov.js";
export { ignoredTarget, type PackedOptions, type PackedState, packedBatches, type WeightedSource } from "./packed.js";
export { Permutation } from "./permutation.js";
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
export {
  type DocumentProgress,
  type DocumentShares,
  type PrepareDocumentsOptions,
  prepareDocuments,
} from "./prepare-documents.js";
export { type StoreOptions, TokenSplit, TokenStore } from "./store.js";
export {
  documentSource,
  joinTexts,
  jsonLinesSource,
  parquetSource,
  type TextOptions,
  type TextPart,
  type TextSource,
  textKind,
  textSource,
} from "./text-source.js";
export { arraySource, StoreError, type TokenSource, type TokenType } from "./token-source.js";
export {
  countedLines,
  prepareWikiText,
  type WikiTextCounts,
  type WikiTextLevel,
  type WikiTextOptions,
  wikiText103,
} from "./wikitext.js";
export type { WriteOptions } from "./write-store.js";
