// The page: what is chosen is in the address; when it changes, everything is drawn again.

const FILTERS = ["device", "model", "suite", "load", "engine"];
const ALL = "all";
const chosen = {};
const filterForm = document.getElementById("filters");
const controls = {};
for (const control of document.querySelectorAll("#main select[name], #main input[name]")) controls[control.name] = control;

const lines = { quality: DATA.quality.lines, parts: DATA.parts.lines, speed: DATA.speed.lines };
const everything = [...lines.quality, ...lines.speed];
for (const line of [...everything, ...lines.parts]) {
  line.hasCells = Object.keys(line.cells).length > 0;
  line.text = [line.device, line.suite, line.model, line.recipe, line.engine, line.load, line.part ?? "", line.status, ...line.marks, ...line.reasons].join(" ").toLowerCase();
}
for (const group of Object.values(lines)) group.sort((a, b) => b.baseline - a.baseline || natural(a.recipe, b.recipe) || natural(a.engine, b.engine) || natural(a.load, b.load) || natural(a.part ?? "", b.part ?? ""));
DATA.points.forEach((point, index) => { point.index = index; });

function countedBy(items, key) {
  const counts = new Map();
  for (const item of items) if (item[key]) counts.set(item[key], (counts.get(item[key]) ?? 0) + 1);
  return counts;
}

function commonest(items, key) {
  return [...countedBy(items, key)].sort((a, b) => b[1] - a[1] || natural(a[0], b[0]))[0]?.[0];
}

// Whether a line, point or distribution passes the filters, as far as it has what they are on.
function matches(item, keys = FILTERS) {
  return keys.every((key) => chosen[key] === ALL || !chosen[key] || (key === "load" && !item.load) || item[key] === chosen[key]);
}

function setOptions(name, values, preferred, texts = {}) {
  const control = controls[name];
  control.replaceChildren(...values.map((value) => create("option", { value, textContent: texts[value] ?? value })));
  chosen[name] = values.includes(preferred) ? preferred : values[0] ?? "";
  control.value = chosen[name];
  control.parentElement.hidden = !values.length;
}

// Each filter offers what those before it leave; what `params` name is chosen where it is offered.
function fill(params) {
  const sorted = (items, key) => [...countedBy(items, key).keys()].sort(natural);
  let left = everything;
  for (const key of FILTERS) {
    const values = sorted(left, key);
    const offered = key === "device" || key === "model" ? values : [ALL, ...values];
    const preferred = { device: commonest(DATA.points, key) ?? values[0], model: firstModel() ?? commonest(left.filter((line) => line.load === ""), key), suite: bestSuite(left) };
    setOptions(key, offered, offered.includes(params[key]) ? params[key] : preferred[key], { [ALL]: `all ${key}s` });
    if (key === "device" || key === "model" || key === "suite") left = left.filter((line) => matches(line, [key]));
  }
  fillAxes(params);
}

// Whether a choice has both speed and quality of its own.
const isWhole = (point) => point.load && Object.keys(point.y).length > 0 && !Object.keys(point.from).length;

// Points come with the largest real model first.
const firstModel = () => DATA.points.find((point) => point.device === chosen.device && isWhole(point))?.model;

// The suite that shows most at once: that has most choices with both speed and quality of their own.
function bestSuite(left) {
  const suites = new Set(left.map((line) => line.suite));
  const points = DATA.points.filter((p) => suites.has(p.suite) && p.device === chosen.device && p.model === chosen.model);
  const counts = countedBy([...new Map(points.filter(isWhole).map((p) => [`${p.suite} ${p.recipe} ${p.engine}`, p])).values()], "suite");
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? commonest(points, "suite");
}

function fillAxes(params) {
  const points = DATA.points.filter((p) => matches(p));
  const counts = new Map();
  for (const p of points) for (const id of Object.keys(p.y)) counts.set(id, (counts.get(id) ?? 0) + 1);
  const y = DATA.axes.y.filter((axis) => (counts.get(axis.id) ?? 0) > 1);
  const x = DATA.axes.x.filter((axis) => points.some((p) => axis.id in p.x));
  const texts = (axes) => Object.fromEntries(axes.map((axis) => [axis.id, axis.title]));
  const widest = [...y].filter((axis) => axis.log).sort((a, b) => counts.get(b.id) - counts.get(a.id))[0];
  setOptions("y", y.map((axis) => axis.id), y.some((axis) => axis.id === params.y) ? params.y : widest?.id, texts(y));
  setOptions("x", x.map((axis) => axis.id), params.x, texts(x));
  const over = [...new Set(points.flatMap((p) => p.levels.map((level) => level[0])))].sort();
  setOptions("over", over, params.over, { concurrency: "requests in flight", depth: "depth", rate: "requests per second" });
}

// Indexes of the records of a line or a point: of its load or tasks first, the artifact's own record last.
function recordsOf(item) {
  const names = [item.device, item.suite, item.model, item.recipe];
  const records = DATA.records.map((key, index) => [key, index]).filter(([key]) => names.every((name, i) => key[i] === name));
  const own = records.filter(([key]) => key[4] === item.engine && (item.load ? key[6] === item.load : key[5] === "task"));
  const tasks = item.load && item.y ? records.filter(([key]) => key[4] === item.engine && key[5] === "task") : [];
  return [...own, ...tasks, ...records.filter(([key]) => key[5] === "artifact")].map(([, index]) => index);
}

function open(item) {
  const load = item.load ? `, ${item.load}` : "";
  return openRecords(`${item.recipe} on ${item.engine}${load} (${item.suite})`, recordsOf(item));
}

const choice = (item, several) => `${item.recipe} on ${item.engine}${several ? ` (${item.suite})` : ""}`;
const setText = (id, text) => { document.getElementById(id).textContent = text; };
const show = (id, visible) => { document.getElementById(id).hidden = !visible; };

async function drawQuality() {
  const x = DATA.axes.x.find((axis) => axis.id === chosen.x), y = DATA.axes.y.find((axis) => axis.id === chosen.y);
  const ready = x && y ? DATA.points.filter((p) => matches(p) && x.id in p.x && y.id in p.y) : [];
  const load = x?.sized || chosen.load !== ALL ? chosen.load : commonest(ready, "load");
  const once = new Map();
  for (const p of ready.filter((p) => x.sized || p.load === load || load === undefined)) once.set(`${choice(p, true)}`, p);
  const rows = [...once.values()];
  show("c-pareto", rows.length > 0);
  if (!rows.length) {
    const dummy = chosen.model.endsWith("(dummy weights)");
    setText("n-pareto", dummy ? "These are dummy weights in a real model's shape: their speed means something, their quality nothing." : "No quality was measured for what has this metric: choose another suite, load or axis.");
    return;
  }
  const under = x.sized || !load ? "" : `Load: ${load}. `;
  const edge = y.least ? ` ${bare(y.named)} below ${y.least} counts as equal.` : "";
  setText("n-pareto", `${under}The dashed line joins what nothing else beats in both; the ring is the baseline.${edge} A point opens its records.`);
  await drawPareto(document.getElementById("c-pareto"), rows, x, y, (index) => open(DATA.points[index]));
}

async function drawLoad() {
  const points = DATA.points.filter((p) => matches(p, ["device", "model", "suite", "engine"]) && p.levels.some((level) => level[0] === chosen.over));
  const several = new Set(points.map((p) => p.suite)).size > 1;
  const names = [...new Set(points.map((p) => choice(p, several)))].sort(natural);
  const levels = new Set(points.flatMap((p) => p.levels.map((level) => level[1])));
  show("s-load", names.length > 0 && levels.size > 1);
  if (!names.length || levels.size < 2) return;
  const charts = [];
  for (const [metric, template] of Object.entries(DATA.charts.load[chosen.over])) {
    const values = points.flatMap((p) => p.levels.filter((level) => level[0] === chosen.over && metric in level[2]).map((level) => ({
      choice: choice(p, several), level: level[1], value: level[2][metric], index: p.index,
      tip: `${choice(p, several)}\n${template.layer[0].encoding.x.title}: ${level[1]}\n${bare(template.layer[0].encoding.y.title)}: ${short(level[2][metric])}`,
    })));
    if (values.length < 2) continue;
    const spec = structuredClone(template);
    const lineLayer = spec.layer[0];
    lineLayer.data = { values: values.sort((a, b) => a.level - b.level) };
    lineLayer.mark.tooltip = true;
    lineLayer.mark.point.cursor = "pointer";
    setTicks(lineLayer.encoding.y, values.map(({ value }) => value));
    const limits = DATA.charts.slo[metric] ? [...new Set(points.map((p) => p.slo[DATA.charts.slo[metric]]).filter(Boolean))] : [];
    for (const limit of limits) spec.layer.push(...limitLayers(limit * 1000));
    charts.push({ spec, description: `${lineLayer.encoding.y.title} against ${lineLayer.encoding.x.title}`, clicked: (index) => open(DATA.points[index]) });
  }
  setText("n-load", "From loads of fixed concurrency, rate or depth and from the stages of sweeps. Where the suite states a limit (SLO), a line across shows it.");
  await drawLines(document.getElementById("c-load"), names, charts);
}

function limitLayers(limit) {
  const layers = structuredClone(DATA.charts.limit);
  for (const layer of layers) layer.encoding.y.datum = limit;
  layers[1].encoding.text.value = `SLO ${short(limit)} ms`;
  return layers;
}

async function drawSpread() {
  const all = DATA.spread.filter((d) => matches(d, ["device", "model", "suite", "engine"]));
  const load = all.some((d) => d.load === chosen.load) ? chosen.load : commonest(all, "load");
  const shown = all.filter((d) => d.load === load);
  show("s-spread", shown.length > 0);
  if (!shown.length) return;
  const several = new Set(shown.map((d) => d.suite)).size > 1;
  const names = shown.map((d) => choice(d, several)).sort(natural);
  const charts = [];
  for (const [metric, template] of Object.entries(DATA.charts.spread)) {
    const spec = structuredClone(template);
    const values = shown.flatMap((d) => (d.curves[metric] ?? []).map(([share, value]) => ({
      choice: choice(d, several), share, value: Math.max(value, DATA.charts.least[metric]),
      tip: `${choice(d, several)}\n${Math.round(share * 100)} % at or below ${short(value)} ms`,
    })));
    if (!values.length) continue;
    spec.data = { values };
    spec.mark.tooltip = true;
    setTicks(spec.encoding.x, values.map(({ value }) => value));
    charts.push({ spec, description: `share of requests at or below a time: ${spec.encoding.x.title}` });
  }
  const traced = shown.every((d) => d.traced) ? "from every request" : "some from recorded percentiles alone";
  setText("n-spread", `Load: ${load}; ${traced}, medians over the rounds. Further left is faster. ITL counts every gap between chunks.`);
  await drawLines(document.getElementById("c-spread"), names, charts);
}

async function drawPositions() {
  const curves = DATA.curves.filter((curve) => matches(curve, ["device", "model", "suite", "engine"]));
  show("s-position", curves.length > 0);
  if (!curves.length) return;
  const several = new Set(curves.map((curve) => curve.suite)).size > 1;
  const names = [...new Set(curves.map((curve) => choice(curve, several)))].sort(natural);
  const charts = [...new Set(curves.map((curve) => `${curve.metric}|${curve.task}`))].map((id) => {
    const its = curves.filter((curve) => `${curve.metric}|${curve.task}` === id);
    const spec = structuredClone(DATA.charts.position[its[0].metric]);
    const title = bare(spec.encoding.y.title);
    const values = its.flatMap((curve) => curve.curve.map(([level, value]) => ({
      choice: choice(curve, several), level, value, index: DATA.curves.indexOf(curve),
      tip: `${choice(curve, several)}\nabout ${short(level)} tokens before\n${title}: ${short(value)}`,
    })));
    spec.data = { values };
    spec.title = its[0].task;
    spec.mark.tooltip = true;
    spec.mark.point.cursor = "pointer";
    setTicks(spec.encoding.y, values.map(({ value }) => value));
    return { spec, description: `${title} by position, ${its[0].task}`, clicked: (index) => open(DATA.curves[index]) };
  });
  setText("n-position", "How many tokens of the window come before those that are scored, in bins of powers of two: a point in the middle of each. A point opens its records.");
  await drawLines(document.getElementById("c-position"), names, charts);
}

const MAPS = 8;

async function drawHeat() {
  const all = DATA.fields.filter((field) => matches(field, ["device", "model", "suite", "engine"]));
  const shown = all.slice(0, MAPS);
  show("s-heat", shown.length > 0);
  if (!shown.length) return;
  const several = new Set(shown.map((field) => field.suite)).size > 1;
  const hosts = shown.map(() => create("div", { className: "chart" }));
  document.getElementById("c-heat").replaceChildren(...hosts);
  const rest = all.length > shown.length ? ` The first ${MAPS} of ${all.length}: choose a suite or an engine.` : "";
  setText("n-heat", `One layer is quantized at a time, all others are whole. A field opens its records.${rest}`);
  for (const [i, field] of shown.entries()) {
    const spec = structuredClone(DATA.charts.heat[field.metric]);
    const title = bare(spec.encoding.color.title);
    const index = DATA.fields.indexOf(field);
    spec.data = { values: field.cells.map(([row, column, value]) => ({ row, column, value, index, tip: `${spec.encoding.y.title} ${row}, ${column}\n${title}: ${short(value)}` })) };
    const values = all.filter((other) => other.task === field.task).flatMap((other) => other.cells.map((cell) => cell[2]));
    spec.encoding.color.scale.domain = [Math.min(...values), Math.max(...values)];
    spec.title = { text: choice(field, several), subtitle: field.task };
    spec.mark.tooltip = true;
    spec.mark.cursor = "pointer";
    spec.height = 13 * new Set(field.cells.map(([row]) => row)).size;
    await drawChart(hosts[i], { $schema: DATA.charts.pareto.$schema, ...spec }, `${title} by ${spec.encoding.y.title} and ${spec.encoding.x.title}, ${choice(field, several)}; the tables have the same values`, { clicked: (at) => open(DATA.fields[at]) });
  }
}

function drawTables() {
  const words = (chosen.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const matching = (line) => matches(line) && words.every((word) => line.text.includes(word));
  const shown = { quality: lines.quality.filter(matching), parts: lines.parts.filter(matching), speed: lines.speed.filter(matching) };
  show("s-parts", shown.parts.length > 0);
  for (const [name, table] of Object.entries(tables)) table.update(shown[name]);
  const marks = new Set([...shown.quality, ...shown.speed].flatMap((line) => line.marks.map((mark) => mark.split(":")[0])));
  const terms = [...marks].filter((mark) => DATA.legend[mark]).sort().flatMap((mark) => [create("dt", { textContent: mark === "reference" ? "* (reference)" : mark }), create("dd", { textContent: DATA.legend[mark] })]);
  document.getElementById("legend").replaceChildren(...terms);
  const notes = new Set([...DATA.notes, ...[...shown.quality, ...shown.speed].flatMap((line) => line.notes)]);
  document.getElementById("notes").replaceChildren(...[...notes].map((note) => create("li", { textContent: note })));
}

function saveToAddress() {
  const params = new URLSearchParams();
  for (const name of [...FILTERS, "y", "x", "over", "q"]) if (chosen[name]) params.set(name, chosen[name]);
  for (const [name, { state }] of Object.entries(tables)) if (state.sort) params.set(`${name}-sort`, `${state.down ? "-" : ""}${state.sort}`);
  history.replaceState(null, "", `#${params}`);
}

let drawing = Promise.resolve();
function draw() {
  setText("where", `${chosen.device}: ${DATA.machines[chosen.device] ?? ""}`);
  drawTables();
  saveToAddress();
  drawing = drawing.then(async () => {
    await drawQuality();
    await drawLoad();
    await drawSpread();
    await drawPositions();
    await drawHeat();
    document.body.dataset.drawn = String(Number(document.body.dataset.drawn ?? 0) + 1);
  });
  return drawing;
}

function readAddress() {
  const params = new URLSearchParams(location.hash.slice(1));
  for (const [name, table] of Object.entries(tables)) {
    const sort = params.get(`${name}-sort`) ?? "";
    Object.assign(table.state, { sort: sort.replace(/^-/, ""), down: sort.startsWith("-"), page: 0 });
  }
  chosen.q = controls.q.value = params.get("q") ?? "";
  fill(Object.fromEntries(params));
}

const tables = {
  quality: createTable(document.getElementById("t-quality"), "h-quality", DATA.quality.heads, open, saveToAddress),
  parts: createTable(document.getElementById("t-parts"), "h-parts", DATA.parts.heads, open, saveToAddress),
  speed: createTable(document.getElementById("t-speed"), "h-speed", DATA.speed.heads, open, saveToAddress),
};

function start() {
  readAddress();
  draw();
  for (const form of document.querySelectorAll("#main form")) form.addEventListener("submit", (event) => event.preventDefault());
  for (const name of [...FILTERS, "x", "y", "over"]) {
    controls[name].addEventListener("change", () => {
      chosen[name] = controls[name].value;
      fill({ ...chosen });
      draw();
    });
  }
  filterForm.addEventListener("reset", (event) => {
    event.preventDefault();
    history.replaceState(null, "", "#");
    readAddress();
    draw();
  });
  let waiting;
  controls.q.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      chosen.q = controls.q.value;
      drawTables();
      saveToAddress();
    }, 120);
  });
  addEventListener("hashchange", () => { readAddress(); draw(); });
  dark.addEventListener("change", draw);
  let width = innerWidth;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    if (innerWidth !== width) waiting = setTimeout(() => { width = innerWidth; draw(); }, 200);
  });
}

show("none", !DATA.records.length);
show("main", DATA.records.length > 0);
if (DATA.records.length) start();
