// The detail view: one image with its pictures, outlines and list of instances.

const dialog = $("detail");
let tab = 0, lit = null, opened = null;

function showDetail() {
  const entry = state.open === null ? undefined : entryOf.get(state.open);
  if (!entry) {
    pause();
    if (state.open !== null) state.open = null;
    const left = opened;
    opened = null;
    if (dialog.open) dialog.close();
    const card = left && leaders.find((e) => e === left || (clips.has(e.clip) && e.clip === left.clip));
    if (card && card.button.isConnected) card.button.focus();
    return;
  }
  const fresh = opened !== entry;
  if (fresh) lit = sameTrack(opened, entry);
  opened = entry;
  const pictures = [{ caption: "Image", picture: entry.picture }, ...entry.pictures];
  tab = Math.min(tab, pictures.length - 1);
  if (fresh) {
    const choose = (k) => { state.sheet = k === pictures.length; tab = state.sheet ? tab : k; showDetail(); writeAddress(); };
    const tabs = [...pictures.map(({ caption }, k) => [caption, k + 1]), ["Side by side", "a"]];
    $("tabs").replaceChildren(...(pictures.length < 2 ? [] : tabs.map(([caption, key], k) =>
      make("button", { type: "button", textContent: caption, title: `${caption} (${key})`, onclick: () => choose(k) }))));
  }
  const together = state.sheet && pictures.length > 1;
  [...$("tabs").children].forEach((button, k) => button.setAttribute("aria-pressed", k === (together ? pictures.length : tab)));
  $("stage").hidden = together;
  $("sheet").hidden = !together;
  const large = $("large");
  large.onload = () => large.classList.toggle("grainy", tab > 0 && large.naturalWidth < 200);
  large.src = pictures[tab].picture;
  large.alt = `${entry.name}: ${pictures[tab].caption}`;

  const place = visible.indexOf(entry);
  $("position").textContent = place < 0 ? "" : `${place + 1} / ${visible.length}`;
  $("previous").disabled = place <= 0;
  $("next").disabled = place < 0 || place === visible.length - 1;
  $("toggle").setAttribute("aria-pressed", state.masks);
  $("detail-name").textContent = entry.name;
  $("detail-meta").textContent = `${entry.size[1]} × ${entry.size[0]} pixels, ${plural(entry.labels.length, "instance")}`;
  const hidden = entry.labels.length - entry.shown.length;
  $("hidden-rows").textContent = hidden ? `${plural(hidden, "instance")} hidden by the filters` : "";

  const order = [...entry.shown].sort((a, b) => (entry.scores[b] ?? -1) - (entry.scores[a] ?? -1));
  $("rows").replaceChildren(...order.map((i) => rowOf(entry, i)));
  drawOutlines(entry);
  if (!dialog.open) {
    dialog.showModal();
    dialog.focus();
  }
  if (together) drawSheet(entry, pictures); // only an open dialog has a size
  else $("sheet").replaceChildren();
  showStrip(entry);
  highlight(entry.shown.includes(lit) ? lit : null);
  if (fresh) dialog.querySelector(".list-side .scroll").scrollTop = 0;
}

// where the highlighted object is in another frame of its clip
function sameTrack(before, entry) {
  const track = before && lit !== null && before.clip === entry.clip ? before.tracks[lit] : 0;
  return track ? entry.shown.find((i) => entry.tracks[i] === track) ?? null : null;
}

function rowOf(entry, i) {
  const swatch = make("span", { className: "swatch" });
  swatch.style.background = colorOf(entry, i);
  const row = make("tr", { onmouseenter: () => highlight(i), onmouseleave: () => highlight(null) },
    make("td", {}, make("div", {}, swatch, classes.get(entry.labels[i]).name, ...(entry.crowd[i] ? [make("small", { textContent: "crowd" })] : []),
      ...(entry.tracks[i] ? [make("small", { textContent: `track ${entry.tracks[i]}` })] : []))),
    make("td", { className: "number", textContent: number(entry.scores[i]) }),
    make("td", { className: "number", textContent: entry.areas[i].toLocaleString("en") }),
    make("td", {}, ...sourceWords(entry.sources[entry.source[i]])));
  row.dataset.instance = i;
  return row;
}

// a source such as "siseg/crowding:semantic" may break after its signs
const sourceWords = (source) => (source || "–").split(/(?<=[/:])/).flatMap((word, k) => (k ? [make("wbr"), word] : [word]));

// every picture at once, the masks last, in the rows that leave them largest
function drawSheet(entry, pictures) {
  const cells = pictures.map(({ caption, picture }, k) => {
    const image = make("img", { alt: caption, src: picture });
    image.onload = () => image.classList.toggle("grainy", k > 0 && image.naturalWidth < 200);
    return [caption, k, image];
  });
  const masks = $("outlines").cloneNode(true);
  masks.removeAttribute("id");
  masks.classList.remove("bare");
  for (const rim of masks.querySelectorAll(".rim")) rim.remove();
  cells.push(["Masks", 0, make("img", { alt: "Masks", src: entry.picture }), ...(state.masks ? [masks] : [])]);
  const ratio = entry.grid[1] / entry.grid[0], caption = 22, gap = 10;
  const [width, height] = [$("sheet").clientWidth, $("sheet").clientHeight];
  const side = (columns) => {
    const rows = Math.ceil(cells.length / columns);
    return Math.min((width - gap * (columns - 1)) / columns, ((height - gap * (rows - 1)) / rows - caption) / ratio);
  };
  const columns = cells.map((_, k) => k + 1).reduce((best, c) => (side(c) > side(best) + 1 ? c : best), 1), wide = Math.max(side(columns), 40);
  $("sheet").style.gridTemplateColumns = `repeat(${columns}, ${wide}px)`;
  $("sheet").style.gridAutoRows = `${wide * ratio + caption}px`;
  $("sheet").replaceChildren(...cells.map(([caption, k, ...inside]) =>
    make("button", { type: "button", title: caption, onclick: () => $("tabs").children[k].click() },
      make("figure", {}, make("figcaption", { textContent: caption }), make("div", { className: "cell" }, ...inside)))));
}

function drawOutlines(entry) {
  const svg = $("outlines"), space = "http://www.w3.org/2000/svg";
  svg.setAttribute("viewBox", `0 0 ${entry.grid[0]} ${entry.grid[1]}`);
  const order = state.masks ? [...entry.shown].sort((a, b) => entry.areas[b] - entry.areas[a]) : [];
  const pathOf = (attributes) => {
    const path = document.createElementNS(space, "path");
    for (const [name, value] of Object.entries(attributes)) path.setAttribute(name, value);
    return path;
  };
  const paths = order.map((i) => {
    const color = colorOf(entry, i), path = pathOf({ d: entry.paths[i], fill: color, stroke: color, "data-instance": i });
    path.onmouseenter = () => highlight(i, true);
    path.onmouseleave = () => highlight(null);
    return path;
  });
  // on a field the outlines have no fill, which would change its colours, but a dark rim
  if (tab > 0) paths.unshift(pathOf({ class: "rim", fill: "none", d: order.map((i) => entry.paths[i]).join("") }));
  svg.classList.toggle("bare", tab > 0);
  svg.replaceChildren(...paths);
}

function highlight(instance, scroll = false) {
  lit = instance;
  for (const svg of dialog.querySelectorAll("svg")) svg.classList.toggle("one", instance !== null);
  for (const element of dialog.querySelectorAll("[data-instance]")) {
    const on = Number(element.dataset.instance) === instance;
    element.classList.toggle("lit", on);
    if (on && scroll && element.tagName === "TR") element.scrollIntoView({ block: "nearest" });
  }
}

function go(by) {
  const next = visible[visible.indexOf(opened) + by];
  if (opened && visible.includes(opened) && next) change({ open: next.name });
}

const close = () => change({ open: null });
