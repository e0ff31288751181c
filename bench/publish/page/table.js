// A table of any length: sorted by any column, fifty lines at a time, semantic and reachable by keyboard.

const DATA = JSON.parse(document.getElementById("data").textContent);

const PAGE_LINES = 50;

function create(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// Compares texts by the numbers in them: c4 before c16.
const natural = new Intl.Collator("en", { numeric: true }).compare;

// `open` is called with the line whose name is clicked, `changed` when the sorting changes.
function createTable(host, title, heads, open, changed) {
  const state = { sort: "", down: false, page: 0, lines: [], columns: [] };

  function columnsOf(lines) {
    const several = (key) => new Set(lines.map((line) => line[key])).size > 1;
    const always = (id) => id === "recipe" || id === "engine";
    const names = ["recipe", "suite", "engine", "load", "part"].filter((id) => always(id) || (several(id) && lines.some((line) => line[id])));
    const present = new Set(lines.flatMap((line) => Object.keys(line.cells)));
    const columns = names.map((id) => ({ id, heading: id, name: true }));
    for (const [id, heading] of Object.entries(heads)) if (present.has(id)) columns.push({ id, heading });
    if (several("n")) columns.push({ id: "n", heading: "n" });
    if (lines.some((line) => line.marks.length)) columns.push({ id: "marks", heading: "marks", text: true });
    if (lines.some((line) => line.reasons.length && (line.hasCells || !present.size)))
      columns.push({ id: "reasons", heading: "why not", text: true, wide: true });
    return columns;
  }

  function value(line, column) {
    if (column.id === "marks") return line.marks.join(", ");
    if (column.id === "reasons") return line.reasons.join("; ");
    if (column.name || column.id === "n") return line[column.id];
    return line.cells[column.id]?.[1];
  }

  function sorted() {
    const column = state.columns.find(({ id }) => id === state.sort);
    if (!column) return state.lines;
    const sign = state.down ? -1 : 1;
    const keyed = state.lines.map((line) => [value(line, column), line]);
    const empty = (value) => value === undefined || value === null || value === "";
    keyed.sort(([a], [b]) => {
      if (empty(a) || empty(b)) return empty(a) - empty(b); // missing values are last in either order
      return sign * (typeof a === "number" ? a - b : natural(a, b));
    });
    return keyed.map(([, line]) => line);
  }

  function head() {
    const cells = state.columns.map((column) => {
      const button = create("button", { type: "button", textContent: column.heading });
      button.addEventListener("click", () => {
        state.down = state.sort === column.id ? !state.down : column.heading.includes("↑");
        state.sort = column.id;
        state.page = 0;
        draw(column.id);
        changed();
      });
      const order = state.sort !== column.id ? "none" : state.down ? "descending" : "ascending";
      const kind = column.name || column.text ? "name" : column.heading.length > 16 ? "long" : "";
      const cell = create("th", { scope: "col", className: kind, "aria-sort": order }, button);
      cell.dataset.column = column.id;
      return cell;
    });
    return create("thead", {}, create("tr", {}, ...cells));
  }

  function row(line) {
    const tr = create("tr");
    const valueColumns = state.columns.filter((column) => !column.name && !column.text && column.id !== "n");
    let hasReason = false;
    for (const column of state.columns) {
      if (column.id === "recipe") {
        const button = create("button", { type: "button", className: "open", textContent: line.recipe });
        button.addEventListener("click", () => open(line));
        tr.append(create("th", { scope: "row", className: "name" }, button, line.baseline && line.recipe !== "baseline" ? " (baseline)" : ""));
      } else if (column.name) {
        tr.append(create("td", { className: "name", textContent: line[column.id] }));
      } else if (column.text) {
        const text = column.id === "marks" ? [...new Set(line.marks.map((mark) => mark.split(":")[0]))].join(", ") : value(line, column);
        tr.append(create("td", { className: !column.wide ? "text" : line.hasCells ? "text wide" : "void", textContent: text }));
      } else if (column.id === "n") {
        tr.append(create("td", { textContent: line.n || "–" }));
      } else if (line.hasCells) {
        tr.append(create("td", { textContent: line.cells[column.id]?.[0] ?? "–" }));
      } else if (!hasReason) {
        hasReason = true;
        tr.append(create("td", { className: "void", colSpan: valueColumns.length, textContent: line.reasons.join("; ") || line.status }));
      }
    }
    return tr;
  }

  function draw(focus) {
    const lines = sorted();
    const pages = Math.max(1, Math.ceil(lines.length / PAGE_LINES));
    state.page = Math.min(state.page, pages - 1);
    const from = state.page * PAGE_LINES;
    const shown = lines.slice(from, from + PAGE_LINES);
    const table = create("table", {}, head(), create("tbody", {}, ...shown.map(row)));
    table.setAttribute("aria-labelledby", title);
    const scroll = create("div", { className: "scroll", tabIndex: 0, role: "region" }, table);
    scroll.setAttribute("aria-labelledby", title);
    const count = lines.length ? `${from + 1}–${from + shown.length} of ${lines.length}` : "nothing matches";
    const turn = (text, step, enabled) => {
      const button = create("button", { type: "button", textContent: text, disabled: !enabled });
      button.addEventListener("click", () => {
        state.page += step;
        draw();
        host.querySelector(".pager").scrollIntoView({ block: "nearest" });
        [...host.querySelectorAll(".pager button")].find((other) => other.textContent === text && !other.disabled)?.focus();
      });
      return button;
    };
    const pager = create("div", { className: "pager" }, create("span", { role: "status", textContent: count }));
    const rounds = new Set(lines.filter((line) => line.hasCells && line.n).map((line) => line.n));
    if (rounds.size === 1) pager.append(create("span", { textContent: `n=${[...rounds][0]} in each` }));
    if (pages > 1) pager.prepend(turn("Back", -1, state.page > 0), turn("Next", 1, state.page < pages - 1));
    host.replaceChildren(...(lines.length ? [scroll, pager] : [pager]));
    if (focus) host.querySelector(`th[data-column="${CSS.escape(focus)}"] button`)?.focus();
  }

  return {
    state,
    update(lines) {
      state.lines = lines;
      state.columns = columnsOf(lines);
      draw();
    },
  };
}
