// Charts: the specifications of bench/publish/figures/templates, filled with the data that the filters leave.

const dark = matchMedia("(prefers-color-scheme: dark)");
const views = new Map();
const tip = document.getElementById("tip");

// A tooltip, as text only, whatever a record's names are.
function showTip(_, event, item, value) {
  const text = value && item?.datum?.tip;
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const box = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
  const below = event.clientY + 16;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${below + box.height > innerHeight ? event.clientY - box.height - 12 : below}px`;
}

async function drawChart(host, spec, description, { clicked, patch } = {}) {
  views.get(host)?.finalize();
  const config = structuredClone(DATA.charts.config[Number(dark.matches)]);
  config.legend.columns = host.clientWidth < 520 ? 2 : 6;
  const full = { ...spec, description, width: "container", autosize: { type: "fit-x", contains: "padding" } };
  const chart = await vegaEmbed(host, full, {
    actions: false, ast: true, config, defaultStyle: false, renderer: "svg", tooltip: showTip, mode: "vega-lite", patch,
  });
  views.set(host, chart);
  chart.view.addEventListener("click", (_, item) => {
    if (clicked && item?.datum?.index !== undefined) clicked(item.datum.index);
  });
}

// Indexes of the points that no other is better than in both: the rule of bench/measure/frontier.py.
function frontier(points, moreX, moreY) {
  const gains = points.map((p) => [moreX ? p.x : -p.x, moreY ? p.y : -p.y]);
  const order = gains.map((_, i) => i).sort((a, b) => gains[b][0] - gains[a][0] || gains[b][1] - gains[a][1]);
  const indexes = [];
  let best = [Infinity, -Infinity];
  for (const i of order) {
    if (gains[i][1] > best[1] || (gains[i][0] === best[0] && gains[i][1] === best[1])) {
      indexes.push(i);
      best = gains[i];
    }
  }
  return indexes.sort((a, b) => points[a].x - points[b].x || points[a].y - points[b].y);
}

function scaleOf(axis, values) {
  const low = Math.min(...values), high = Math.max(...values);
  if ((axis.log || high > 5 * low) && low > 0) return { type: "log", nice: false, padding: 22 };
  return { zero: false, nice: true, padding: 22 };
}

function ticks(low, high) {
  const decades = Math.log10(high / low);
  const steps = decades <= 1.1 ? [1, 2, 3, 5] : decades <= 2.2 ? [1, 2, 5] : decades <= 3 ? [1, 3] : [1];
  const values = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
    for (const step of steps) values.push(Number(`${step}e${power}`));
  return values.filter((value) => value >= low && value <= high);
}

function setTicks(encoding, values) {
  const low = Math.min(...values), high = Math.max(...values);
  if (encoding.scale?.type === "log" && !encoding.scale.base && low > 0)
    encoding.axis = { ...encoding.axis, values: ticks(low / 1.3, high * 1.3) };
}

function setScale(encoding, names, valueOf) {
  encoding.scale = { domain: names, range: names.map(valueOf) };
}

// A colour, for a light page or a dark one, and a dash for each line.
function setLines(names, encoding) {
  const palette = DATA.palettes[Number(dark.matches)];
  setScale(encoding.color, names, (name) => palette[names.indexOf(name) % palette.length]);
  setScale(encoding.strokeDash, names, (name) => DATA.dashes[names.indexOf(name) % DATA.dashes.length]);
  encoding.color.legend = encoding.strokeDash.legend = null;
}

// Vega's own placement of labels: as many as fit without covering a point or each other.
function labelMark() {
  const { font, fontSize, color } = DATA.charts.config[Number(dark.matches)].text;
  return {
    type: "text", from: { data: "points_marks" }, interactive: false,
    encode: { enter: { text: { field: "datum.label" }, font: { value: font }, fontSize: { value: fontSize }, fill: { value: color } } },
    transform: [{
      type: "label", size: { signal: "[width + 4, height]" }, offset: [6], padding: 6, sort: { field: "datum.rank", order: "descending" }, avoidMarks: ["points_marks"],
      anchor: ["right", "left", "bottom", "top", "bottom-right", "bottom-left", "top-right", "top-left"],
    }],
  };
}

// A title without its arrow.
const bare = (title) => title.replace(/ [↑↓]/, "");

async function drawPareto(host, rows, x, y, clicked) {
  const points = rows.map((p) => ({
    x: p.x[x.id], y: Math.max(p.y[y.id], y.least), recipe: p.recipe, engine: p.engine, family: p.family,
    baseline: p.baseline, index: p.index, label: p.baseline ? p.recipe : "", rank: p.baseline ? 2 : 0,
    tip: [
      `${p.recipe} on ${p.engine}${p.baseline ? " (baseline)" : ""}`, `${bare(y.title)}: ${short(p.y[y.id])}`, `${bare(x.title)}: ${short(p.x[x.id])}`,
      ...(p.from[y.task] ? [`quality measured in the suite ${p.from[y.task]}`] : []), "click: its records",
    ].join("\n"),
  }));
  const best = frontier(points, x.more, y.more).map((i) => points[i]);
  for (const point of best) Object.assign(point, { label: point.recipe, rank: Math.max(point.rank, 1) });
  const spec = structuredClone(DATA.charts.pareto);
  for (const [name, axis] of [["x", x], ["y", y]]) {
    const encoding = spec.encoding[name], values = points.map((p) => p[name]);
    Object.assign(encoding, { title: axis.title, scale: scaleOf(axis, values) });
    if (axis.least && values.some((value) => value <= axis.least)) Object.assign(encoding.axis, axis.edge);
    setTicks(encoding, values);
  }
  const sets = { frontier: best.map((p) => ({ x: p.x, y: p.y })), baseline: points.filter((p) => p.baseline), points };
  spec.layer = spec.layer.filter((layer) => sets[layer.data.name]?.length);
  for (const layer of spec.layer) layer.data.values = sets[layer.data.name];
  const pointLayer = spec.layer.at(-1);
  Object.assign(pointLayer, { name: "points" }).mark.tooltip = true;
  const present = (names, key) => Object.keys(names).filter((name) => points.some((p) => p[key] === name));
  setScale(pointLayer.encoding.color, present(DATA.colours[0], "family"), (family) => DATA.colours[Number(dark.matches)][family]);
  setScale(pointLayer.encoding.shape, present(DATA.shapes, "engine"), (engine) => DATA.shapes[engine]);
  spec.height = host.clientWidth < 520 ? 330 : 420;
  const patch = [{ op: "add", path: "/marks/-", value: labelMark() }];
  await drawChart(host, spec, `${y.title} against ${x.title}; the tables have the same values`, { clicked, patch });
}

function svgElement(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// Charts of lines in a row, with one key above for all of them.
async function drawLines(host, names, charts) {
  const palette = DATA.palettes[Number(dark.matches)];
  const items = names.map((name, i) => {
    const stroke = { stroke: palette[i % palette.length], "stroke-width": 2.5, "stroke-dasharray": DATA.dashes[i % DATA.dashes.length].join(" ") };
    const line = svgElement("svg", { width: 34, height: 10, "aria-hidden": true });
    line.append(svgElement("path", { d: "M1 5H33", ...stroke }));
    return create("li", {}, line, name);
  });
  if (host.previousElementSibling.classList.contains("key")) host.previousElementSibling.remove();
  host.before(create("ul", { className: "key" }, ...items));
  const hosts = charts.map(() => create("div", { className: "chart" }));
  host.replaceChildren(...hosts);
  for (const [i, { spec, description, clicked }] of charts.entries()) {
    for (const layer of spec.layer ?? [spec]) if (layer.encoding.color) setLines(names, layer.encoding);
    spec.height = 230;
    await drawChart(hosts[i], { $schema: DATA.charts.pareto.$schema, ...spec }, description, { clicked });
  }
}
