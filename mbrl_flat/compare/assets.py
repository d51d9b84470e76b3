"""Style and script of the page; both stand in it, so that one file is all there is."""

STYLE = """
:root { color-scheme: light; --ink: #182230; --muted: #5b6575; --paper: #f5f6f8;
  --card: #ffffff; --rule: #e3e7ed; --accent: #0072b2; --warn: #fff4dd; --warn-ink: #6f4400;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b8578f; --c4: #b87b00; --c5: #2f8fc8;
  --c6: #8c6d00; --c7: #555b66; }
:root[data-theme="dark"] { color-scheme: dark; --ink: #e8ebf1; --muted: #9aa5b5;
  --paper: #10141b; --card: #181e28; --rule: #2a3240; --accent: #56b4e9; --warn: #332a12;
  --warn-ink: #f3cf87; --c0: #4aa8e0; --c1: #f08a4b; --c2: #35c79b; --c3: #e29cc3;
  --c4: #f0b84a; --c5: #8fd3f7; --c6: #cdb14a; --c7: #b4bac6; }
@media (prefers-color-scheme: dark) {
  :root:not([data-theme="light"]) { color-scheme: dark; --ink: #e8ebf1; --muted: #9aa5b5;
  --paper: #10141b; --card: #181e28; --rule: #2a3240; --accent: #56b4e9; --warn: #332a12;
  --warn-ink: #f3cf87; --c0: #4aa8e0; --c1: #f08a4b; --c2: #35c79b; --c3: #e29cc3;
  --c4: #f0b84a; --c5: #8fd3f7; --c6: #cdb14a; --c7: #b4bac6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15.5px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 72px; }
header { display: flex; align-items: baseline; justify-content: space-between; gap: 16px; }
h1 { font-size: 1.85rem; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.02em; }
h2 { font-size: 1.2rem; margin: 44px 0 12px; letter-spacing: -0.01em; }
h3 { font-size: 0.95rem; margin: 0 0 8px; font-weight: 600; }
p, li { color: var(--muted); margin: 4px 0 12px; max-width: 80ch; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 14px;
  padding: 16px 18px; box-shadow: 0 1px 2px #1018280a; }
.notes { background: var(--warn); border-color: transparent; margin-top: 14px; }
.notes h3, .notes li, .notes p { color: var(--warn-ink); }
.notes li, .notes p { margin: 2px 0; max-width: none; }
.notes ul { margin: 0; padding-left: 18px; }
.charts { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); }
.scroll { overflow-x: auto; padding: 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 10px 12px; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th { color: var(--muted); font-size: 0.8rem; font-weight: 600; vertical-align: bottom;
  white-space: normal; min-width: 72px; }
.sortable th { cursor: pointer; }
.sortable th:hover { color: var(--ink); }
tbody tr:hover td { background: color-mix(in srgb, var(--accent) 6%, var(--card)); }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--card);
  text-align: left; font-weight: 600; }
th:nth-child(2), td:nth-child(2) { text-align: left; }
.words td, .words th { text-align: left; font-weight: 400; }
td small { display: block; color: var(--muted); font-weight: 400; }
tr:last-child td { border-bottom: 0; }
.best { font-weight: 700; color: var(--accent); }
.bar { width: 130px; height: 16px; fill: currentColor; overflow: visible; }
.bar line { stroke: currentColor; stroke-width: 3; stroke-linecap: round; opacity: 0.45; }
nav { position: sticky; top: 0; z-index: 2; display: flex; gap: 8px; overflow-x: auto;
  padding: 12px 0; background: var(--paper); }
button { flex: none; border: 1px solid var(--rule); border-radius: 999px; padding: 6px 14px;
  background: var(--card); color: var(--ink); font: inherit; font-size: 0.86rem;
  cursor: pointer; }
button:hover { border-color: var(--muted); }
button[aria-pressed="false"] { opacity: 0.45; text-decoration: line-through; }
details { margin-top: 22px; }
summary { cursor: pointer; font-weight: 600; font-size: 1.05rem; margin-bottom: 10px; }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 50%;
  margin-right: 8px; background: currentColor; }
svg { width: 100%; height: auto; display: block; overflow: visible; }
.grid { stroke: var(--rule); } .axis { stroke: var(--muted); }
.base { stroke: var(--muted); stroke-dasharray: 5 4; }
.tick { fill: var(--muted); font-size: 11px; }
.title { fill: var(--ink); font-size: 12px; }
.line { fill: none; stroke: currentColor; stroke-width: 2.2; stroke-linejoin: round; }
.seed { fill: none; stroke: currentColor; stroke-width: 0.8; opacity: 0.35; }
.band { fill: currentColor; opacity: 0.15; } .dot { fill: currentColor; }
.pointer { stroke: var(--muted); stroke-dasharray: 2 3; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.c6 { color: var(--c6); } .c7 { color: var(--c7); } .ref { color: var(--muted); }
.d1 .line, .ref .line { stroke-dasharray: 7 4; } .d2 .line { stroke-dasharray: 2 3; }
.d1 .dot { fill: var(--card); stroke: currentColor; stroke-width: 1.6; }
.d2 .dot { stroke: var(--ink); stroke-width: 1.6; }
.d1 .swatch { background: none; border: 2px solid currentColor; width: 6px; height: 6px; }
.d2 .swatch { outline: 2px solid var(--ink); }
.off { display: none; }
#tip { position: fixed; z-index: 3; pointer-events: none; background: var(--card);
  color: var(--ink); border: 1px solid var(--rule); border-radius: 10px; padding: 8px 12px;
  font-size: 0.82rem; box-shadow: 0 6px 20px #0003; font-variant-numeric: tabular-nums; }
@media (max-width: 640px) { main { padding: 18px 12px 48px; } h1 { font-size: 1.45rem; }
  th, td { padding: 8px 10px; } }
@media print { nav, #theme { display: none; } .card { break-inside: avoid; } }
"""

SCRIPT = """
const tip = document.getElementById("tip");
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
const off = new Set();
for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", () => {
    const group = button.dataset.group, hide = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", String(!hide));
    hide ? off.add(group) : off.delete(group);
    for (const part of document.querySelectorAll(".g" + group)) part.classList.toggle("off", hide);
  });
}
function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return +(value / 1e6).toPrecision(4) + "M";
  if (size >= 1e4) return +(value / 1e3).toPrecision(4) + "k";
  return String(+value.toPrecision(4));
}
function nearest(list, x) {
  let best = 0;
  list.forEach((v, i) => { if (Math.abs(v - x) < Math.abs(list[best] - x)) best = i; });
  return best;
}
for (const chart of document.querySelectorAll("svg[data-curves]")) {
  const data = JSON.parse(chart.dataset.curves);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  line.setAttribute("class", "pointer off");
  chart.append(line);
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect(), view = chart.viewBox.baseVal;
    const left = Math.min(data.end, Math.max(data.start,
      (event.clientX - box.left) * view.width / box.width));
    const x = data.low + (left - data.start) / (data.end - data.start) * (data.high - data.low);
    line.setAttribute("x1", left); line.setAttribute("x2", left);
    line.setAttribute("y1", 14); line.setAttribute("y2", view.height - 44);
    line.classList.remove("off");
    tip.replaceChildren();
    const head = document.createElement("div");
    head.textContent = short(x); tip.append(head);
    for (const curve of data.curves) {
      const inside = x >= curve.x[0] && x <= curve.x[curve.x.length - 1];
      if (off.has(String(curve.color)) || (!inside && curve.x.length > 1)) continue;
      const row = document.createElement("div"), dot = document.createElement("span");
      row.className = curve.color < 0 ? "ref" : "c" + curve.color % 8;
      dot.className = "swatch";
      row.append(dot, curve.label + ": " + short(curve.y[nearest(curve.x, x)]));
      tip.append(row);
    }
    tip.classList.remove("off");
    tip.style.top = event.clientY + 14 + "px";
    tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  });
  chart.addEventListener("pointerleave", () => {
    line.classList.add("off"); tip.classList.add("off");
  });
}
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => head.addEventListener("click", () => {
    const down = head.dataset.down !== "yes";
    for (const other of table.tHead.rows[0].cells) delete other.dataset.down;
    if (down) head.dataset.down = "yes";
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const x = key(a), y = key(b), number = Number(x) - Number(y);
      return (Number.isNaN(number) ? x.localeCompare(y) : number) * (down ? -1 : 1);
    });
    table.tBodies[0].append(...rows);
  }));
}
"""
