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
function place(scale, value) {
  const f = scale.log ? Math.log10 : (v) => v;
  const share = (f(value) - f(scale.low)) / (f(scale.high) - f(scale.low));
  return scale.start + share * (scale.end - scale.start);
}
// Value of a curve at x, linear between its points; undefined outside of them.
function valueAt(curve, x) {
  const next = curve.x.findIndex((v) => v >= x);
  if (next < 0 || (next === 0 && curve.x[0] !== x)) return undefined;
  if (curve.x[next] === x) return curve.y[next];
  const share = (x - curve.x[next - 1]) / (curve.x[next] - curve.x[next - 1]);
  return curve.y[next - 1] + share * (curve.y[next] - curve.y[next - 1]);
}
function svgPart(chart, tag, settings) {
  const part = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(settings)) part.setAttribute(name, value);
  chart.append(part);
  return part;
}
for (const chart of document.querySelectorAll("svg[data-chart]")) {
  const data = JSON.parse(chart.dataset.chart), scatter = data.curves.every((c) => c.x.length < 2);
  for (const curve of data.curves) {
    curve.at = curve.x.map((x, i) => [place(data.x, x), place(data.y, curve.y[i])]);
  }
  const line = svgPart(chart, "line", { class: "pointer off", y1: data.y.end, y2: data.y.start });
  const mark = svgPart(chart, "circle", { class: "mark off", r: 6 });
  chart.addEventListener("pointermove", (event) => {
    const matrix = chart.getScreenCTM();
    const here = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    const shown = data.curves.filter((curve) => !off.has(String(curve.group)));
    let near, index = 0, least = Infinity;
    for (const curve of shown) {
      curve.at.forEach(([x, y], i) => {
        const distance = Math.hypot(x - here.x, y - here.y);
        if (distance < least) { least = distance; near = curve; index = i; }
      });
    }
    if (near === undefined) return;
    const [left, top] = near.at[index], x = near.x[index];
    mark.setAttribute("cx", left); mark.setAttribute("cy", top);
    mark.classList.remove("off");
    if (!scatter) {
      line.setAttribute("x1", left); line.setAttribute("x2", left);
      line.classList.remove("off");
    }
    tip.replaceChildren();
    const head = document.createElement("div");
    head.textContent = short(x); tip.append(head);
    for (const curve of scatter ? [near] : shown) {
      const y = valueAt(curve, x);
      if (y === undefined) continue;
      const row = document.createElement("div"), dot = document.createElement("span");
      row.className = (curve.group < 0 ? "ref" : "c" + curve.group) + (curve === near ? " near" : "");
      dot.className = "swatch";
      row.append(dot, curve.label + ": " + short(y));
      tip.append(row);
    }
    tip.classList.remove("off");
    const point = new DOMPoint(left, top).matrixTransform(matrix);
    const right = point.x + 14 + tip.offsetWidth > innerWidth;
    tip.style.left = Math.max(8, right ? point.x - 14 - tip.offsetWidth : point.x + 14) + "px";
    tip.style.top = Math.min(point.y + 14, innerHeight - tip.offsetHeight - 8) + "px";
  });
  chart.addEventListener("pointerleave", () => {
    for (const part of [line, mark, tip]) part.classList.add("off");
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
