// The controls and keys, and the first look.

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
$("previous").onclick = () => { pause(); go(-1); };
$("next").onclick = () => { pause(); go(1); };
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
  if (key === "ArrowLeft" || key === "ArrowRight") return pause(), go(key === "ArrowLeft" ? -1 : 1), true;
  if (key === " " && !document.activeElement.matches("button, input") && !$("strip").hidden) return playing ? pause() : play(), true;
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
  const place = leaders.findIndex((entry) => entry.button === document.activeElement);
  if (by === undefined || (place < 0 && document.activeElement !== document.body)) return false;
  const target = leaders[place < 0 ? 0 : place + by];
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
