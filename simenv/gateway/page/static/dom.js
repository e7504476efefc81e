// Elements, and the words for times and numbers.
//
// Invariant: text that comes from the service becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = ["onclick", "onchange", "oninput", "onsubmit", "onkeydown"];

function element(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node[name] = value;
    else if (name === "css") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const h = (tag, attributes, ...children) => element(document.createElement(tag), attributes, children);
// An element that draws itself: `show` never changes it.
export const own = (tag) => h(tag, { "data-keep": "" });
export const s = (tag, attributes, ...children) => element(document.createElementNS(SVG, tag), attributes, children);

// Makes the children of `node` those of `fresh`, changing as little as it can: focus, selection,
// scroll positions and values of inputs stay. Elements with `data-keep` draw themselves.
export function show(node, ...fresh) {
  const wanted = fresh.flat(9).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(child)));
  const keyed = new Map([...node.children].filter((each) => each.dataset.key).map((each) => [each.dataset.key, each]));
  wanted.forEach((next, index) => {
    const key = next.dataset?.key;
    let old = key && keyed.get(key);
    if (old && old !== node.childNodes[index]) node.insertBefore(old, node.childNodes[index] ?? null);
    old = node.childNodes[index];
    if (old) patch(old, next);
    else node.append(next);
  });
  while (node.childNodes.length > wanted.length) node.lastChild.remove();
}

function patch(old, next) {
  if (old === next) return;
  if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName || old.dataset?.key !== next.dataset?.key
    || old.dataset?.keep !== undefined || next.dataset?.keep !== undefined) {
    old.replaceWith(next);
  } else if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
  } else {
    for (const { name } of [...old.attributes]) {
      if (!next.hasAttribute(name) && !(old.nodeName === "DETAILS" && name === "open")) old.removeAttribute(name);
    }
    for (const { name, value } of next.attributes) {
      if (name === "style") old.style.cssText = next.style.cssText;
      else if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const name of HANDLERS) if (old[name] !== next[name]) old[name] = next[name];
    show(old, ...next.childNodes);
  }
}

export const count = (value) => (value ?? 0).toLocaleString("en-US").replaceAll(",", " ");

export const many = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

export function figure(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size < 1e-3 || size >= 1e6 ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));
}

// Seconds as Slurm writes them, below a minute as a number with its unit.
export function duration(seconds) {
  if (seconds === null || seconds === undefined || seconds < 0) return "–";
  if (seconds < 1e-3) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${figure(seconds * 1e3, seconds < 0.01 ? 2 : 3)} ms`;
  if (seconds < 60) return `${figure(seconds, 2)} s`;
  const total = Math.round(seconds), two = (value) => String(value).padStart(2, "0");
  const days = Math.floor(total / 86400), hours = Math.floor(total / 3600) % 24;
  const minutes = Math.floor(total / 60) % 60, rest = two(total % 60);
  if (days) return `${days}-${two(hours)}:${two(minutes)}:${rest}`;
  return hours ? `${hours}:${two(minutes)}:${rest}` : `${minutes}:${rest}`;
}

export function bytes(value) {
  if (!value) return "0";
  const power = Math.min(4, Math.floor(Math.log2(value) / 10));
  return `${figure(value / 1024 ** power)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

export function clock(seconds) {
  if (!seconds) return "–";
  const moment = new Date(seconds * 1000), today = new Date().toDateString() === moment.toDateString();
  const time = moment.toLocaleTimeString("en-GB");
  return today ? time : `${moment.toLocaleDateString("sv-SE")} ${time}`;
}

// "in 2 to 6 s": what the scheduler expects, by the factor that such times were off.
export function expected(wait_us, off_by) {
  if (wait_us === null || wait_us === undefined || wait_us < 0) return "not known";
  if (wait_us < 1e4) return "at once";
  const [low, high] = [duration(wait_us / off_by / 1e6), duration((wait_us * off_by) / 1e6)];
  if (!(off_by > 1.05) || low === high) return `in ${duration(wait_us / 1e6)}`;
  const unit = high.match(/ \D+$/)?.[0];
  return `in ${unit && low.endsWith(unit) ? low.slice(0, -unit.length) : low} to ${high}`;
}

export const startOf = (task) => expected(task.expected_start_s === null ? -1 : (task.expected_start_s - Date.now() / 1000) * 1e6, task.wait_off_by);

// Billing units as what budgets are set in, slot-hours; few of them as slot-seconds.
export const slotHours = (units) => (units && units < 360 ? `${figure(units)} slot-s` : `${figure(units / 3600)} slot-h`);

// How far a running task is, and the rest of its run as forecast now; one that outruns its forecast
// says so. A task that has not begun has none.
export function progressOf(task) {
  if (task.state !== "RUNNING") return null;
  const left_s = task.left_us > 0 ? task.left_us / 1e6 : task.expected_end_s ? Math.max(0, task.expected_end_s - Date.now() / 1000) : null;
  const part = task.progress?.fraction ?? null;
  return { part, left_s, outrun: task.outrun };
}

export function progress(task) {
  const found = progressOf(task);
  if (!found || (found.part === null && found.left_s === null)) return "";
  const rest = found.left_s === null ? "" : `about ${duration(found.left_s)} left${found.outrun ? `, ${Math.round(found.outrun)} × its forecast` : ""}`;
  return found.part === null ? rest : [gauge(found.part, 1), `${Math.floor(100 * found.part)} %${rest ? `, ${rest}` : ""}`];
}

export const mark = (state) => h("span", { class: `mark ${String(state).toLowerCase()}` }, state);

export const gauge = (part, whole) => h("div", { class: "gauge" }, h("span", { css: { width: `${whole ? Math.min(100, (100 * part) / whole) : 0}%` } }));

const orders = new Map(); // by table: the column that it is sorted by, and the way

// Rows in the order that the reader has chosen; those without a value come last in both ways.
function ordered(label, columns, rows) {
  const [name, way] = orders.get(label) ?? [];
  const column = columns.find((each) => each.name === name && each.by);
  if (!column) return rows;
  const sign = way === "ascending" ? 1 : -1, lacks = (value) => value === null || value === undefined || value === "" || Number.isNaN(value);
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  return rows.map((row) => [column.by(row), row])
    .sort(([a], [b]) => lacks(a) - lacks(b) || (lacks(a) ? 0 : sign * compare(a, b))).map(([, row]) => row);
}

// A table in a region that scrolls by itself. `columns`: {name, of: row => content, by: row => value,
// number, wide, line}. In a narrow window `wide` ones are left out; with a `line` among them each
// row is a few lines, that column one of its own ("named": with its name). With `redraw` the header
// of a column with `by` is a button that sorts by it; it is called then.
export function table(label, columns, rows, { key = null, empty = "none", rowClass = () => null, redraw = null } = {}) {
  if (!rows.length) return h("p", { class: "muted" }, empty);
  rows = ordered(label, columns, rows);
  const [by, way] = orders.get(label) ?? [];
  const sort = (name) => { orders.set(label, [name, name === by && way === "ascending" ? "descending" : "ascending"]); redraw(); };
  const kind = (column) => [column.number && "number", column.wide && "wide", column.line && "line", column.line === "named" && "named"].filter(Boolean).join(" ") || null;
  return h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label },
    h("table", { class: columns.some((column) => column.line) && "lines" },
      h("thead", null, h("tr", null, columns.map((column) => h("th", { scope: "col", class: kind(column), "aria-sort": column.by && column.name === by ? way : null },
        column.by && redraw ? h("button", { class: "sort", onclick: () => sort(column.name) }, column.name) : column.name)))),
      h("tbody", null, rows.map((row) => h("tr", { "data-key": key && key(row), class: rowClass(row) },
        columns.map((column) => h("td", { class: kind(column), "data-name": column.name }, column.of(row))))))));
}

export const facts = (pairs) => h("dl", { class: "facts" },
  pairs.filter((pair) => pair && pair[1] !== "" && pair[1] !== null && pair[1] !== undefined)
    .map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));

export const card = (title, ...content) => h("section", { class: "card", "data-key": title },
  h("h2", null, title), ...content);

export const taskLink = (id) => h("a", { href: `/ui/tasks/${encodeURIComponent(id)}` }, id);
