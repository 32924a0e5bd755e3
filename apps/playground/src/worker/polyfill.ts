// Layer: apps/playground, worker. What `using` needs where a browser does not know it yet. Imported before everything else.

for (const name of ["dispose", "asyncDispose"] as const) {
  if (Symbol[name] === undefined) Object.defineProperty(Symbol, name, { value: Symbol(`Symbol.${name}`) });
}

export {};
