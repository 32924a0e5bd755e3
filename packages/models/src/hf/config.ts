// Model folders: config.json to a configuration and back. A model is saved in a published form where that form can hold it:
// where what is written there, read again, is the same model.
// Knows the forms. Knows no tensor and no file.

import { type ModelConfig, modelConfig } from "../config.js";
import { ConfigError } from "../configChecks.js";
import { FormatError, isJsonObject, type JsonObject, type JsonValue, stringifyLooseJson } from "../formats/index.js";
import { differences, type ModelForm, sameModel, type WritableForm } from "./form.js";
import { mambaForm } from "./mamba.js";
import { mamba2Form } from "./mamba2.js";
import { originalForm } from "./original.js";
import { ownForm, ownKey } from "./own.js";

const published: readonly WritableForm[] = [mambaForm, mamba2Form];
const forms: readonly ModelForm[] = [...published, ownForm, originalForm];

/** A configuration error as one of the file that it comes from. */
function inFile<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new FormatError(path, `no model can have this configuration: ${error.message}`, { cause: error });
  }
}

/**
 * The configuration that a config.json describes.
 * @param path the file, for messages
 * @throws FormatError naming the file and an architecture, key or value that is not supported
 */
export function readConfig(json: JsonValue, path: string): ModelConfig {
  if (!isJsonObject(json)) throw new FormatError(path, "holds no object with a model's configuration");
  const form = forms.find((one) => one.matches(json));
  if (form === undefined) {
    const type = stringifyLooseJson(json.model_type ?? null, { indent: 0 });
    const known = forms.map(({ name }) => name).join(", ");
    throw new FormatError(path, `"model_type" is ${type}, which is not known; the forms known here are ${known}`);
  }
  const config = inFile(path, () => form.read(json, path));
  const more = json[ownKey];
  if (form === ownForm || more === undefined) return config;
  if (!isJsonObject(more)) throw new FormatError(path, `"${ownKey}" is no object`);
  const whole = inFile(path, () => modelConfig({ ...config, ...more }));
  if (!sameModel(whole, config)) {
    const fields = Object.keys(differences(whole, config)).join(", ");
    throw new FormatError(path, `"${ownKey}" (${fields}) says another model than the keys beside it; remove one`);
  }
  return whole;
}

/** What a published form makes of a configuration, if that form can hold it. */
function written(form: WritableForm, config: ModelConfig): JsonObject | undefined {
  const json = form.write(config);
  if (json === undefined) return undefined;
  try {
    const again = form.read(json, "config.json");
    if (!sameModel(again, config)) return undefined;
    const rest = differences(config, again);
    return Object.keys(rest).length === 0 ? json : { ...json, [ownKey]: rest as JsonObject };
  } catch (error) {
    if (error instanceof FormatError || error instanceof ConfigError) return undefined;
    throw error;
  }
}

/** The config.json of a model: in a published form where one can hold it, else in that of this project. */
export function writeConfig(config: ModelConfig): JsonObject {
  for (const form of published) {
    const json = written(form, config);
    if (json !== undefined) return json;
  }
  return ownForm.write(config) ?? {};
}
