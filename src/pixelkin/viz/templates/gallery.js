"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const read = (element) => JSON.parse(element.textContent);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

  // ---- the records -------------------------------------------------------------------------------------------------
  const config = read($("config"));
  const closing = read($("closing"));
  const entries = Array.from(document.querySelectorAll("script.entry"), (script, index) => {
    const entry = read(script);
    script.remove(); // the text is not needed twice
    return Object.assign(entry, { index, shown: [], key: entry.name.toLowerCase() });
  });
  const classes = new Map(config.classes.map((c) => [c.id, { ...c, count: 0 }]));
  let [least, most] = [0, 1];
  for (const entry of entries) {
    for (const label of entry.labels) {
      if (!classes.has(label)) classes.set(label, { id: label, name: `class ${label}`, color: "#8a8d98", count: 0 });
      classes.get(label).count++;
    }
    for (const score of entry.scores) {
      if (score === null) continue;
      least = Math.min(least, score);
      most = Math.max(most, score);
    }
  }
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  [...entries].sort((a, b) => collator.compare(a.name, b.name) || a.index - b.index).forEach((entry, k) => { entry.rank = k; });
  const present = [...classes.values()].filter((c) => c.count).sort((a, b) => b.count - a.count || collator.compare(a.name, b.name));
  const number = (value) => (value === null ? "–" : value.toFixed(most <= 1 ? 2 : most < 100 ? 1 : 0));

  // ---- the state, kept in the address so that a view can be shared and reloaded --------------------------------------
  const steps = 200;
  const scoreAt = (step) => least + ((most - least) * step) / steps;
  const stepOf = (score) => Math.round(((score - least) / (most - least)) * steps);
  const state = { classes: new Set(), low: 0, high: steps, query: "", sort: "name", tint: "instance", masks: true, open: null, sheet: false };

  function readAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const step = (name, otherwise) => {
      const value = parseFloat(asked.get(name));
      return Number.isFinite(value) ? Math.min(steps, Math.max(0, stepOf(value))) : otherwise;
    };
    const choice = (name) => {
      const wanted = asked.get(name);
      return [...$(name).options].some((option) => option.value === wanted) ? wanted : $(name).options[0].value;
    };
    state.classes = new Set((asked.get("class") || "").split(",").filter(Boolean).map(Number).filter((id) => classes.has(id)));
    state.low = step("score", 0);
    state.high = Math.max(state.low, step("below", steps));
    state.query = asked.get("q") || "";
    state.sort = choice("sort");
    state.tint = choice("tint");
    state.masks = asked.get("masks") !== "off";
    state.open = asked.get("open");
    state.sheet = asked.get("view") === "all";
  }

  function writeAddress() {
    const parts = new URLSearchParams();
    const put = (name, value, otherwise) => value !== otherwise && parts.set(name, value);
    put("class", [...state.classes].join(","), "");
    if (state.low > 0) parts.set("score", +scoreAt(state.low).toFixed(4));
    if (state.high < steps) parts.set("below", +scoreAt(state.high).toFixed(4));
    put("q", state.query, "");
    put("sort", state.sort, "name");
    put("tint", state.tint, "instance");
    put("masks", state.masks ? "" : "off", "");
    if (state.open !== null) parts.set("open", state.open);
    if (state.open !== null && state.sheet) parts.set("view", "all");
    history.replaceState(null, "", "#" + parts);
  }

  // ---- filtering -----------------------------------------------------------------------------------------------------
  let visible = []; // the entries shown, in order

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
      if (anyInstance || entry.shown.length) visible.push(entry);
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
    visible.sort(orders[state.sort]);

    const all = entries.reduce((sum, e) => sum + e.labels.length, 0);
    const of = (n, total) => (n === total ? "" : ` of ${total.toLocaleString("en")}`);
    $("status").replaceChildren(
      make("b", { textContent: visible.length.toLocaleString("en") }), `${of(visible.length, entries.length)} image${entries.length === 1 ? "" : "s"}, `,
      make("b", { textContent: instances.toLocaleString("en") }), `${of(instances, all)} instance${all === 1 ? "" : "s"}`);
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
    entry.button = make("button", { className: "card", type: "button", title: entry.name, onclick: () => change({ open: entry.name }) },
      make("span", { className: "frame" }, entry.image, entry.canvas),
      make("span", { className: "words" }, make("b", { textContent: entry.name }), entry.words));
    entry.card = make("li", { entry }, entry.button);
    watcher.observe(entry.card);
    return entry.card;
  }

  function showCards() {
    const cards = visible.map(cardOf), grid = $("grid");
    if (cards.length !== grid.children.length || cards.some((card, k) => card !== grid.children[k])) {
      const focused = document.activeElement;
      grid.replaceChildren(...cards);
      if (focused && focused.isConnected && focused !== document.activeElement) focused.focus();
    }
    for (const entry of visible) {
      const scores = entry.shown.map((i) => entry.scores[i]).filter((score) => score !== null);
      const least = scores.length ? `, lowest ${number(scores.reduce((a, b) => Math.min(a, b)))}` : "";
      entry.words.textContent = plural(entry.shown.length, "instance") + least;
      entry.button.setAttribute("aria-label", `${entry.name}: ${entry.words.textContent}`);
      if (entry.near) draw(entry);
    }
  }

  function draw(entry) {
    const [width, height] = entry.grid, brush = entry.canvas.getContext("2d");
    const scale = Math.min((280 * 1.5) / width, (210 * 1.5) / height);
    Object.assign(entry.canvas, { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) });
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

  // ---- the detail view -------------------------------------------------------------------------------------------------
  const dialog = $("detail");
  let tab = 0, lit = null, opened = null;

  function showDetail() {
    const entry = state.open === null ? undefined : entries.find((e) => e.name === state.open);
    if (!entry) {
      if (state.open !== null) state.open = null;
      const left = opened;
      opened = null;
      if (dialog.open) dialog.close();
      if (left && left.button.isConnected) left.button.focus();
      return;
    }
    const fresh = opened !== entry;
    if (fresh) lit = null;
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
    highlight(entry.shown.includes(lit) ? lit : null);
    if (fresh) dialog.querySelector(".list-side .scroll").scrollTop = 0;
  }

  function rowOf(entry, i) {
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = colorOf(entry, i);
    const row = make("tr", { onmouseenter: () => highlight(i), onmouseleave: () => highlight(null) },
      make("td", {}, make("div", {}, swatch, classes.get(entry.labels[i]).name, ...(entry.crowd[i] ? [make("small", { textContent: "crowd" })] : []))),
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

  // ---- wiring ------------------------------------------------------------------------------------------------------------
  for (const c of present) {
    c.box = make("input", { type: "checkbox", onchange: () => { c.box.checked ? state.classes.add(c.id) : state.classes.delete(c.id); change({}); } });
    c.counter = make("span", { className: "count" });
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = c.color;
    c.row = make("label", { title: `${c.name} (${c.id})` }, c.box, swatch, make("span", { className: "name", textContent: c.name }), c.counter);
    c.row.dataset.label = c.id;
    $("classes").append(make("li", {}, c.row));
  }
  for (const name of ["low", "high"]) Object.assign($(name), { min: 0, max: steps, step: 1 });
  $("low").oninput = () => change({ low: Math.min(+$("low").value, state.high) });
  $("high").oninput = () => change({ high: Math.max(+$("high").value, state.low) });
  $("query").oninput = () => change({ query: $("query").value });
  $("sort").onchange = () => change({ sort: $("sort").value });
  $("tint").onchange = () => change({ tint: $("tint").value });
  $("masks").onchange = () => change({ masks: $("masks").checked });
  $("reset").onclick = $("reset-too").onclick = () => change({ classes: new Set(), low: 0, high: steps, query: "" });
  $("toggle").onclick = () => change({ masks: !state.masks });
  $("previous").onclick = () => go(-1);
  $("next").onclick = () => go(1);
  $("close").onclick = close;
  dialog.oncancel = (event) => { event.preventDefault(); close(); };
  dialog.onclose = () => state.open !== null && close(); // a second Escape closes without asking
  dialog.onclick = (event) => event.target === dialog && close();
  if ($("to-errors")) $("to-errors").onclick = (event) => { event.preventDefault(); $("errors").scrollIntoView(); $("errors").focus(); };
  addEventListener("hashchange", () => { readAddress(); apply(); });
  addEventListener("resize", () => change({}));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => change({}));

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches("input:not([type=checkbox]), select"), key = event.key;
    const handled = dialog.open ? detailKey(key) : !typing && gridKey(key);
    if (handled) event.preventDefault();
  });

  function detailKey(key) {
    if (key === "ArrowLeft" || key === "ArrowRight") return go(key === "ArrowLeft" ? -1 : 1), true;
    if (key === "ArrowUp" || key === "ArrowDown") {
      const rows = [...$("rows").children].map((row) => Number(row.dataset.instance));
      const place = rows.indexOf(lit) + (key === "ArrowDown" ? 1 : -1);
      if (rows.length) highlight(rows[Math.min(rows.length - 1, Math.max(0, place))], true);
      return true;
    }
    if (key === "m") return change({ masks: !state.masks }), true;
    if (key === "a" && $("tabs").lastElementChild) return $("tabs").lastElementChild.click(), true;
    if (key >= "1" && key <= "9" && $("tabs").children[key - 1]) return $("tabs").children[key - 1].click(), true;
    return false;
  }

  function gridKey(key) {
    if (key === "/") return $("query").focus(), true;
    if (key === "m") return change({ masks: !state.masks }), true;
    const columns = getComputedStyle($("grid")).gridTemplateColumns.split(" ").length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
    const place = visible.findIndex((entry) => entry.button === document.activeElement);
    if (by === undefined || (place < 0 && document.activeElement !== document.body)) return false;
    const target = visible[place < 0 ? 0 : place + by];
    if (target) target.button.focus();
    return true;
  }

  if (closing.total > closing.shown) {
    $("note").hidden = false;
    $("note").textContent = `The first ${closing.shown.toLocaleString("en")} of ${closing.total.toLocaleString("en")} images are shown; the run's folder has all of them.`;
  }
  readAddress();
  apply();
  document.documentElement.dataset.ready = Math.round(performance.now());
})();
