// Layer: models. The public entry of language models; it exports nothing yet.
export {};
