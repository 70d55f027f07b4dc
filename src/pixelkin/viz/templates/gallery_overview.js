// The overview: which images and instances pass the filters, and a card for each image.

// ---- filtering -----------------------------------------------------------------------------------------------------
let visible = []; // the entries shown, in order
let leaders = []; // those of them with a card

function apply() {
  const [low, high] = [scoreAt(state.low) - 1e-9, scoreAt(state.high) + 1e-9];
  const anyScore = state.low === 0 && state.high === steps;
  const anyInstance = anyScore && !state.classes.size;
  const query = state.query.trim().toLowerCase();
  const facets = new Map(present.map((c) => [c.id, 0]));
  const bins = new Array(40).fill(0);
  let instances = 0, named = 0;
  visible = [];
  for (const entry of entries) {
    entry.shown = [];
    entry.passes = false;
    if (query && !entry.key.includes(query)) continue;
    named += entry.labels.length;
    entry.labels.forEach((label, i) => {
      const score = entry.scores[i];
      const scored = anyScore || (score !== null && score >= low && score <= high);
      const classed = !state.classes.size || state.classes.has(label);
      if (scored) facets.set(label, facets.get(label) + 1);
      if (classed && score !== null) bins[Math.min(bins.length - 1, Math.floor(((score - least) / (most - least)) * bins.length))]++;
      if (scored && classed) entry.shown.push(i);
    });
    instances += entry.shown.length;
    entry.passes = anyInstance || entry.shown.length > 0;
    if (entry.passes) visible.push(entry);
  }
  const lowest = new Map(visible.map((e) => [e, e.shown.reduce((worst, i) => Math.min(worst, e.scores[i] ?? worst), Infinity)]));
  const byName = (a, b) => a.rank - b.rank;
  const orders = {
    run: (a, b) => a.index - b.index,
    name: byName,
    most: (a, b) => b.shown.length - a.shown.length || byName(a, b),
    fewest: (a, b) => a.shown.length - b.shown.length || byName(a, b),
    doubt: (a, b) => (lowest.get(a) < lowest.get(b) ? -1 : lowest.get(a) > lowest.get(b) ? 1 : byName(a, b)),
  };
  visible = together(visible.sort(orders[state.sort]));
  leaders = leadersOf(visible);

  const all = entries.reduce((sum, e) => sum + e.labels.length, 0);
  const of = (n, total) => (n === total ? "" : ` of ${total.toLocaleString("en")}`);
  $("status").replaceChildren(
    make("b", { textContent: visible.length.toLocaleString("en") }), `${of(visible.length, entries.length)} image${entries.length === 1 ? "" : "s"}, `,
    make("b", { textContent: instances.toLocaleString("en") }), `${of(instances, all)} instance${all === 1 ? "" : "s"}`,
    clips.size ? `, ${plural(leaders.filter((e) => clips.has(e.clip)).length, "clip")}` : "");
  Object.assign($("status").dataset, { images: visible.length, instances });
  for (const c of present) {
    c.counter.textContent = facets.get(c.id).toLocaleString("en");
    c.row.classList.toggle("none", !facets.get(c.id));
    c.box.checked = state.classes.has(c.id);
  }
  $("low").value = state.low;
  $("high").value = state.high;
  $("low").style.zIndex = state.low > steps / 2 ? 1 : 0; // both thumbs stay within reach at either end
  $("low").setAttribute("aria-valuetext", number(scoreAt(state.low)));
  $("high").setAttribute("aria-valuetext", number(scoreAt(state.high)));
  $("score-range").textContent = `${number(scoreAt(state.low))} – ${number(scoreAt(state.high))}`;
  for (const name of ["query", "sort", "tint"]) if ($(name).value !== state[name]) $(name).value = state[name];
  $("masks").checked = state.masks;
  $("reset").disabled = anyInstance && !query;
  $("nothing").hidden = visible.length > 0;
  drawHistogram(bins);
  showCards();
  showDetail();
  writeAddress();
}

let pending = 0;
const change = (values) => {
  Object.assign(state, values);
  pending ||= requestAnimationFrame(() => { pending = 0; apply(); });
};

function drawHistogram(bins) {
  const canvas = $("histogram"), ratio = devicePixelRatio || 1, width = canvas.clientWidth * ratio, height = 44 * ratio;
  Object.assign(canvas, { width, height });
  const brush = canvas.getContext("2d"), style = getComputedStyle(document.documentElement), highest = Math.max(1, ...bins);
  bins.forEach((count, k) => {
    const inside = ((k + 1) / bins.length) * steps > state.low && (k / bins.length) * steps < state.high;
    brush.fillStyle = style.getPropertyValue(inside ? "--accent" : "--line");
    const bar = count && Math.max(2 * ratio, (count / highest) * height), step = (width - 16 * ratio) / bins.length;
    brush.fillRect(8 * ratio + k * step, height - bar, step - ratio, bar);
  });
}

// ---- cards: pictures are put in only near the window, and taken out far from it --------------------------------------
const colorOf = (entry, i) => (state.tint === "class" ? classes.get(entry.labels[i]).color : entry.colors[i]);

const watcher = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    const entry = target.entry;
    entry.near = isIntersecting;
    if (isIntersecting) {
      entry.image.src = entry.picture;
      draw(entry);
    } else {
      entry.image.removeAttribute("src");
      entry.canvas.width = entry.canvas.height = 0;
    }
  }
}, { rootMargin: "600px" });

function cardOf(entry) {
  if (entry.card) return entry.card;
  entry.image = make("img", { alt: "", decoding: "async" });
  entry.canvas = make("canvas", { width: 0, height: 0 });
  entry.words = make("span");
  entry.button = make("button", { className: "card", type: "button", title: captionOf(entry)[0], onclick: () => change({ open: (framesOf(entry)[0] || entry).name }) },
    make("span", { className: "frame" }, entry.image, entry.canvas),
    make("span", { className: "words" }, make("b", { textContent: captionOf(entry)[0] }), entry.words));
  entry.button.classList.toggle("clip", clips.has(entry.clip));
  entry.card = make("li", { entry }, entry.button);
  watcher.observe(entry.card);
  return entry.card;
}

function showCards() {
  const cards = leaders.map(cardOf), grid = $("grid");
  if (cards.length !== grid.children.length || cards.some((card, k) => card !== grid.children[k])) {
    const focused = document.activeElement;
    grid.replaceChildren(...cards);
    if (focused && focused.isConnected && focused !== document.activeElement) focused.focus();
  }
  for (const entry of leaders) {
    const [name, words] = captionOf(entry);
    entry.words.textContent = words;
    entry.button.setAttribute("aria-label", `${name}: ${words}`);
    if (entry.near) draw(entry);
  }
}

const draw = (entry) => paint(entry, entry.canvas, 280, 210);

// the masks of an entry on a canvas that is shown at most so large
function paint(entry, canvas, widest, highest) {
  const [width, height] = entry.grid, brush = canvas.getContext("2d");
  const scale = Math.min((widest * 1.5) / width, (highest * 1.5) / height);
  Object.assign(canvas, { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) });
  if (!state.masks) return;
  entry.outlines ||= entry.paths.map((path) => new Path2D(path));
  brush.scale(scale, scale);
  brush.lineJoin = "round";
  brush.lineWidth = 1.6 / scale;
  const order = [...entry.shown].sort((a, b) => entry.areas[b] - entry.areas[a]);
  for (const i of order) {
    brush.fillStyle = brush.strokeStyle = colorOf(entry, i);
    brush.globalAlpha = 0.42;
    brush.fill(entry.outlines[i], "evenodd");
    brush.globalAlpha = 1;
    brush.stroke(entry.outlines[i]);
  }
}
