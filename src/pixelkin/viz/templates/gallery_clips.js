// Clips: which frames belong together. A clip has one card, and its frames stay in the order in which they play.

const clips = new Map(); // name to its frames
for (const entry of entries) {
  if (typeof entry.clip !== "string") continue;
  if (!clips.has(entry.clip)) clips.set(entry.clip, []);
  clips.get(entry.clip).push(entry);
}
for (const frames of clips.values()) {
  frames.sort((a, b) => a.frame - b.frame || a.index - b.index);
  frames.forEach((entry, k) => { entry.place = k; });
}

let passing = new Map(); // clip to those of its frames that pass the filters
const framesOf = (entry) => passing.get(entry.clip) || []; // none for a photograph

// sorted entries with the frames of each clip together, where the first of them came
function together(sorted) {
  passing = new Map();
  for (const entry of sorted) {
    if (clips.has(entry.clip) && !passing.has(entry.clip)) passing.set(entry.clip, clips.get(entry.clip).filter((frame) => frame.passes));
  }
  const done = new Set();
  return sorted.flatMap((entry) => {
    if (!clips.has(entry.clip)) return [entry];
    if (done.has(entry.clip)) return [];
    done.add(entry.clip);
    return passing.get(entry.clip);
  });
}

// the entries with a card: photographs, and the middle frame of each clip
const leadersOf = (visible) => visible.filter((entry) => {
  const frames = framesOf(entry);
  return !frames.length || entry === frames[frames.length >> 1];
});

const tracksIn = (frames) => new Set(frames.flatMap((entry) => entry.shown.map((i) => entry.tracks[i]).filter(Boolean))).size;

// name and numbers on a card
function captionOf(entry) {
  const frames = framesOf(entry), of = frames.length ? frames : [entry];
  const scores = of.flatMap((e) => e.shown.map((i) => e.scores[i])).filter((score) => score !== null);
  const least = scores.length ? `, lowest ${number(scores.reduce((a, b) => Math.min(a, b)))}` : "";
  const tracks = frames.length ? tracksIn(frames) : 0;
  const count = of.reduce((sum, e) => sum + e.shown.length, 0);
  const found = tracks ? plural(tracks, "object") : plural(count, "instance");
  return frames.length ? [entry.clip, `${plural(frames.length, "frame")}, ${found}${least}`] : [entry.name, found + least];
}
