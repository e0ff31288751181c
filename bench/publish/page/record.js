// A dialog with all of a record. Text from records becomes text nodes and nothing else.

const dialog = document.getElementById("record");
const unpacked = new Map();

// Records lie gzipped, a hundred to a chunk: one chunk is unpacked when one of its records is opened.
async function recordAt(index) {
  const chunk = Math.floor(index / DATA.chunk);
  if (!unpacked.has(chunk)) {
    const packed = document.querySelectorAll("script.chunk")[chunk].textContent;
    const bytes = Uint8Array.from(atob(packed), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked.set(chunk, await new Response(stream).json());
  }
  return unpacked.get(chunk)[index % DATA.chunk];
}

function short(number) {
  if (typeof number !== "number") return String(number);
  if (number !== 0 && (Math.abs(number) < 1e-4 || Math.abs(number) >= 1e15)) return number.toExponential(2);
  return number.toLocaleString("en", { maximumSignificantDigits: Math.abs(number) >= 1e4 ? 15 : 5 });
}

function format(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "number") return short(value);
  if (Array.isArray(value)) return value.length ? value.map(format).join(", ") : "none";
  if (typeof value === "object") return Object.entries(value).map(([key, nested]) => `${key}: ${format(nested)}`).join(", ") || "none";
  return typeof value === "boolean" ? (value ? "yes" : "no") : value;
}

// A nested object as lines: ["audit.format", "gguf"].
function flat(object) {
  return Object.entries(object ?? {}).flatMap(([key, value]) => {
    const nested = value && typeof value === "object" && !Array.isArray(value) ? flat(value) : [];
    return nested.length ? nested.map(([name, inner]) => [`${key}.${name}`, inner]) : [[key, value]];
  });
}

function part(title, lines) {
  const rows = lines.filter(([, value]) => value !== undefined).map(([name, value]) =>
    create("tr", {}, create("th", { scope: "row", textContent: name }), create("td", { textContent: format(value) })));
  return rows.length === 0 ? [] : [create("h3", { textContent: title }), create("table", {}, create("tbody", {}, ...rows))];
}

// Units by the ends of names, for metrics that no table has.
const UNITS = [[/_tok_per_s$/, "tok/s"], [/_bytes_per_s$/, "bytes/s"], [/_flop_per_s$/, "FLOP/s"], [/_per_s$/, "/s"], [/_s$/, "s"],
  [/_bytes$/, "bytes"], [/_flop$/, "FLOP"], [/_w$/, "W"], [/_j$/, "J"], [/_mhz$/, "MHz"], [/^kl_|^nll_/, "nats/token"]];

function metrics(record) {
  return Object.entries(record.metrics).map(([key, value]) => {
    const column = DATA.units[key];
    if (!column) return [key, `${short(value)} ${UNITS.find(([end]) => end.test(key))?.[1] ?? ""}`.trim()];
    const [header, unit, scale] = column;
    return [`${header} (${key})`, `${short(Number((value * scale).toPrecision(5)))} ${unit}`.trim()];
  });
}

function cellLines(cell) {
  const lines = [["model", format(cell.model)], ["recipe", cell.recipe.name]];
  cell.recipe.steps.forEach((step, i) => lines.push([`step ${i + 1}`, `${step.method} ${format(step.options)}`]));
  lines.push(["engine", format(cell.engine)], ["device", cell.device]);
  for (const kind of ["workload", "task"]) if (cell[kind]) lines.push(...flat(cell[kind]).map(([key, value]) => [`${kind}: ${key}`, value]));
  return lines;
}

function body(record) {
  const marks = record.marks.map((mark) => [mark, DATA.legend[mark.split(":")[0]] ?? ""]);
  const { audit, steps, facts, environments, ...summary } = record.artifact ?? {};
  const head = [
    ["status", record.status], ["reason", record.reason || undefined], ["round", record.round],
    ["started", record.started || undefined], ["took", record.duration_s ? `${short(record.duration_s)} s` : undefined],
    ["file", record.path], ["digest", record.digest], ["schema", record.schema],
  ];
  return [
    ...part("Record", head),
    ...part("Marks", marks),
    ...part("Metrics", metrics(record)),
    ...part("Configuration", cellLines(record.cell)),
    ...part("What really ran (receipts)", Object.entries(record.receipts)),
    ...part("Artifact", flat(summary)),
    ...part("Artifact, read from its files (audit)", flat(audit)),
    ...part("Artifact, facts of its build", flat({ ...facts, ...environments })),
    ...part("Facts", flat(record.facts)),
    ...part("Environment", Object.entries(record.environment)),
    ...part("Hardware", flat(record.hardware)),
  ];
}

async function showRecord(index) {
  const record = await recordAt(index);
  const host = document.getElementById("d-body");
  host.replaceChildren(...body(record));
  host.scrollTop = 0;
}

// Opens the dialog for these records, with the first of them; a list picks another.
async function openRecords(title, indexes) {
  document.getElementById("d-title").textContent = title;
  const picker = document.getElementById("d-pick");
  const select = picker.querySelector("select");
  select.replaceChildren(...indexes.map((index) => {
    const [, , , , , kind, what, status, round] = DATA.records[index];
    const name = kind === "artifact" ? "the artifact" : `${what}, round ${round}`;
    return create("option", { value: index, textContent: status === "ok" ? name : `${name} (${status})` });
  }));
  picker.hidden = indexes.length < 2;
  select.onchange = () => showRecord(Number(select.value));
  await showRecord(indexes[0]);
  const focused = document.activeElement;
  dialog.addEventListener("close", () => focused?.focus?.(), { once: true });
  tip.hidden = true;
  dialog.showModal();
}

document.getElementById("d-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
