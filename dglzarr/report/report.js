// What makes a report move: charts, tables that search and sort, one gene marked everywhere.
// Reads the JSON of the page; names from it are only ever set as text, never as HTML.
"use strict";
(() => {
const page = JSON.parse(document.getElementById("data-of-pictures").textContent);
const MOST_DOTS = 2500, PAGE = 25, NEAR = 24;
const COLORS = ["#4269d0", "#e0a100", "#e2574c", "#3fa7a0", "#3ca951", "#f07ab0", "#a463f2", "#6aaee8", "#9c6b4e", "#708090"];
const KIND = { mined: "var(--mined)", selector: "var(--selector)", published: "var(--published)", random: "var(--random)", subset: "var(--random)" };
const ink = { color: "var(--ink)", fontSize: "12px", fontFamily: "inherit", background: "none", overflow: "visible" };
const charts = [];
document.documentElement.classList.add("js");

// ---------------------------------------------------------------- small tools

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
};
const known = (value) => typeof value === "number" && Number.isFinite(value);
const shown = (value) => value == null || value === "" ? "-"
  : typeof value === "boolean" ? (value ? "yes" : "no")
  : typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(4))) : String(value);
const words = (name) => name.replaceAll("_", " ");
const rowsOf = (name) => {
  const table = page.tables[name];
  if (!table.rows) {
    const n = table.columns.length ? table.columns[0].length : 0;
    table.rows = Array.from({ length: n }, (_, i) => {
      const row = {};
      table.names.forEach((column, k) => { row[column] = table.columns[k][i]; });
      return row;
    });
  }
  return table.rows;
};
const quoted = (value) => {
  const text = value == null ? "" : String(value);
  return /[\t\n\r"]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const save = (name, content, type) => {
  const link = make("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};
const saveTable = (name, names, rows) => save(`${name}.tsv`,
  [names, ...rows.map((row) => names.map((column) => row[column]))].map((line) => line.map(quoted).join("\t")).join("\n") + "\n",
  "text/tab-separated-values");

// ---------------------------------------------------------------- charts

class Chart {
  constructor(figure, name, told) {
    Object.assign(this, { figure, name, told, domain: null, at: -1, found: null });
    this.rows = rowsOf(told.table).filter((row) => this.wanted(row));
    if (told.most) this.rows = this.rows.slice(0, told.most);
    this.live = make("div", { class: "live", tabindex: "0", role: "group", "aria-label": `${told.alt}. Interactive: arrow keys go from one to the next, plus and minus zoom, 0 shows all.` });
    this.key = make("ul", { class: "key" });
    this.said = make("span", { class: "said", "aria-live": "polite" });
    const image = figure.querySelector("img");
    image.before(this.key, this.live);
    const tools = figure.querySelector(".tools");
    const button = (text, label, act) => make("button", { type: "button", "aria-label": `${label}: ${told.alt}`, title: label, onclick: act }, text);
    tools.replaceChildren(
      ...(this.canZoom ? [button("+", "Zoom in", () => this.zoom(0.5)), button("\u2212", "Zoom out", () => this.zoom(2)), button("All", "Show all", () => this.reset())] : []),
      button("Data (TSV)", `Download the data (all digits: report_data/${told.table}.tsv)`, () => this.saveData()),
      button("SVG", "Download the picture as SVG", () => save(`${name}.svg`, this.svg(), "image/svg+xml")),
      button("PNG", "Download the picture as PNG", () => this.png()),
      this.said);
    this.live.addEventListener("keydown", (event) => this.press(event));
    // before Plot, which keeps the event to itself where it shows a tip
    this.live.addEventListener("pointerdown", (event) => this.drag(event), true);
    this.live.addEventListener("dblclick", () => this.reset());
    this.live.addEventListener("blur", () => { this.at = -1; });
    figure.classList.add("drawn");
    this.width = 0;
    new ResizeObserver(() => {
      if (this.live.clientWidth && Math.abs(this.live.clientWidth - this.width) > 2) this.draw();
    }).observe(this.live);
  }

  wanted(row) {
    const { where = {}, without = {}, x, y, kind } = this.told;
    return Object.entries(where).every(([name, value]) => row[name] === value)
      && Object.entries(without).every(([name, value]) => row[name] !== value)
      && (kind === "ranges" || known(row[x])) && (!["scatter", "curve"].includes(kind) || known(row[y]));
  }

  get canZoom() { return !["bars", "terms"].includes(this.told.kind); }

  get zoomsY() { return this.told.kind === "scatter"; }

  title(row) {
    const { label, sublabel, x, y, kind, hits } = this.told;
    const name = row[label] || row[sublabel] || "";
    const second = sublabel && row[sublabel] && row[sublabel] !== name ? ` (${row[sublabel]})` : "";
    const lines = label ? [`${name}${second}`] : [];
    if (kind === "lines") lines.push(`${this.told.xlabel}: ${shown(row.x)}`, `${row.name}: ${shown(row.y)}`);
    else if (kind === "ranges") lines.push(`${row.stage}: median ${shown(row.median)}`, `half between ${shown(row.q25)} and ${shown(row.q75)}`, `98 % between ${shown(row.q01)} and ${shown(row.q99)}`);
    else {
      lines.push(`${this.told.xlabel || words(x)}: ${shown(row[x])}`);
      if (typeof row[y] === "number") lines.push(`${this.told.ylabel || words(y)}: ${shown(row[y])}`);
    }
    if (kind === "strip") lines.push(known(row.low) ? `95 % interval ${shown(row.low)} to ${shown(row.high)}` : "", `${shown(row.n_genes)} genes`);
    if (kind === "terms") lines.push(`${shown(row.n_hits)} of ${shown(row.n_genes)} genes, adjusted p ${shown(row.p_adjusted)}`, String(row[hits] || "").split("/").slice(0, 8).join(" "));
    if (this.told.table === "genes" && row.rank) lines.push(`rank ${row.rank}${row.is_landmark ? ", on the panel" : ""}`);
    return lines.filter(Boolean).join("\n");
  }

  draw() {
    this.width = this.live.clientWidth;
    if (!this.width) return;
    const drawn = this[this.told.kind]();
    this.plot = Plot.plot({
      width: this.width, style: ink, marginLeft: 52, marginBottom: 42, ariaLabel: this.told.alt, ...drawn,
      x: { grid: true, label: this.told.xlabel, labelArrow: "none", labelAnchor: this.width < 520 ? "right" : "center", ...drawn.x },
      y: { grid: true, label: this.told.ylabel, labelArrow: "none", ...drawn.y },
      marks: [...drawn.marks, ...this.pointed(drawn)].filter(Boolean),
    });
    this.plot.setAttribute("aria-hidden", "true"); // keys and .said tell what is in it
    this.live.replaceChildren(this.plot);
    this.live.dataset.n = this.points.length;
    if (!this.domain) this.live.dataset.all = (this.told.kind === "histogram" ? this.rows : this.points).length.toLocaleString("en");
  }

  // marks of what is found by name, of what the keyboard is at, and of what is under the pointer
  pointed({ tip }) {
    const { x, y, px = "x", data } = tip;
    this.points = data.filter((row) => this.isInside(x(row), y(row)));
    this.xy = [x, y];
    const label = (row) => this.title(row);
    const at = this.at >= 0 ? [this.points[this.at]].filter(Boolean) : [];
    const found = this.found ? this.points.filter((row) => this.isFound(row)) : [];
    const box = { fill: "var(--card)", stroke: "var(--soft)", fontSize: 12, lineWidth: 40, maxRadius: 60 };
    return [
      found.length && Plot.dot(found, { x, y, r: 7, stroke: "var(--found)", strokeWidth: 2.5 }),
      found.length && Plot.text(found.slice(0, 3), { x, y, text: (row) => row[this.told.label] || row[this.told.sublabel], dy: -14, fill: "var(--found)", fontWeight: 700, stroke: "var(--card)", strokeWidth: 4, paintOrder: "stroke" }),
      at.length && Plot.dot(at, { x, y, r: 8, stroke: "var(--link)", strokeWidth: 2.5 }),
      at.length && Plot.tip(at, { x, y, title: label, ...box }),
      tip.bins ? null : Plot.tip(this.points, { ...(px === "x" ? Plot.pointerX : px === "y" ? Plot.pointerY : Plot.pointer)({ x, y, title: label, ...box }) }),
    ];
  }

  isFound(row) { return this.told.table === "genes" && row.gene === this.found.gene; }

  isInside(x, y) {
    if (!this.domain) return true;
    const { x: dx, y: dy } = this.domain;
    return (!dx || !known(x) || (x >= dx[0] && x <= dx[1])) && (!dy || !known(y) || (y >= dy[0] && y <= dy[1]));
  }

  zoomed(axis, all) { return this.domain?.[axis] || all; }

  extent(values, room = 0.04) {
    let [low, high] = d3.extent(values.filter(known));
    if (low == null) [low, high] = [0, 1];
    const more = (high - low || Math.abs(high) || 1) * room;
    return [low - more, high + more];
  }

  strip() {
    const { x, y, color, low, high, rule } = this.told;
    const order = [...new Set(this.rows.map((row) => row[y]))];
    const random = d3.randomLcg(7);
    this.rows.forEach((row) => { row.shift ??= row[color] === "random" ? (random() - 0.5) * 14 : 0; });
    const own = this.rows.filter((row) => row[color] !== "random" && known(row[low]));
    const all = this.extent([...this.rows.map((row) => row[x]), ...own.flatMap((row) => [row[low], row[high]])]);
    const dots = (kind) => { const rows = this.rows.filter((row) => (row[color] === "random") === kind); return rows; };
    const shift = (rows, dy) => Plot.dot(rows, { x, y, dy, fill: (row) => KIND[row[color]], r: 4, fillOpacity: 0.75 });
    this.legend(["mined", "selector", "published", "random"].filter((kind) => this.rows.some((row) => row[color] === kind)).map((kind) => [kind === "selector" ? "other selectors" : kind, KIND[kind]]));
    return {
      height: 70 + 30 * order.length, marginLeft: Math.min(150, 24 + 6.6 * Math.max(...order.map((name) => String(name).length))),
      x: { domain: this.zoomed("x", all) }, y: { domain: order, label: null, tickFormat: (name) => String(name).slice(0, 20) }, clip: true,
      marks: [
        Plot.ruleX([rule].filter((value) => this.isInside(value)), { stroke: "var(--mined)", strokeDasharray: "2,3" }),
        Plot.ruleY(own, { x1: low, x2: high, y, stroke: (row) => KIND[row[color]], strokeWidth: 2, strokeOpacity: 0.5, clip: true }),
        ...d3.groups(dots(true), (row) => Math.round(row.shift / 3)).map(([dy, rows]) => shift(rows.filter((row) => this.isInside(row[x])), dy * 3)),
        Plot.dot(dots(false).filter((row) => this.isInside(row[x])), { x, y, fill: (row) => KIND[row[color]], r: 6 }),
      ],
      tip: { data: this.rows, x: (row) => row[x], y: (row) => row[y], px: "xy" },
    };
  }

  scatter() {
    const { x, y, color, diagonal, above, below } = this.told;
    let dx = this.extent(this.rows.map((row) => row[x])), dy = this.extent(this.rows.map((row) => row[y]));
    if (diagonal) { const top = Math.max(dx[1], dy[1]); const low = Math.min(0, dx[0], dy[0]) < -0.2 ? Math.min(dx[0], dy[0]) : Math.max(0, Math.min(dx[0], dy[0])); dx = [low, top]; dy = [low, top]; }
    dx = this.zoomed("x", dx); dy = this.zoomed("y", dy);
    const rows = this.rows.filter((row) => this.isInside(row[x], row[y]));
    const dense = !color && rows.length > MOST_DOTS;
    const marks = [];
    let fill = "var(--mined)";
    if (color) {
      const groups = d3.rollups(this.rows, (some) => some.length, (row) => row[color]).sort((a, b) => b[1] - a[1]).slice(0, COLORS.length);
      const of = new Map(groups.map(([name], i) => [name, COLORS[i]]));
      fill = (row) => of.get(row[color]) || "var(--random)";
      this.legend([...groups.map(([name, n]) => [`${String(name || "-").slice(0, 24)} (${n})`, of.get(name)]), ...(new Set(this.rows.map((row) => row[color])).size > COLORS.length ? [["others", "var(--random)"]] : [])]);
    }
    if (dense) {
      marks.push(Plot.hexagon(rows, Plot.hexbin({ fill: "count", title: (some) => `${some.length} genes\n${some.slice(0, 6).join(" ")}${some.length > 6 ? " ..." : ""}` },
        { x, y, binWidth: 9, title: (row) => row[this.told.label] || row[this.told.sublabel], tip: { fill: "var(--card)", stroke: "var(--soft)" }, clip: true })));
    } else marks.push(Plot.dot(rows, { x, y, r: rows.length > 600 ? 2.2 : 3, fill, fillOpacity: 0.55 }));
    if (diagonal) {
      const low = Math.max(dx[0], dy[0]), high = Math.min(dx[1], dy[1]);
      if (low < high) marks.push(Plot.link([0], { x1: low, y1: low, x2: high, y2: high, stroke: "var(--ink)", strokeWidth: 1 }));
      const corner = { fontSize: 12, fontWeight: 600, stroke: "var(--card)", strokeWidth: 4, paintOrder: "stroke" };
      if (above) marks.push(Plot.text([above], { frameAnchor: "top-left", dx: 6, dy: 6, fill: "var(--published)", ...corner }));
      if (below) marks.push(Plot.text([below], { frameAnchor: "bottom-right", dx: -6, dy: -6, fill: "var(--mined)", ...corner }));
    }
    return {
      height: Math.min(this.width * (diagonal ? 1 : 0.72), 460), x: { domain: dx }, y: { domain: dy }, marks,
      color: dense ? { type: "sqrt", range: ["color-mix(in srgb, var(--mined) 22%, var(--card))", "var(--mined)"], interpolate: (a, b) => (t) => `color-mix(in srgb, var(--mined) ${Math.round(22 + 78 * t)}%, var(--card))` } : undefined,
      tip: { data: rows, x: (row) => row[x], y: (row) => row[y], px: "xy", bins: dense },
    };
  }

  bars() {
    const { x, y, label, sublabel } = this.told;
    const name = (row) => { const long = String((label && row[label]) || row[y]) + (row.is_forced ? " forced" : ""); return long.length > 24 ? `${long.slice(0, 23)}\u2026` : long; };
    const keyed = this.rows.map((row, i) => ({ ...row, key: `${i}` }));
    const names = new Map(keyed.map((row) => [row.key, name(row)]));
    return {
      height: 62 + (keyed.length > 12 ? 17 : 30) * keyed.length, marginLeft: Math.min(170, 18 + 6.8 * Math.max(4, ...[...names.values()].map((text) => text.length))),
      x: { zero: true, nice: true }, y: { label: null, tickFormat: (key) => names.get(key), grid: false, domain: keyed.map((row) => row.key) },
      marks: [Plot.barX(keyed, { x, y: "key", fill: this.told.table === "genes" ? "var(--mined)" : "var(--published)", insetTop: 1, insetBottom: 1 }),
        this.told.table !== "genes" && Plot.text(keyed, { x, y: "key", text: (row) => shown(row[x]), dx: -6, textAnchor: "end", fill: "var(--card)", fontWeight: 600 }), Plot.ruleX([0], { stroke: "var(--line)" })],
      tip: { data: keyed, x: (row) => row[x], y: (row) => row.key, px: "y" },
    };
  }

  histogram() {
    const { x, inside, rule, rulelabel } = this.told;
    const dx = this.zoomed("x", this.extent([...this.rows.map((row) => row[x]), ...(known(rule) ? [rule, 0] : [])], 0.02));
    const rows = this.rows.filter((row) => this.isInside(row[x]));
    const bin = d3.bin().domain(dx).thresholds(d3.ticks(dx[0], dx[1], 50)).value((row) => row[x]);
    const bins = bin(rows).filter((some) => some.length && some.x1 > some.x0).map((some) => ({ x0: some.x0, x1: some.x1, n: some.length, k: inside ? some.filter((row) => row[inside]).length : 0, some, mid: (some.x0 + some.x1) / 2 }));
    if (inside) this.legend([["all genes", "var(--random)"], ["mined panel", "var(--mined)"]]);
    this.title = (b) => [`${shown(b.x0)} to ${shown(b.x1)}`, `${b.n} ${this.told.ylabel}${inside ? `, ${b.k} on the panel` : ""}`,
      b.some.slice().sort((a, c) => (c[inside] ? 1 : 0) - (a[inside] ? 1 : 0)).slice(0, 5).map((row) => row[this.told.label] || row[this.told.sublabel]).join(" ") + (b.n > 5 ? " ..." : "")].join("\n");
    this.isFound = (b) => this.told.table === "genes" && b.some.some((row) => row.gene === this.found.gene);
    return {
      height: 300, x: { domain: dx }, y: { nice: true, domain: [0, d3.max(bins, (b) => b.n) || 1] },
      marks: [Plot.rectY(bins, { x1: "x0", x2: "x1", y: "n", fill: inside ? "var(--random)" : "var(--published)", inset: 0.4 }),
        inside && Plot.rectY(bins.filter((b) => b.k), { x1: "x0", x2: "x1", y: "k", fill: "var(--mined)", inset: 0.4 }),
        known(rule) && this.isInside(rule) && Plot.ruleX([rule], { stroke: "var(--mined)", strokeDasharray: "3,3" }),
        known(rule) && this.isInside(rule) && Plot.text([rule], { x: (value) => value, frameAnchor: "top", text: () => `${rulelabel} ${shown(rule)}`, textAnchor: "end", dx: -6, dy: 4, fill: "var(--mined)", stroke: "var(--card)", strokeWidth: 4, paintOrder: "stroke" }), Plot.ruleY([0], { stroke: "var(--line)" })],
      tip: { data: bins, x: (b) => b.mid, y: (b) => b.n },
    };
  }

  curve() {
    const { x, y, inside } = this.told;
    const ordered = this.ordered ??= d3.sort(this.rows, (row) => row[x]);
    const rows = ordered.filter((row) => this.isInside(row[x], row[y]));
    const step = Math.max(1, Math.floor(rows.length / 2000));
    const line = rows.filter((_, i) => i % step === 0 || i === rows.length - 1);
    const dy = [Math.min(0, d3.min(rows, (row) => row[y]) ?? 0), (d3.max(rows, (row) => row[y]) ?? 1) * 1.04];
    this.legend([["all genes", "var(--ink)"], ["mined panel", "var(--mined)"]]);
    return {
      height: 300, x: { domain: this.zoomed("x", [0, (ordered.at(-1)?.[x] ?? 1) * 1.02]) }, y: { domain: dy },
      marks: [Plot.ruleX(rows.filter((row) => row[inside]), { x, y1: Math.max(0, dy[0]), y2: y, stroke: "var(--mined)", strokeOpacity: 0.5, strokeWidth: 1, clip: true }),
        Plot.line(line, { x, y, stroke: "var(--ink)", strokeWidth: 1.4, clip: true })],
      tip: { data: rows, x: (row) => row[x], y: (row) => row[y] },
    };
  }

  lines() {
    const { x, y, band, rule, rulelabel, log } = this.told;
    const long = y.flatMap((name) => this.rows.filter((row) => known(row[name])).map((row) => ({ x: row[x], y: row[name], name })));
    const palette = y.length === 2 ? ["var(--random)", "var(--published)"] : COLORS;
    const color = new Map(y.map((name, i) => [name, name === "random" ? "var(--random)" : palette[i % palette.length]]));
    const style = y.length === 2 ? ["", "6,3"] : ["", "6,3", "2,3", "8,3,2,3"];
    const dash = (name) => style[y.indexOf(name) % style.length];
    const dx = this.zoomed("x", log ? d3.extent(this.rows, (row) => row[x]) : this.extent(this.rows.map((row) => row[x]), 0.02));
    const values = [...long.filter((row) => this.isInside(row.x)).map((row) => row.y), ...(band ? this.rows.flatMap((row) => band.map((name) => row[name])) : [])];
    this.legend([...y.map((name) => [name, color.get(name)]), ...(band ? [["random, best to worst", "color-mix(in srgb, var(--random) 40%, var(--card))"]] : []), ...(rulelabel ? [[rulelabel, "var(--mined)"]] : [])]);
    return {
      height: 320, marginLeft: 58, x: { domain: dx, type: log ? "log" : "linear", ...(log ? { ticks: this.rows.map((row) => row[x]), tickFormat: (value) => String(value) } : {}) },
      y: { domain: this.extent(values, 0.06) },
      marks: [band && Plot.areaY(this.rows, { x, y1: band[0], y2: band[1], fill: "var(--random)", fillOpacity: 0.3, clip: true }),
        known(rule) && this.isInside(rule) && Plot.ruleX([rule], { stroke: "var(--mined)", strokeDasharray: "3,3" }),
        ...y.map((name) => Plot.line(long.filter((row) => row.name === name), { x: "x", y: "y", stroke: color.get(name), strokeWidth: 1.8, strokeDasharray: dash(name), clip: true })),
        (long.length < 80) && Plot.dot(long, { x: "x", y: "y", fill: (row) => color.get(row.name), r: 3, clip: true })],
      tip: { data: long, x: (row) => row.x, y: (row) => row.y, px: "xy" },
    };
  }

  ranges() {
    const { stages } = this.told;
    const n = this.rows.length;
    const long = stages.flatMap((stage, k) => this.rows.map((row, i) => ({ ...row, stage, i: k * (n + Math.ceil(n / 12)) + i,
      ...Object.fromEntries(["q01", "q25", "median", "q75", "q99"].map((q) => [q, row[`${stage}_${q}`]])) }))).filter((row) => known(row.median));
    const rows = long.filter((row) => this.isInside(row.i));
    this.legend([["median", "var(--mined)"], ["half of all genes", "var(--published)"], ["98 % of all genes", "var(--random)"]]);
    const thick = Math.max(1, Math.min(6, this.width / long.length / 1.6));
    const middle = stages.map((stage) => ({ stage, i: d3.mean(rows.filter((row) => row.stage === stage), (row) => row.i) })).filter((row) => known(row.i));
    return {
      height: 320, x: { domain: this.zoomed("x", [-1, long.at(-1) ? long.at(-1).i + 1 : 1]), ticks: [], label: "samples, in the order of the sources", grid: false }, y: { nice: true },
      marks: [Plot.ruleX(rows, { x: "i", y1: "q01", y2: "q99", stroke: "var(--random)", strokeWidth: thick, strokeOpacity: 0.45 }),
        Plot.ruleX(rows, { x: "i", y1: "q25", y2: "q75", stroke: "var(--published)", strokeWidth: thick }),
        Plot.dot(rows, { x: "i", y: "median", fill: "var(--mined)", r: Math.max(1.5, thick / 1.6) }),
        Plot.text(middle, { x: "i", frameAnchor: "top", text: "stage", dy: -2, fontWeight: 600, fontSize: 13, fill: "var(--ink)", stroke: "var(--card)", strokeWidth: 4, paintOrder: "stroke" })],
      tip: { data: rows, x: (row) => row.i, y: (row) => row.median },
    };
  }

  terms() {
    const { x, y, size, color, inside } = this.told;
    const keyed = this.rows.map((row, i) => ({ ...row, key: `${i}` }));
    const wide = this.width > 480;
    const short = (text) => String(text).length > (wide ? 38 : 20) ? `${String(text).slice(0, wide ? 37 : 19)}\u2026` : String(text);
    const names = new Map(keyed.map((row) => [row.key, short(row[y])]));
    const most = d3.max(keyed, (row) => row[color]) || 1;
    const shade = (row) => `color-mix(in srgb, var(--published) ${Math.round(30 + 70 * row[color] / most)}%, var(--card))`;
    this.legend([["enriched (darker: lower adjusted p)", "var(--published)"], ["hollow: not enriched", "none"]]);
    return {
      height: 70 + 24 * Math.max(4, keyed.length), marginLeft: 18 + 6.4 * Math.max(...[...names.values()].map((text) => text.length)),
      x: { zero: true, nice: true, tickFormat: "%" }, y: { label: null, domain: keyed.map((row) => row.key), tickFormat: (key) => names.get(key) }, r: { range: [3, 11] },
      marks: [Plot.dot(keyed, { x, y: "key", r: size, fill: (row) => row[inside] ? shade(row) : "var(--card)", stroke: shade, strokeWidth: 1.5 })],
      tip: { data: keyed, x: (row) => row[x], y: (row) => row.key, px: "xy" },
    };
  }

  legend(entries) {
    this.key.replaceChildren(...entries.map(([text, color]) => {
      const spot = make("i", { "aria-hidden": "true" });
      spot.style.background = color;
      if (color === "none") spot.style.border = "1px solid var(--published)";
      return make("li", {}, spot, text);
    }));
  }

  // ------------------------------------------------------------ zoom and keys

  limits(axis) {
    const domain = this.plot.scale(axis)?.domain;
    return domain && domain.length === 2 && domain.every(known) ? domain : null;
  }

  // from values to where an axis has them, and back: a logarithmic one is moved by its logarithms
  drawn(axis) { return this.told.log && axis === "x" ? [Math.log, Math.exp] : [Number, Number]; }

  reset() { this.domain = null; this.at = -1; this.draw(); this.say("All is shown."); }

  zoom(factor) {
    const about = this.at >= 0 && this.points[this.at] ? this.xy.map((of) => of(this.points[this.at])) : [null, null];
    const axes = this.zoomsY ? ["x", "y"] : ["x"];
    const next = {};
    axes.forEach((axis, k) => {
      const limits = this.limits(axis);
      if (!limits) return;
      const [to, from] = this.drawn(axis), [low, high] = limits.map(to);
      const middle = known(about[k]) ? to(about[k]) : (low + high) / 2, half = (high - low) / 2 * factor;
      next[axis] = [from(middle - half), from(middle + half)];
    });
    this.look(next);
  }

  // draw what lies in a domain, or say that nothing does
  look(domain) {
    const before = this.domain;
    this.domain = domain;
    this.at = -1;
    this.draw();
    const n = this.told.kind === "histogram" ? d3.sum(this.points, (bin) => bin.n) : this.points.length;
    if (n) this.say(`${n.toLocaleString("en")} of ${this.live.dataset.all} are in sight.`);
    else {
      this.domain = before;
      this.draw();
      this.say("Nothing is there.");
    }
  }

  move(dx, dy) {
    const next = {};
    [["x", dx], ["y", dy]].forEach(([axis, share]) => {
      const limits = this.limits(axis);
      if (!limits || (axis !== "x" && !this.zoomsY)) return;
      const [to, from] = this.drawn(axis), [low, high] = limits.map(to);
      next[axis] = [low, high].map((end) => from(end + share * (high - low)));
    });
    this.look(next);
  }

  press(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.shiftKey && step && this.canZoom) this.move(...{ ArrowRight: [0.2, 0], ArrowLeft: [-0.2, 0], ArrowUp: [0, 0.2], ArrowDown: [0, -0.2] }[event.key]);
    else if (step) this.go(step);
    else if (event.key === "Home") this.go(0, 0);
    else if (event.key === "End") this.go(0, this.points.length - 1);
    else if ((event.key === "+" || event.key === "=") && this.canZoom) this.zoom(0.5);
    else if (event.key === "-" && this.canZoom) this.zoom(2);
    else if (event.key === "0" || event.key === "Escape") this.reset();
    else return;
    event.preventDefault();
  }

  go(step, to) {
    if (!this.points.length) return;
    const here = this.at < 0 ? (step > 0 ? 0 : this.points.length - 1) : this.at + step;
    const now = to ?? Math.max(0, Math.min(this.points.length - 1, here));
    this.at = now;
    this.draw();
    this.say(`${this.title(this.points[this.at]).replaceAll("\n", ", ")} (${this.at + 1} of ${this.points.length})`);
  }

  say(text) { this.said.textContent = text; }

  drag(event) {
    if (!this.canZoom || event.button || event.pointerType === "touch") return;
    const svg = this.plot.tagName === "svg" ? this.plot : this.plot.querySelector("svg");
    const frame = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / frame.width || 1;
    const from = [event.clientX - frame.left, event.clientY - frame.top];
    const brush = make("div", { class: "brush" });
    const place = (move) => {
      const to = [move.clientX - frame.left, move.clientY - frame.top];
      const [x0, x1] = d3.extent([from[0], to[0]]), [y0, y1] = this.zoomsY ? d3.extent([from[1], to[1]]) : [0, frame.height];
      Object.assign(brush.style, { left: `${x0}px`, width: `${x1 - x0}px`, top: `${y0}px`, height: `${y1 - y0}px` });
      if (!brush.isConnected && x1 - x0 > 5) this.live.append(brush);
      return { x: [x0, x1], y: [y1, y0] };
    };
    const stop = (up) => {
      document.removeEventListener("pointermove", place);
      document.removeEventListener("pointerup", stop);
      const box = place(up);
      brush.remove();
      if (box.x[1] - box.x[0] < 6) return;
      const next = {};
      for (const axis of this.zoomsY ? ["x", "y"] : ["x"]) {
        const invert = this.plot.scale(axis)?.invert;
        if (invert) next[axis] = box[axis].map((pixel) => invert(pixel * scale));
      }
      this.look(next);
    };
    document.addEventListener("pointermove", place);
    document.addEventListener("pointerup", stop);
  }

  // ------------------------------------------------------------ pictures to keep

  saveData() {
    const { names, n } = page.tables[this.told.table];
    saveTable(this.name, names, this.rows);
    if (this.rows.length < n) this.say(`${this.rows.length.toLocaleString("en")} of ${n.toLocaleString("en")} rows; all are in report_data/${this.told.table}.tsv.`);
  }

  // the SVG with the colours of the page written into it
  svg() {
    const copy = this.plot.cloneNode(true), from = [this.plot, ...this.plot.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
    copy.removeAttribute("aria-hidden");
    copy.setAttribute("role", "img");
    from.forEach((node, i) => {
      const style = getComputedStyle(node);
      for (const name of ["fill", "stroke"]) if (node.getAttribute(name) || node === this.plot) to[i].setAttribute(name, style[name]);
    });
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("style", `background:${getComputedStyle(document.querySelector("section#genes")).backgroundColor};color:${getComputedStyle(this.plot).color};font:12px sans-serif`);
    return new XMLSerializer().serializeToString(copy);
  }

  png() {
    const image = new Image(), { width, height } = this.plot.getBoundingClientRect();
    image.onload = () => {
      const canvas = make("canvas", { width: width * 2, height: height * 2 });
      const pen = canvas.getContext("2d");
      pen.drawImage(image, 0, 0, width * 2, height * 2);
      canvas.toBlob((blob) => save(`${this.name}.png`, blob, "image/png"));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(this.svg())}`;
  }

  find(row) {
    this.found = row;
    if (this.told.table === "genes" && this.width) this.draw();
  }
}

// ---------------------------------------------------------------- tables

const number = (text) => {
  const found = /^[-+]?[\d,]*\.?\d+(e[-+]?\d+)?%?(?=[\s;]|$)/i.exec(text.trim().replace(/^</, ""));
  return found ? parseFloat(found[0].replaceAll(",", "")) : NaN;
};
const compare = (a, b, way) => {
  const x = number(a), y = number(b);
  if (!Number.isNaN(x) && !Number.isNaN(y)) return way * (x - y);
  if (!Number.isNaN(x) || !Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return a === "-" || b === "-" ? (a === "-") - (b === "-") : way * a.localeCompare(b, "en", { numeric: true });
};

function sortable(table) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  if (body.rows.length < 2) return;
  heads.forEach((head, column) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      const rows = [...body.rows].sort((a, b) => compare(a.cells[column].textContent, b.cells[column].textContent, way));
      body.append(...rows);
    });
    head.replaceChildren(button);
  });
  if (body.rows.length > 7) filtered(table, body);
}

function filtered(table, body) {
  const told = make("span", { "aria-live": "polite" }, `${body.rows.length} rows`);
  const input = make("input", { type: "search", placeholder: "Search this table", "aria-label": `Search: ${table.caption?.textContent || "table"}` });
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    let n = 0;
    for (const row of body.rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      n += !row.hidden;
    }
    told.textContent = `${n} of ${body.rows.length} rows`;
  });
  table.closest(".scroll").before(make("div", { class: "filter" }, input, told));
}

// every gene, a page at a time: a table of 22,000 rows would be slow to show
function allGenes(place) {
  const { names } = page.tables.genes, rows = rowsOf("genes");
  const columns = names.filter((name) => name !== "score_rank");
  let wanted = "", order = ["rank", 1], start = 0;
  const body = make("tbody"), told = make("span", { "aria-live": "polite" });
  const heads = columns.map((name) => {
    const head = make("th", { scope: "col", class: typeof rows[0]?.[name] === "number" || /error|pcc|mae/.test(name) ? "n" : null },
      make("button", { type: "button", onclick: () => { order = [name, order[0] === name ? -order[1] : 1]; start = 0; show(); } }, words(name)));
    head.dataset.name = name;
    return head;
  });
  const input = make("input", { id: "gene-search", type: "search", placeholder: "Symbol, ID, probe or panel", "aria-label": "Search all genes", oninput: () => { wanted = input.value.trim().toLowerCase(); start = 0; show(); } });
  const turn = (step) => { start = Math.max(0, start + step * PAGE); show(); };
  const back = make("button", { type: "button", onclick: () => turn(-1) }, "Before"), next = make("button", { type: "button", onclick: () => turn(1) }, "Next");
  let last = [];
  const keep = make("button", { type: "button", onclick: () => saveTable("genes-found", names, last) }, "These rows (TSV)");
  function show() {
    const texts = ["gene", "gene_symbol", "gene_id", "panels"];
    last = wanted ? rows.filter((row) => texts.some((name) => String(row[name]).toLowerCase().includes(wanted))) : rows.slice();
    const [by, way] = order;
    last.sort((a, b) => {
      const [x, y] = [a[by], b[by]];
      if (x == null || y == null || x === "" || y === "") return (x == null || x === "") - (y == null || y === "");
      return way * (typeof x === "string" ? x.localeCompare(y, "en") : x - y);
    });
    start = Math.min(start, Math.max(0, last.length - 1));
    heads.forEach((head) => head.dataset.name === by ? head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending") : head.removeAttribute("aria-sort"));
    body.replaceChildren(...last.slice(start, start + PAGE).map((row) => make("tr", { class: row.is_landmark ? "mined" : null },
      ...columns.map((name, k) => make(k === 1 ? "th" : "td", { scope: k === 1 ? "row" : null, class: heads[k].className || null }, shown(row[name]))))));
    told.textContent = last.length ? `${start + 1} to ${Math.min(last.length, start + PAGE)} of ${last.length.toLocaleString("en")} genes` : "No gene of this name";
    back.disabled = !start;
    next.disabled = start + PAGE >= last.length;
  }
  place.append(make("div", { class: "filter" }, input),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "All genes" }, make("table", { class: "wide" },
      make("caption", {}, `${page.tables.genes.title}. Click a column to sort. Errors are those of held-out samples; genes that any panel measures are not predicted and have none.`), make("thead", {}, make("tr", {}, ...heads)), body)),
    make("div", { class: "pages" }, back, next, told, keep));
  show();
}

// ---------------------------------------------------------------- one gene everywhere

function finder() {
  const input = document.getElementById("find"), said = document.getElementById("find-said"), list = document.getElementById("find-list");
  const rows = rowsOf("genes");
  const names = ["gene_symbol", "gene", "gene_id"];
  const look = () => {
    const wanted = input.value.trim().toLowerCase();
    const near = wanted ? rows.filter((row) => names.some((name) => String(row[name]).toLowerCase().startsWith(wanted))).slice(0, 12) : [];
    list.replaceChildren(...near.map((row) => make("option", { value: row.gene_symbol || row.gene }, row.gene)));
    const hit = wanted ? rows.find((row) => names.some((name) => String(row[name]).toLowerCase() === wanted)) || null : null;
    said.textContent = !wanted ? "" : hit ? `rank ${hit.rank}${hit.is_landmark ? ", on the panel" : hit.panels ? `, on ${hit.panels}` : ", on no panel"}; marked in the pictures` : near.length ? `${near.length}${near.length > 11 ? " or more" : ""} begin so` : "no such gene here";
    charts.forEach((chart) => { if (chart.found !== hit) chart.find(hit); });
  };
  input.addEventListener("input", look);
}

function navigation() {
  const links = new Map([...document.querySelectorAll(".side nav a")].map((link) => [link.hash.slice(1), link]));
  const mark = () => {
    let now = null;
    for (const id of links.keys()) {
      const section = document.getElementById(id);
      if (section && section.getBoundingClientRect().top < innerHeight * 0.3) now = id;
    }
    links.forEach((link, id) => id === now ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
    const bar = links.get(now)?.closest("ol");
    if (bar && bar.scrollWidth > bar.clientWidth) bar.scrollLeft = links.get(now).offsetLeft - bar.clientWidth / 2;
  };
  let waits = false;
  addEventListener("scroll", () => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => { waits = false; mark(); });
  }, { passive: true });
  mark();
  const theme = document.getElementById("theme");
  theme.addEventListener("change", () => { document.documentElement.style.colorScheme = theme.value; });
}

// ---------------------------------------------------------------- start

document.querySelectorAll(".scroll").forEach((box) => {
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", box.querySelector("caption")?.textContent || "table");
});
document.querySelectorAll("main .scroll > table").forEach(sortable);
allGenes(document.getElementById("all-genes"));
for (const figure of document.querySelectorAll("figure[data-picture]")) {
  const told = page.charts[figure.dataset.picture];
  if (told) charts.push(new Chart(figure, figure.dataset.picture, told));
}
charts.forEach((chart) => chart.draw());
finder();
navigation();
document.documentElement.dataset.ready = "true";
})();
