// What is shown: the records of the page and the view of them, which is kept in its address.

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
  return Object.assign({ tracks: [] }, entry, { index, shown: [], key: entry.name.toLowerCase() });
});
const entryOf = new Map(entries.map((entry) => [entry.name, entry]));
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
