// Layer: apps/cli. The nearest right word to a wrong one, by edit distance. Knows words and nothing else.
import { distance } from "fastest-levenshtein";

/** The candidate nearest to `word`, if it is near enough to be meant; the case of letters hardly counts. */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const exact = distance(word, candidate);
    const steps = Math.min(exact, distance(word.toLowerCase(), candidate.toLowerCase()) + 0.5);
    if (steps < least) [best, least] = [candidate, steps];
  }
  return least <= Math.max(2, 0.4 * word.length) ? best : undefined;
}

/** " Did you mean x?", or the list of what there is where it is short, or nothing. */
export function didYouMean(word: string, candidates: Iterable<string>, listUpTo = 0): string {
  const all = [...candidates];
  const near = nearest(word, all);
  if (near !== undefined) return ` Did you mean ${near}?`;
  return all.length > 0 && all.length <= listUpTo ? ` There are ${all.join(", ")}.` : "";
}
