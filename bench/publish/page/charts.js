// The charts: specifications of bench/publish/charts.py, filled with what the filters leave.

const dark = matchMedia("(prefers-color-scheme: dark)");
const views = new Map();
const tip = document.getElementById("tip");

function clone(spec) {
  return structuredClone(spec);
}

// Text beside the pointer; text only, whatever a record's names are.
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

async function drawChart(host, spec, description, clicked) {
  views.get(host)?.finalize();
  const config = clone(DATA.charts.config[Number(dark.matches)]);
  config.legend.columns = host.clientWidth < 520 ? 2 : 6;
  const whole = { ...spec, description, width: "container", autosize: { type: "fit-x", contains: "padding" } };
  const made = await vegaEmbed(host, whole, {
    actions: false, ast: true, config, defaultStyle: false, renderer: "svg", tooltip: showTip, mode: "vega-lite",
  });
  views.set(host, made);
  if (clicked) {
    made.view.addEventListener("click", (_, item) => {
      if (item?.datum?.index !== undefined) clicked(item.datum.index);
    });
  }
  return made.view;
}

// Where neither figure is beaten by one point in both: the rule of bench/measure/frontier.py.
function frontier(points, moreX, moreY) {
  const gains = points.map((p) => [moreX ? p.x : -p.x, moreY ? p.y : -p.y]);
  const order = gains.map((_, i) => i).sort((a, b) => gains[b][0] - gains[a][0] || gains[b][1] - gains[a][1]);
  const found = [];
  let best = [Infinity, -Infinity];
  for (const i of order) {
    if (gains[i][1] > best[1] || (gains[i][0] === best[0] && gains[i][1] === best[1])) {
      found.push(i);
      best = gains[i];
    }
  }
  return found.sort((a, b) => points[a].x - points[b].x || points[a].y - points[b].y);
}

function scaleOf(axis, values) {
  const low = Math.min(...values), high = Math.max(...values);
  if ((axis.log || high > 5 * low) && low > 0) return { type: "log", nice: false, padding: 22 };
  return { zero: false, nice: true, padding: 22 };
}

function ticks(low, high) {
  const span = Math.log10(high / low);
  const steps = span <= 1.1 ? [1, 2, 3, 5] : span <= 2.2 ? [1, 2, 5] : span <= 3 ? [1, 3] : [1];
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
    for (const step of steps) found.push(Number(`${step}e${power}`));
  return found.filter((at) => at >= low && at <= high);
}

function ticked(encoding, values) {
  const low = Math.min(...values), high = Math.max(...values);
  if (encoding.scale?.type === "log" && !encoding.scale.base && low > 0)
    encoding.axis = { ...encoding.axis, values: ticks(low / 1.3, high * 1.3) };
}

function scaled(encoding, names, colour) {
  encoding.scale = { domain: names, range: names.map(colour) };
}

// The palette of the light page or of the dark one, in order of what is drawn.
function lineColours(names, encodings) {
  const palette = DATA.palettes[Number(dark.matches)];
  scaled(encodings.color, names, (name) => palette[names.indexOf(name) % palette.length]);
  scaled(encodings.strokeDash, names, (name) => DATA.dashes[names.indexOf(name) % DATA.dashes.length]);
}

const WIDTH = 6.6, HEIGHT = 15;

// Labels for the frontier and the baseline, as many as fit without covering a point or each other.
function labelled(view, points, wanted) {
  const [x, y] = [view.scale("x"), view.scale("y")];
  const at = points.map((p) => [x(p.x), y(p.y)]);
  const [right, bottom] = [Math.max(...x.range()), Math.max(...y.range())];
  const taken = at.map(([px, py]) => [px - 6, py - 6, px + 6, py + 6]);
  const sides = [["left", 12, 0], ["right", -12, 0], ["center", 0, -17], ["center", 0, 17], ["left", 8, -13], ["left", 8, 13], ["right", -8, -13], ["right", -8, 13]];
  const found = [];
  for (const i of wanted) {
    const size = points[i].recipe.length * WIDTH;
    for (const [align, dx, dy] of sides) {
      const left = at[i][0] + dx - { left: 0, center: size / 2, right: size }[align];
      const box = [left, at[i][1] + dy - HEIGHT / 2, left + size, at[i][1] + dy + HEIGHT / 2];
      const inside = box[0] >= 0 && box[2] <= right + 4 && box[1] >= -6 && box[3] <= bottom;
      const free = taken.every((other, j) => j === i || box[0] >= other[2] || other[0] >= box[2] || box[1] >= other[3] || other[1] >= box[3]);
      if (!inside || !free) continue;
      taken.push(box);
      found.push({ x: points[i].x, y: points[i].y, label: points[i].recipe, align, dx, dy });
      break;
    }
  }
  return found;
}

// A title without its arrow.
const bare = (title) => title.replace(/ [↑↓]/, "");

async function drawPareto(host, rows, x, y, clicked) {
  const shown = rows.map((p) => ({
    x: p.x[x.id], y: Math.max(p.y[y.id], y.least), recipe: p.recipe, engine: p.engine, family: p.family,
    baseline: p.baseline, index: p.index,
    tip: [
      `${p.recipe} on ${p.engine}${p.baseline ? " (baseline)" : ""}`, `${bare(y.title)}: ${short(p.y[y.id])}`, `${bare(x.title)}: ${short(p.x[x.id])}`,
      ...(p.from[y.task] ? [`quality measured in the suite ${p.from[y.task]}`] : []), "click: its records",
    ].join("\n"),
  }));
  const best = frontier(shown, x.more, y.more);
  const spec = clone(DATA.charts.pareto);
  const values = { x: shown.map((p) => p.x), y: shown.map((p) => p.y) };
  for (const [side, axis] of [["x", x], ["y", y]]) {
    const encoding = spec.encoding[side];
    Object.assign(encoding, { title: axis.title, scale: scaleOf(axis, values[side]) });
    if (axis.least && values[side].some((value) => value <= axis.least)) Object.assign(encoding.axis, axis.edge);
    ticked(encoding, values[side]);
  }
  const sets = { frontier: best.map((i) => ({ x: shown[i].x, y: shown[i].y })), points: shown, labels: [{ x: shown[0].x, y: shown[0].y, label: "" }] };
  sets.baseline = shown.filter((p) => p.baseline);
  for (const layer of spec.layer) layer.data.values = sets[layer.data.name];
  const named = spec.layer[2];
  named.mark.tooltip = true;
  spec.layer = spec.layer.filter((layer) => layer.data.values.length);
  const families = Object.keys(DATA.colours[0]).filter((family) => shown.some((p) => p.family === family));
  const engines = Object.keys(DATA.shapes).filter((engine) => shown.some((p) => p.engine === engine));
  scaled(named.encoding.color, families, (family) => DATA.colours[Number(dark.matches)][family]);
  scaled(named.encoding.shape, engines, (engine) => DATA.shapes[engine]);
  spec.height = host.clientWidth < 520 ? 330 : 420;
  const view = await drawChart(host, spec, `${y.title} against ${x.title}; the tables have the same figures`, clicked);
  const rest = shown.map((_, i) => i).filter((i) => !shown[i].baseline && !best.includes(i));
  const wanted = [...shown.map((_, i) => i).filter((i) => shown[i].baseline), ...best.filter((i) => !shown[i].baseline)];
  if (shown.length <= 40 && host.clientWidth >= 520) wanted.push(...rest);
  await view.data("labels", labelled(view, shown, wanted)).runAsync();
}

// Charts of lines beside each other, with one key above for all of them.
async function drawLines(host, names, parts) {
  const keys = make("ul", { className: "key" });
  const palette = DATA.palettes[Number(dark.matches)];
  names.forEach((name, i) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    for (const [key, value] of [["width", 34], ["height", 10], ["aria-hidden", true]]) line.setAttribute(key, value);
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const stroke = { d: "M1 5H33", stroke: palette[i % palette.length], "stroke-width": 2.5, "stroke-dasharray": DATA.dashes[i % DATA.dashes.length].join(" ") };
    for (const [key, value] of Object.entries(stroke)) path.setAttribute(key, value);
    line.append(path);
    keys.append(make("li", {}, line, name));
  });
  host.previousElementSibling.classList.contains("key") && host.previousElementSibling.remove();
  host.before(keys);
  const charts = parts.map(() => make("div", { className: "chart" }));
  host.replaceChildren(...charts);
  for (const [i, { spec, description, clicked }] of parts.entries()) {
    for (const layer of spec.layer ?? [spec]) {
      if (!layer.encoding.color) continue;
      lineColours(names, layer.encoding);
      layer.encoding.color.legend = null;
      layer.encoding.strokeDash.legend = null;
    }
    spec.height = 230;
    await drawChart(charts[i], { $schema: DATA.charts.pareto.$schema, ...spec }, description, clicked);
  }
}
