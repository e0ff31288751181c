// A table of any length: sorted by any column, fifty lines at a time, semantic and reachable by keyboard.

const DATA = JSON.parse(document.getElementById("data").textContent);

const LINES = 50;

function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// Texts by the numbers in them: c4 before c16.
const natural = new Intl.Collator("en", { numeric: true }).compare;

function makeTable(host, title, heads, open, changed) {
  const state = { sort: "", down: false, page: 0, lines: [], columns: [] };

  const names = {
    suite: "suite", recipe: "recipe", engine: "engine", load: "load",
  };

  function columnsOf(lines) {
    const several = (key) => new Set(lines.map((line) => line[key])).size > 1;
    const found = [];
    for (const [id, heading] of Object.entries(names)) {
      if (id === "recipe" || id === "engine" || (several(id) && lines.some((line) => line[id])))
        found.push({ id, heading, name: true });
    }
    found.sort((a, b) => (b.id === "recipe") - (a.id === "recipe"));
    const there = new Set(lines.flatMap((line) => Object.keys(line.cells)));
    for (const [id, heading] of Object.entries(heads)) if (there.has(id)) found.push({ id, heading });
    if (several("n")) found.push({ id: "n", heading: "n" });
    if (lines.some((line) => line.marks.length)) found.push({ id: "marks", heading: "marks", words: true });
    if (lines.some((line) => line.reasons.length && (line.figures || !there.size)))
      found.push({ id: "reasons", heading: "why not", words: true, wide: true });
    return found;
  }

  function value(line, column) {
    if (column.id === "marks") return line.marks.join(", ");
    if (column.id === "reasons") return line.reasons.join("; ");
    if (column.name || column.id === "n") return line[column.id];
    return line.cells[column.id]?.[1];
  }

  function sorted() {
    const column = state.columns.find((one) => one.id === state.sort);
    if (!column) return state.lines;
    const sign = state.down ? -1 : 1;
    const keyed = state.lines.map((line) => [value(line, column), line]);
    const empty = (one) => one === undefined || one === null || one === "";
    keyed.sort(([a], [b]) => {
      if (empty(a) || empty(b)) return empty(a) - empty(b); // what has no figure is last either way
      return sign * (typeof a === "number" ? a - b : natural(a, b));
    });
    return keyed.map(([, line]) => line);
  }

  function head() {
    const cells = state.columns.map((column) => {
      const button = make("button", { type: "button", textContent: column.heading });
      button.addEventListener("click", () => {
        state.down = state.sort === column.id ? !state.down : column.heading.includes("↑");
        state.sort = column.id;
        state.page = 0;
        draw(column.id);
        changed();
      });
      const order = state.sort !== column.id ? "none" : state.down ? "descending" : "ascending";
      const kind = column.name || column.words ? "name" : column.heading.length > 16 ? "long" : "";
      const cell = make("th", { scope: "col", className: kind, "aria-sort": order }, button);
      cell.dataset.column = column.id;
      return cell;
    });
    return make("thead", {}, make("tr", {}, ...cells));
  }

  function row(line) {
    const made = make("tr");
    const figures = state.columns.filter((column) => !column.name && !column.words && column.id !== "n");
    let said = false;
    for (const column of state.columns) {
      if (column.id === "recipe") {
        const button = make("button", { type: "button", className: "open", textContent: line.recipe });
        button.addEventListener("click", () => open(line));
        made.append(make("th", { scope: "row", className: "name" }, button, line.baseline && line.recipe !== "baseline" ? " (baseline)" : ""));
      } else if (column.name) {
        made.append(make("td", { className: "name", textContent: line[column.id] }));
      } else if (column.words) {
        const shown = column.id === "marks" ? [...new Set(line.marks.map((mark) => mark.split(":")[0]))].join(", ") : value(line, column);
        made.append(make("td", { className: !column.wide ? "words" : line.figures ? "words wide" : "void", textContent: shown }));
      } else if (column.id === "n") {
        made.append(make("td", { textContent: line.n || "–" }));
      } else if (line.figures) {
        made.append(make("td", { textContent: line.cells[column.id]?.[0] ?? "–" }));
      } else if (!said) {
        said = true;
        made.append(make("td", { className: "void", colSpan: figures.length, textContent: line.reasons.join("; ") || line.status }));
      }
    }
    return made;
  }

  function draw(focus) {
    const lines = sorted();
    const pages = Math.max(1, Math.ceil(lines.length / LINES));
    state.page = Math.min(state.page, pages - 1);
    const from = state.page * LINES;
    const shown = lines.slice(from, from + LINES);
    const table = make("table", {}, head(), make("tbody", {}, ...shown.map(row)));
    table.setAttribute("aria-labelledby", title);
    const scroll = make("div", { className: "scroll", tabIndex: 0, role: "region" }, table);
    scroll.setAttribute("aria-labelledby", title);
    const count = lines.length ? `${from + 1}–${from + shown.length} of ${lines.length}` : "nothing matches";
    const turn = (text, step, able) => {
      const button = make("button", { type: "button", textContent: text, disabled: !able });
      button.addEventListener("click", () => {
        state.page += step;
        draw();
        host.querySelector(".pager").scrollIntoView({ block: "nearest" });
        [...host.querySelectorAll(".pager button")].find((one) => one.textContent === text && !one.disabled)?.focus();
      });
      return button;
    };
    const pager = make("div", { className: "pager" }, make("span", { role: "status", textContent: count }));
    const rounds = new Set(lines.filter((line) => line.figures && line.n).map((line) => line.n));
    if (rounds.size === 1) pager.append(make("span", { textContent: `n=${[...rounds][0]} in each` }));
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
