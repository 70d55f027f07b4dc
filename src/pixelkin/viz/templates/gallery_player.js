// The player: the strip of a clip's frames below the picture, and playing them.

let playing = 0; // the timer, 0 when paused
const thumbnails = 12;

function showStrip(entry) {
  const frames = framesOf(entry);
  $("strip").hidden = frames.length < 2;
  if ($("strip").hidden) return pause();
  const at = frames.indexOf(entry);
  Object.assign($("seek"), { min: 0, max: frames.length - 1, step: 1 });
  $("seek").value = at;
  $("seek").setAttribute("aria-valuetext", `frame ${entry.frame}`);
  $("frame-number").textContent = `frame ${entry.frame}, ${at + 1} of ${frames.length}`;
  const count = Math.min(thumbnails, frames.length);
  const picked = Array.from({ length: count }, (_, k) => frames[count === 1 ? 0 : Math.round((k * (frames.length - 1)) / (count - 1))]);
  const key = JSON.stringify([state.masks, state.tint, state.low, state.high, [...state.classes], picked.map((e) => e.index)]);
  if ($("film").dataset.key !== key) {
    $("film").dataset.key = key;
    $("film").replaceChildren(...picked.map(thumbnailOf));
  }
  const near = picked.reduce((best, e) => (Math.abs(e.place - entry.place) < Math.abs(best.place - entry.place) ? e : best));
  [...$("film").children].forEach((button, k) => button.toggleAttribute("aria-current", picked[k] === near));
}

function thumbnailOf(entry) {
  const canvas = make("canvas");
  paint(entry, canvas, 96, 72);
  const image = make("img", { alt: "", decoding: "async", src: entry.picture });
  return make("button", { type: "button", title: `frame ${entry.frame}`, onclick: () => { pause(); show(entry); } }, image, canvas);
}

// only the picture changes, not what is filtered: quick enough for every frame
function show(entry) {
  state.open = entry.name;
  showDetail();
  if (!playing) writeAddress(); // browsers allow few changes of the address a second
}

function play() {
  const frames = opened ? framesOf(opened) : [];
  if (frames.length < 2) return;
  const tick = () => {
    const frames = opened ? framesOf(opened) : [];
    if (frames.length < 2) return pause();
    const next = frames[(frames.indexOf(opened) + 1) % frames.length];
    make("img").src = frames[(frames.indexOf(next) + 1) % frames.length].picture; // decoded by the time it is shown
    show(next);
  };
  playing = setInterval(tick, 1000 / Math.min(60, opened.fps || 24));
  playButton();
}

function pause() {
  if (!playing) return;
  clearInterval(playing);
  playing = 0;
  playButton();
  writeAddress();
}

function playButton() {
  $("play").textContent = playing ? "❚❚" : "►";
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
}

$("play").onclick = () => (playing ? pause() : play());
$("seek").oninput = () => {
  pause();
  if (opened) show(framesOf(opened)[+$("seek").value]);
};
