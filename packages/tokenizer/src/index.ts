// Layer: tokenizer. The public entry: characters, bytes, words and tokenizer.json, whole or streamed, in folders or as JSON; and
// the training of a byte-level BPE.
export { type TrainOptions, type TrainProgress, trainBpe, type WordCounter, type WordCounts } from "./bpe.js";
export { type ByteLevelOptions, byteLevelJson, gpt2Json, type Merge } from "./byte-level.js";
export { type ByteJSON, ByteTokenizer } from "./bytes.js";
export {
  type CharacterJSON,
  type CharacterOptions,
  CharacterTokenizer,
  collectCodePoints,
  text8Tokenizer,
} from "./characters.js";
export { type Encoded, encodeTexts, serialEncoder, type TextsEncoder } from "./encode-texts.js";
export { type HuggingFaceJSON, HuggingFaceTokenizer } from "./hugging-face.js";
export {
  gpt2MergesFile,
  gpt2VocabFile,
  huggingFaceConfigFile,
  huggingFaceFile,
  loadTokenizer,
  saveTokenizer,
  tokenizerFile,
  tokenizerFromJSON,
} from "./load.js";
export {
  type DecodeOptions,
  type EncodeOptions,
  paddedVocabSize,
  type SpecialTokens,
  type Tokenizer,
  TokenizerFormatError,
  type TokenizerKind,
  type TokenStream,
  UnknownSymbolError,
  utf8Length,
} from "./tokenizer.js";
export { countWords, type WordJSON, type WordOptions, WordTokenizer, wordCount } from "./words.js";
