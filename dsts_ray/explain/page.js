"use strict";

const { explanation, strips } = JSON.parse(document.getElementById("data").textContent);
const { classes, clips, activations } = explanation;
const confusion = explanation.figures.find((figure) => figure.name === "confusion").series;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Charts read a few tags in text, so names are escaped for them.
const escaped = (text) =>
  String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
// Names often differ in their end alone.
const short = (text) =>
  String(text).length > 20 ? `${String(text).slice(0, 9)}…${String(text).slice(-10)}` : String(text);
const shown = (value) => {
  if (value === null) return "";
  return typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(4) : String(value);
};

function tableElement(columns, rows, caption) {
  const body = element("tbody");
  const fill = (sorted) =>
    body.replaceChildren(
      ...sorted.map((row) =>
        element("tr", {}, ...row.map((value) =>
          element("td", typeof value === "number" ? { class: "number", title: String(value) } : {},
            shown(value)))))
    );
  const headings = columns.map((column, index) => {
    const button = element("button", { type: "button", title: `Sort by ${column}` }, column);
    const heading = element("th", { scope: "col", "aria-sort": "none" }, button);
    button.addEventListener("click", () => {
      const turn = heading.getAttribute("aria-sort") === "descending" ? 1 : -1;
      headings.forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
      fill([...rows].sort((one, other) => turn * compared(one[index], other[index], turn)));
    });
    return heading;
  });
  fill(rows);
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    element("table", {}, element("thead", {}, element("tr", {}, ...headings)), body));
}

function compared(one, other, turn) {
  if (one === null || other === null) return turn * ((one === null) - (other === null));
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), undefined, { numeric: true });
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Colours come round again with another dash.
const dashes = ["solid", "dash", "dot"];
const narrowest = 14;  // pixels of a heat map's column

function traces(figure) {
  const names = figure.series.map(([name]) => name);
  const values = figure.series.map(([, own]) => own);
  if (figure.kind === "heat") {
    const text = values.map((row, y) => row.map((value, x) =>
      escaped(`${figure.y_title} ${names[y]}, ${figure.x_title} ${figure.x[x]}: ${shown(value)}`)));
    return [{ type: "heatmap", z: values, text, hoverinfo: "text", xgap: 1, ygap: 1,
      colorscale: [[0, color("--low")], [1, color("--high")]], zmin: 0,
      colorbar: { thickness: 10 } }];
  }
  const colors = color("--series").split(" ");
  return names.map((name, index) => ({
    type: figure.kind === "lines" ? "scatter" : "bar",
    mode: figure.x.length > 50 ? "lines" : "lines+markers",
    name: escaped(name), x: figure.kind === "lines" ? figure.x : figure.x.map((_, x) => x),
    y: values[index], connectgaps: true,
    marker: { color: colors[index % colors.length] },
    line: { color: colors[index % colors.length],
      dash: dashes[Math.floor(index / colors.length) % dashes.length] },
    text: values[index].map((value, x) =>
      escaped(`${name}, ${figure.x_title} ${figure.x[x]}: ${shown(value)}`)),
    textposition: "none", hoverinfo: "text",
  }));
}

function layout(figure) {
  const names = figure.series.map(([name]) => name);
  const ticks = (labels) => ({ tickmode: "array", tickvals: labels.map((_, index) => index),
    ticktext: labels.map((label) => escaped(short(label))) });
  const axis = { gridcolor: color("--line"), zeroline: false, automargin: true };
  const heat = figure.kind === "heat";
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
    font: { color: color("--ink"), size: 12 }, barmode: figure.kind === "stacked" ? "stack" : "group",
    margin: { l: 50, r: 10, t: 10, b: 50 }, showlegend: !heat && names.length > 1,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    height: heat ? Math.max(320, 22 * names.length + 200) : 360,
    xaxis: { ...axis, title: { text: escaped(figure.x_title) },
      ...(figure.kind === "lines" ? {} : ticks(figure.x)), ...(heat ? { tickangle: 90 } : {}) },
    yaxis: { ...axis, title: { text: escaped(figure.y_title) },
      ...(heat ? { autorange: "reversed", ...ticks(names) } : {}) },
  };
}

function figureElement(figure) {
  const chart = element("div", { class: "chart", id: figure.name, role: "img",
    "aria-label": `${figure.title}. ${figure.note} The values stand in the table below.` });
  const wide = element("div", { class: "wide" }, chart);
  if (figure.kind === "heat") {
    chart.style.minWidth = `${narrowest * figure.x.length + 200}px`;
    wide.setAttribute("tabindex", "0");
  }
  const details = element("details", {}, element("summary", {}, "Values as a table"));
  details.addEventListener("toggle", () => {
    if (details.children.length > 1) return;
    const rows = figure.x.map((x, index) =>
      [x, ...figure.series.map(([, values]) => values[index])]);
    const columns = [figure.x_title, ...figure.series.map(([name]) => name)];
    details.append(tableElement(columns, rows, figure.title));
  });
  const drawn = element("article", {}, element("h3", {}, figure.title),
    element("p", { class: "note" }, figure.note), wide, details);
  return drawn;
}

function draw(figure) {
  Plotly.react(figure.name, traces(figure), layout(figure),
    { responsive: true, displayModeBar: false, scrollZoom: false });
}

function clipElement(clip, index) {
  const right = clip.label === clip.predicted;
  const path = clip.path.map((neuron, layer) => `layer ${layer}: neuron ${neuron}`).join(" → ");
  return element("figure", { class: "strip", tabindex: "0" },
    element("img", { src: `data:image/jpeg;base64,${strips[index]}`, title: path,
      alt: `Frames of ${clip.video_id}` }),
    element("figcaption", {}, element("strong", {}, classes[clip.label]), element("br"),
      element("span", { class: right ? "right" : "wrong" },
        `${right ? "✓" : "✗"} ${classes[clip.predicted]} (${clip.probability.toFixed(2)})`),
      element("br"), element("span", {}, path), element("br"), element("span", {}, clip.video_id)));
}

function pickerElement() {
  const choice = (id, text, options) => {
    const select = element("select", { id },
      ...options.map((name, value) => element("option", { value }, name)));
    select.addEventListener("change", show);
    return element("label", { for: id }, text, select);
  };
  const numbered = (word, count) => [...Array(count).keys()].map((n) => `${word} ${n}`);
  const ways = activations.length ? ["a neuron", "a pair of classes"] : ["a pair of classes"];
  const parts = [choice("way", "Clips of", ways)];
  const neuron = activations.length
    ? [choice("layer", "Layer", numbered("layer", activations.length)),
       choice("neuron", "Neuron", numbered("neuron", activations[0].length))] : [];
  const pair = [choice("one", "Class", classes), choice("other", "Other class", classes)];
  const picker = element("form", { class: "picker" }, ...parts, ...neuron, ...pair);
  const count = element("p", { id: "count", role: "status" });
  const list = element("div", { id: "clips" });

  function show() {
    const of = (id) => Number(picker.querySelector(`#${id}`).value);
    const byNeuron = activations.length > 0 && of("way") === 0;
    neuron.forEach((label) => { label.hidden = !byNeuron; });
    pair.forEach((label) => { label.hidden = byNeuron; });
    const both = [...new Set([of("one"), of("other")])];
    const found = byNeuron ? explanation.clips_of_neurons[of("layer")][of("neuron")]
      : [...clips.keys()].filter((index) =>
          both.includes(clips[index].label) && both.includes(clips[index].predicted));
    const all = byNeuron ? activations[of("layer")][of("neuron")]
      : both.flatMap((label) => both.map((taken) => confusion[label][1][taken]))
        .reduce((sum, videos) => sum + videos);
    count.textContent = `${found.length} of ${all} clips`;
    list.replaceChildren(...found.map((index) => clipElement(clips[index], index)));
  }
  picker.addEventListener("submit", (event) => event.preventDefault());
  const pairs = clips.find((clip) => clip.label !== clip.predicted);
  if (pairs) {
    picker.querySelector("#one").value = pairs.label;
    picker.querySelector("#other").value = pairs.predicted;
  }
  show();
  return [picker, count, list];
}

function sections() {
  const names = ["Neurons", "Clips", "Recognition", "Training"];
  return names.map((name) => [name, [
    ...explanation.tables.filter((table) => table.section === name).map((table) =>
      element("article", { id: table.name }, element("h3", {}, table.title),
        element("p", { class: "note" }, table.note),
        tableElement(table.columns, table.rows, table.title))),
    ...explanation.figures.filter((figure) => figure.section === name).map(figureElement),
    ...(name === "Clips" ? pickerElement() : []),
  ]]).filter(([, content]) => content.length);
}

const main = document.querySelector("main");
const entries = document.querySelector("nav ul");
for (const [name, content] of sections()) {
  main.append(element("section", { id: name }, element("h2", {}, name), ...content));
  entries.append(element("li", {}, element("a", { href: `#${name}` }, name)));
}
const metrics = Object.entries(explanation.metrics);
document.getElementById("metrics").append(tableElement(["metric", "value"], metrics, "Metrics"));
const drawAll = () => explanation.figures.forEach(draw);
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
document.body.dataset.ready = "true";
