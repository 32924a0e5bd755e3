// Layer: WebGPU execution. Pipelines by what they were made of, compiled beside each other and beside what the caller does, and the
// layouts of their bindings.
// Knows shader texts and the device. Knows no tensor, no queue and no kernel.

import { BackendError } from "@diffmamba/tensor";
import { type BindingText, type Constants, shaderText, type UniformText } from "./template.js";

/** What buffers a pipeline binds, and how: many pipelines share one. */
export interface BindingLayout {
  readonly id: number;
  readonly gpu: GPUBindGroupLayout;
}

/** A pipeline, perhaps still being compiled. */
export interface Pipeline {
  readonly name: string;
  readonly layout: BindingLayout;
  readonly uniforms: readonly UniformText[];
  /** Undefined until `compiled` is done. */
  gpu: GPUComputePipeline | undefined;
  /** Never fails: what does goes to {@link PipelineOptions.fail}. */
  readonly compiled: Promise<void>;
}

export interface PipelineSource {
  readonly name: string;
  readonly text: string;
  readonly constants: Constants;
  readonly bindings: readonly BindingText[];
  readonly uniforms: readonly UniformText[];
}

export interface PipelineOptions {
  readonly directives: readonly string[];
  readonly library: Readonly<Record<string, string>>;
  /** Bytes of uniforms that a binding holds. */
  readonly uniformBytes: number;
  fail(error: BackendError): void;
}

/** GPUShaderStage.COMPUTE */
const COMPUTE = 0x4;

export class Pipelines {
  readonly #byKey = new Map<string, Pipeline>();
  readonly #layouts = new Map<string, BindingLayout>();
  readonly #modules = new Map<string, GPUShaderModule>();

  constructor(
    private readonly device: GPUDevice,
    private readonly options: PipelineOptions,
  ) {}

  find(key: string): Pipeline | undefined {
    return this.#byKey.get(key);
  }

  /** Begins to compile. @throws BackendError for a text that is no shader of the dialect */
  make(key: string, source: PipelineSource): Pipeline {
    const { name, bindings, uniforms } = source;
    const { directives, library, uniformBytes } = this.options;
    if (4 * uniforms.length > uniformBytes) {
      throw new BackendError(`webgpu: ${name} has ${uniforms.length} uniforms; there is room for ${uniformBytes / 4}.`);
    }
    const code = shaderText({ ...source, directives }, library);
    const layout = this.#layout(bindings);
    let module = this.#modules.get(code);
    if (module === undefined) {
      // A text that is wrong is reported by its pipeline, with the compiler's words.
      this.device.pushErrorScope("validation");
      module = this.device.createShaderModule({ label: name, code });
      this.device.popErrorScope().catch(() => undefined);
      this.#modules.set(code, module);
    }
    const pipeline: { -readonly [Key in keyof Pipeline]: Pipeline[Key] } = {
      name,
      layout,
      uniforms,
      gpu: undefined,
      compiled: Promise.resolve(),
    };
    const descriptor = {
      label: name,
      layout: this.device.createPipelineLayout({ label: name, bindGroupLayouts: [layout.gpu] }),
      compute: { module, entryPoint: "main" },
    };
    const made = module;
    pipeline.compiled = this.device.createComputePipelineAsync(descriptor).then(
      (gpu) => {
        pipeline.gpu = gpu;
      },
      async (error: unknown) => this.options.fail(await compileError(name, made, error)),
    );
    this.#byKey.set(key, pipeline);
    return pipeline;
  }

  #layout(bindings: readonly BindingText[]): BindingLayout {
    const key = bindings.map(({ written }) => (written ? "w" : "r")).join("");
    let layout = this.#layouts.get(key);
    if (layout === undefined) {
      const gpu = this.device.createBindGroupLayout({
        label: key,
        entries: [
          { binding: 0, visibility: COMPUTE, buffer: { type: "uniform" } },
          ...bindings.map(({ written }, i) => ({
            binding: i + 1,
            visibility: COMPUTE,
            buffer: { type: written ? ("storage" as const) : ("read-only-storage" as const) },
          })),
        ],
      });
      layout = { id: this.#layouts.size, gpu };
      this.#layouts.set(key, layout);
    }
    return layout;
  }
}

async function compileError(name: string, module: GPUShaderModule, error: unknown): Promise<BackendError> {
  const info = await module.getCompilationInfo().catch(() => undefined);
  const messages = (info?.messages ?? []).map(({ lineNum, type, message }) => `line ${lineNum}: ${type}: ${message}`);
  const reason = error instanceof Error ? error.message : String(error);
  return new BackendError(`webgpu: the shader ${name} did not compile: ${[reason, ...messages].join("\n")}`, {
    cause: error,
  });
}
