// Checkpoint formats: everything this folder offers to the rest of the package.
export { openCheckpointTensors } from "./checkpointTensors.js";
export { FormatError } from "./errors.js";
export {
  isJsonObject,
  type JsonObject,
  type JsonValue,
  type LooseJsonOptions,
  parseLooseJson,
  parseLooseJsonBytes,
  readLooseJson,
  type StringifyOptions,
  stringifyLooseJson,
} from "./looseJson.js";
export { parseSafetensors, type SafetensorsContent, SafetensorsFile } from "./safetensors.js";
export { parseSafetensorsHeader, type SafetensorsEntry, type SafetensorsHeader } from "./safetensorsHeader.js";
export {
  type LazyTensor,
  type NamedTensors,
  serializeSafetensors,
  type WritableTensor,
  type WriteSafetensorsOptions,
  writeSafetensors,
} from "./safetensorsWrite.js";
export {
  openShardedSafetensors,
  safetensorsIndexName,
  safetensorsName,
  type WriteShardsOptions,
  writeShardedSafetensors,
} from "./shardedSafetensors.js";
export { readShardIndex, ShardedTensors, type WeightMap } from "./shardIndex.js";
export type { TensorDescription, TensorFile } from "./tensorFile.js";
export { openShardedTorchBin, TorchBinFile, torchBinIndexName, torchBinName } from "./torchBin.js";
