// Layer: apps/playground, text. The bundled sample: short tales of a harbour, made by a small grammar, the same each time.
// Each tale names a creature and a thing at its beginning and asks for them at its end, so that there is something to remember.
// Knows no model and no page.

const names = [
  ..."Ada Bruno Clio Dagny Elio Fenna Gustav Hedda Ivo Jonna Kasper Linnea Marit Nils Odette Pelle".split(" "),
  ..."Runa Sverre Tilda Ulf Vesna Wanda Yrsa Zeno".split(" "),
];
const creatures = "otter heron badger fox hare seal owl hedgehog crow toad cat goose beaver mole".split(" ");
const traits = "old young shy proud sleepy careful hungry clever stubborn gentle restless".split(" ");
const homes = [
  "under the third pier",
  "in a boat with no bottom",
  "behind the ropemaker's yard",
  "beside the tide clock",
  "on the roof of the fish market",
  "in the lamp room of the lighthouse",
  "where the river meets the salt water",
  "at the end of Anchor Lane",
];
const things = [
  "a brass key",
  "a green bottle",
  "a wooden whistle",
  "a letter without a name",
  "a silver button",
  "a torn map",
  "a lantern",
  "a ball of red wool",
  "a small drum",
  "a clay pipe",
  "a glass eye",
  "a spoon of bone",
];
const times = [
  "One morning",
  "One evening",
  "In the first week of autumn",
  "On the longest day",
  "After the storm",
  "When the ice had gone",
  "On a day of thick fog",
  "Late one night",
];
const places = [
  "among the nets",
  "between two stones",
  "at the foot of the stairs",
  "in the belly of a pike",
  "on the lowest step of the quay",
  "under an upturned crate",
  "in the sand",
  "inside the old bell",
];
const weathers = [
  "The wind came from the north and smelled of tar.",
  "The gulls were loud and the sea was flat as slate.",
  "It rained so softly that nobody had noticed.",
  "The moon stood over the harbour like a coin.",
  "All the boats pulled at their ropes.",
  "Somewhere a door opened and closed again.",
  "The tide was out, and the mud shone like silver.",
];
const doubts = [
  "it must belong to somebody",
  "nobody loses such a thing twice",
  "I could ask the harbour master",
  "the sea gives nothing away for nothing",
  "it would look well on my shelf",
  "I shall wait for seven days",
];
const deeds = [
  "went from door to door and asked",
  "sat down and waited for the ferry",
  "put it into a sack and walked along the quay",
  "climbed the stairs of the lighthouse",
  "rowed out to the island with the two trees",
  "asked the fishermen, who were mending their nets",
  "wrote a note and nailed it to the post",
];
const refusals = [
  "but nobody knew anything about it",
  "but they only shook their heads",
  "but everyone was busy with the herring",
  "but the answer was always no",
  "but it had begun to snow, and the doors stayed shut",
];
const endings = [
  "And that was the end of it, until the next tide.",
  "Then they drank tea, and neither of them said a word.",
  "Since then the lamp has been lit every night.",
  "The harbour master wrote it down in his book, and closed the book.",
  "They are friends to this day, and share the stove in winter.",
  "The bell rang nine, and everybody went home.",
];

/** Numbers of [0, 1), the same for each seed (Vigna's SplitMix, in 32 bits). */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  };
}

function tale(pick: <T>(list: readonly T[]) => T): string {
  const [name, other] = [pick(names), pick(names)];
  const [creature, neighbour] = [pick(creatures), pick(creatures)];
  const thing = pick(things);
  const short = thing.replace(/^a /, "");
  const first = `${name} the ${creature} lived ${pick(homes)}, and was the most ${pick(traits)} ${creature} of the harbour.`;
  const found = `${pick(times)} ${name} found ${thing} ${pick(places)}. ${pick(weathers)}`;
  const thought = `"${pick(doubts)}," thought ${name}, and ${pick(deeds)}, ${pick(refusals)}.`.replace(/^"./, (start) =>
    start.toUpperCase(),
  );
  const meeting = `At last there came ${pick(["a", "another", "a second"])} ${pick(traits)} ${neighbour} by the name of ${other}. ${pick(weathers)}`;
  const question = `"What have you there, ${name}?" asked ${other}. "It is only ${thing}," said ${name} the ${creature}.`;
  const answer = pick([
    `"Then the ${short} is mine," said ${other}, "for I have looked for it since the spring."`,
    `"Keep the ${short}," said ${other}. "Whoever finds a thing has to look after it."`,
    `"My mother had such a ${short}," said ${other} the ${neighbour}, and was quiet for a while.`,
  ]);
  return [first, found, thought, meeting, question, answer, pick(endings)].join(" ");
}

/**
 * The sample text.
 * @param characters how long it is at least, up to the end of a tale
 */
export function sampleText(characters = 160_000): string {
  const random = randomNumbers(11);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)];
  const tales: string[] = [];
  for (let length = 0; length < characters; ) {
    const next = tale(pick);
    tales.push(next);
    length += next.length + 2;
  }
  return `${tales.join("\n\n")}\n`;
}
