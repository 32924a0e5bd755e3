// Layer: tokenizer. The public entry: characters, bytes and tokenizer.json, whole or streamed, in folders or as JSON.
export { type ByteJSON, ByteTokenizer } from "./bytes.js";
export {
  type CharacterJSON,
  type CharacterOptions,
  CharacterTokenizer,
  collectCodePoints,
  text8Tokenizer,
} from "./characters.js";
export { type HuggingFaceJSON, HuggingFaceTokenizer } from "./hugging-face.js";
export {
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
  type SpecialTokens,
  type Tokenizer,
  TokenizerFormatError,
  type TokenizerKind,
  type TokenStream,
  UnknownSymbolError,
  utf8Length,
} from "./tokenizer.js";
