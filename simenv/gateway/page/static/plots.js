// Time ranges, and plots of series over them.

import { h } from "./dom.js";
import uPlot from "./uplot.js";

const PRESETS = { "15 min": 900, "1 h": 3600, "6 h": 21600, "24 h": 86400, "7 d": 604800, "30 d": 2592000 };
const DEFAULT_S = 3600;

const local = (seconds) => new Date(seconds * 1000 - new Date().getTimezoneOffset() * 60000).toISOString().slice(0, 16);

// The page's range, kept in its address: `last` seconds up to now, or fixed `from` and `to`. Without
// them it is the last hour, or `data-last` seconds.
export class TimeRange extends HTMLElement {
  connectedCallback() {
    this.read();
    addEventListener("popstate", () => { this.read(); this.emit(); });
    this.draw();
  }

  read() {
    const query = new URLSearchParams(location.search);
    const number = (name) => Number(query.get(name)) || 0;
    this.fixed = number("to") > number("from") && number("from") > 0 ? [number("from"), number("to")] : null;
    this.last = number("last") > 0 ? Math.min(number("last"), 63072000) : Number(this.dataset.last) || DEFAULT_S;
  }

  get bounds() {
    const now = Date.now() / 1000;
    return this.fixed ?? [now - this.last, now];
  }

  get isLive() { return this.fixed === null; }

  choose(last, fixed = null) {
    [this.last, this.fixed] = [last, fixed];
    const query = new URLSearchParams(location.search);
    for (const name of ["last", "from", "to"]) query.delete(name);
    if (fixed) { query.set("from", Math.round(fixed[0])); query.set("to", Math.round(fixed[1])); } else query.set("last", last);
    history.pushState(null, "", `?${query}`);
    this.emit();
  }

  emit() { this.draw(); this.dispatchEvent(new Event("range")); }

  draw() {
    const focused = this.contains(document.activeElement) ? document.activeElement.textContent : null;
    const [from, to] = this.bounds;
    const field = (name, value) => h("label", null, name, h("input", { type: "datetime-local", name, value: local(value), required: true }));
    const form = h("form", { onsubmit: (event) => {
      event.preventDefault();
      const [begin, end] = ["from", "to"].map((name) => new Date(form.elements[name].value).getTime() / 1000);
      if (end > begin) this.choose(this.last, [begin, end]);
      else form.elements.to.setCustomValidity("it must be after `from`"), form.reportValidity(), form.elements.to.setCustomValidity("");
    } }, field("from", from), field("to", to), h("button", null, "Apply"));
    this.replaceChildren(h("div", { class: "row" },
      h("div", { class: "segments", role: "group", "aria-label": "Time range" },
        Object.entries(PRESETS).map(([name, last]) => h("button", { type: "button",
          "aria-pressed": String(this.isLive && this.last === last), onclick: () => this.choose(last) }, name))),
      h("details", { open: !this.isLive }, h("summary", null, this.isLive ? "Other times" : "Fixed times"), form)));
    if (focused) [...this.querySelectorAll("button, summary")].find((each) => each.textContent === focused)?.focus();
  }
}
customElements.define("time-range", TimeRange);

const token = (name) => {
  const probe = h("span", { css: { color: `var(--${name})` } });
  document.body.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
};
// Text of ticks by their distance: the text, and in its place that at a change of the day.
const TICKS = [
  [86400, "{YYYY}-{MM}-{DD}", null, null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
];
const WHOLE = Array.from({ length: 30 }, (_, index) => [1, 2, 5][index % 3] * 10 ** Math.floor(index / 3)); // distances of ticks
const COLORS = ["bar", "bar2", "bar3", "bad", "warn", "good", "accent", "muted"];

// A plot of some series with one time axis. Its figures are also a table, for those who cannot see it.
export class TimePlot extends HTMLElement {
  constructor() {
    super();
    this.note = h("p", { class: "no-data muted" }, "No data in this range.");
    this.onRepaint = () => this.data && this.build();
    this.sizes = new ResizeObserver(() => this.plot && this.clientWidth && this.plot.setSize({ width: this.clientWidth, height: this.height }));
  }

  get height() { return this.clientWidth < 480 ? 170 : 220; }

  connectedCallback() {
    this.sizes.observe(this);
    addEventListener("repaint", this.onRepaint);
    if (this.data) this.build();
  }

  disconnectedCallback() {
    this.sizes.disconnect();
    removeEventListener("repaint", this.onRepaint);
    this.plot?.destroy();
    this.plot = null;
  }

  // `series`: {label, values, format, least}, the first with the least end of the axis; `times`: seconds since 1970; `range`: [from, to].
  set(label, times, series, range, onZoom) {
    const same = this.plot && this.labels === series.map((each) => each.label).join();
    Object.assign(this, { label, series, range, onZoom, data: [times, ...series.map((each) => each.values)], labels: series.map((each) => each.label).join() });
    if (!this.isConnected) return;
    if (same) this.plot.setData(this.data, false), this.scale();
    else this.build();
    this.describe();
  }

  scale() {
    this.plot.batch(() => {
      this.plot.setScale("x", { min: this.range[0], max: this.range[1] });
    });
  }

  describe() {
    const last = this.series.map((each) => {
      const value = each.values.findLast((entry) => entry !== null && entry !== undefined);
      return `${each.label} ${value === undefined ? "no data" : each.format(value)}`;
    });
    this.plot?.root.querySelector("canvas")?.setAttribute("aria-label", `${this.label}; last: ${last.join(", ")}`);
    this.note.hidden = this.series.some((each) => each.values.some((value) => Number.isFinite(value)));
    this.append(this.note);
  }

  build() {
    this.plot?.destroy();
    const [text, line] = [token("muted"), token("line")];
    const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };
    const format = this.series[0]?.format ?? String;
    this.plot = new uPlot({
      width: Math.max(200, this.clientWidth), height: this.height,
      cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 6 } },
      scales: { x: { time: true }, y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? Math.max(high * 1.08, this.series[0]?.least ?? 0) : 1] } },
      axes: [{ ...axis, space: this.clientWidth < 480 ? 60 : 75, values: TICKS }, { ...axis, size: 62, incrs: this.series[0]?.whole ? WHOLE : undefined, values: (plot, ticks) => ticks.map((each) => (plot.series.slice(1).some(({ min }) => Number.isFinite(min)) ? format(each) : "")) }],
      series: [{ value: (_, value) => (value === null ? "–" : new Date(value * 1000).toLocaleString("sv-SE")) },
        ...this.series.map((each, index) => {
          const color = token(COLORS[index % COLORS.length]);
          return { label: each.label, stroke: color, width: 1.8, spanGaps: false, fill: this.series.length === 1 ? color.replace("rgb(", "rgba(").replace(")", ", .12)") : undefined,
            points: { show: each.values.length < 40, size: each.values.length < 5 ? 7 : 4 }, value: (_, value) => (value === null || value === undefined ? "–" : each.format(value)) };
        })],
      hooks: { setSelect: [(plot) => {
        if (plot.select.width < 4) return;
        const [from, to] = [plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x")];
        plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        this.onZoom?.(from, to);
      }] },
    }, this.data, this);
    const canvas = this.plot.root.querySelector("canvas");
    canvas.setAttribute("role", "img");
    this.plot.root.querySelectorAll("th[tabindex]").forEach((each) => each.removeAttribute("tabindex"));
    this.scale();
    this.describe();
  }
}
customElements.define("time-plot", TimePlot);
