// Building a model whose weights come from a file: no first values are drawn.
// Knows how modules are built. Knows no model and no file.

import { Build, type BuildOptions, Parameter } from "@diffmamba/nn";

/** Makes parameters with arbitrary content; whoever builds with it writes all of them. */
export class EmptyBuild extends Build {
  constructor(options: BuildOptions = {}, path = "", parent?: Build) {
    super(options, path, parent);
  }

  override at(name: string): EmptyBuild {
    return new EmptyBuild(this, [this.path, name].filter((part) => part !== "").join("."), this);
  }

  override parameter(_name: string, shape: readonly number[]): Parameter {
    return Parameter.empty(this.device, shape, this.dtype);
  }

  override dynamics(_name: string, shape: readonly number[]): Parameter {
    return Parameter.empty(this.device, shape, this.dtype === "f64" ? "f64" : "f32");
  }
}
