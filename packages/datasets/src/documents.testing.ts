// For tests: documents to prepare.

/** Documents of very different lengths, the same every time; some are empty. */
export function someDocuments(count: number): string[] {
  let state = 3;
  const draw = (below: number) => {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    return Math.floor(((state >> 8) * below) / 2 ** 23);
  };
  const words = ["state", "space", "naïve", "scan", "😀", "of", "the", "\n"];
  return Array.from({ length: count }, () =>
    Array.from({ length: draw(draw(4) === 0 ? 3000 : 30) }, () => words[draw(8)]).join(" "),
  );
}
