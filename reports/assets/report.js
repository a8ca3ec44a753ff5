"use strict";

// Sorting: each heading of the last header row becomes a button; numbers sort by data-sort, text by the locale.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const body = table.tBodies[0];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const numeric = heading.classList.contains("number");
      const value = (row) => {
        const cell = row.cells[column];
        return numeric ? Number(cell.dataset.sort ?? NaN) : cell.textContent.trim();
      };
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (!numeric) return (ascending ? 1 : -1) * x.localeCompare(y, "en", { numeric: true });
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // empty cells last
        return (ascending ? 1 : -1) * (x - y);
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}

// Curves: pointer, touch or arrow keys move a cross-hair; every curve's nearest point is read out.
const svgElement = (name, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

for (const plot of document.querySelectorAll(".plot[tabindex]")) {
  const data = JSON.parse(plot.querySelector("script").textContent);
  const [width, height] = data.size;
  const [left, top, right, bottom] = data.plot;
  const stops = [...new Set(data.series.flatMap((series) => series.points.map((point) => point[0])))].sort((a, b) => a - b);
  const overlay = svgElement("svg", { viewBox: `0 0 ${width} ${height}`, class: "overlay", "aria-hidden": "true" });
  const readout = document.createElement("div");
  readout.className = "readout";
  readout.setAttribute("role", "status");
  plot.append(overlay, readout);
  let position = null;

  const hide = () => {
    overlay.replaceChildren();
    readout.replaceChildren();
    position = null;
  };

  const show = (x) => {
    position = x;
    const marks = [svgElement("line", { x1: x, x2: x, y1: top, y2: bottom, stroke: "#4a565e", "stroke-width": 0.8 })];
    const rows = [];
    for (const series of data.series) {
      if (!series.points.length) continue;
      const point = series.points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
      marks.push(svgElement("circle", { cx: point[0], cy: point[1], r: 3.6, fill: series.color, stroke: "#fff" }));
      if (!rows.length) {
        const head = document.createElement("b");
        head.textContent = `${data.x} ${point[2]}`;
        rows.push(head);
      }
      const row = document.createElement("div");
      const key = svgElement("svg", { viewBox: "0 0 27 10", "aria-hidden": "true" });
      key.append(svgElement("line", { x1: 0, x2: 27, y1: 5, y2: 5, stroke: series.color, "stroke-width": 2.4, "stroke-dasharray": series.dash }));
      row.append(key, `${series.label}: ${point[3]}`);
      rows.push(row);
    }
    overlay.replaceChildren(...marks);
    readout.replaceChildren(...rows);
    const share = x / width;
    readout.style.left = share < 0.5 ? `${100 * share + 3}%` : "auto";
    readout.style.right = share < 0.5 ? "auto" : `${100 * (1 - share) + 3}%`;
  };

  const nearest = (x) => stops.reduce((a, b) => (Math.abs(b - x) < Math.abs(a - x) ? b : a));
  const follow = (event) => {
    const box = plot.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    if (x < left - 8 || x > right + 8) hide();
    else show(nearest(x));
  };
  if (!stops.length) continue;
  plot.addEventListener("pointermove", follow);
  plot.addEventListener("pointerdown", follow);
  plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    const at = position === null ? (step > 0 ? -1 : stops.length) : stops.indexOf(position);
    show(stops[Math.min(Math.max(at + step, 0), stops.length - 1)]);
  });
}
