// The charts of a timeline, and the words and elements that pages are made of: for the page of a recording and that of the agent.
"use strict";
const SVG = "http" + "://www.w3.org/2000/svg";

// Every text goes through here as a text: names come from the watched program.
const put = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    // As an attribute it would be refused where pages may have no styles of their own.
    else if (name === "style") node.style.cssText = value;
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  for (const child of [children].flat(3)) if (child !== null && child !== undefined && child !== false) node.append(child);
  return node;
};
const el = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => put(document.createElementNS(SVG, tag), attributes, children);

// Words.
const NBSP = "\u00a0";
const number = (n) => String(Math.round(n)).replace(/\B(?=(\d{3})+(?!\d))/g, NBSP);
const plural = (n, word) => number(n) + NBSP + word + (n === 1 ? "" : "s");
const DAY = 86400000;
const iso = (ms) => new Date(ms).toISOString();
const full = (ms) => iso(ms).slice(0, 19).replace("T", " ");
const rate = (perSecond) => {
  const unit = [[1, "s"], [60, "min"], [3600, "h"], [86400, "day"]].find(([s]) => perSecond * s >= 0.95) || [86400, "day"];
  const value = perSecond * unit[0];
  return (value >= 10 ? value.toFixed(0) : value.toFixed(1).replace(/\.0$/, "")) + "/" + unit[1];
};
const duration = (ms) => {
  const s = Math.round(ms / 1000);
  if (ms < 10000) return (ms / 1000).toFixed(1) + NBSP + "s";
  if (s < 120) return s + NBSP + "s";
  if (s < 7200) return Math.round(s / 60) + NBSP + "min";
  if (s < 172800) return (s / 3600).toFixed(1).replace(/\.0$/, "") + NBSP + "h";
  return (s / 86400).toFixed(1).replace(/\.0$/, "") + NBSP + "d";
};
const bytes = (n) => n < 4194304 ? Math.floor(n / 1024) + NBSP + "KiB"
  : n < 4294967296 ? Math.floor(n / 1048576) + NBSP + "MiB" : (n / 1073741824).toFixed(1) + NBSP + "GiB";
const place = (p) => p ? p.file.split("/").slice(-2).join("/") + ":" + p.line : "";
const label = (line) => line.created_by ? line.created_by.function : line.name || line.start_function;
const leaks = (life) => life.culprit !== null && life.culprit !== undefined;
const isLeak = (verdict) => verdict === "likely" || verdict === "proven";
const GAPS = { not_running: "parkwarden was not running", recording_stopped: "the recording could not be written",
  stalled: "no look", events_lost: "events lost", budget_reached: "probes removed to save cost" };

// What the Go runtime knew of itself at a look, where that is recorded.
const at_look = (segment, of, i) => { const line = segment.runtime && segment.runtime[of]; return line ? line[i] : null; };
const milliseconds = (ms) => (ms < 10 ? ms.toFixed(2) : number(ms)) + NBSP + "ms";
const percent = (share) => (100 * share).toFixed(1) + NBSP + "%";
// Ticks are whole or half: what stands at one is its value.
const tickBytes = (n) => n === 0 ? "0" : n >= 1073741824 ? n / 1073741824 + "G" : n >= 1048576 ? n / 1048576 + "M" : n / 1024 + "K";
const PANELS = [
  { title: "Go heap: live, goal (dashed), GOMEMLIMIT (dotted)", bytes: true, tick: tickBytes, lines: [["heap live", "heap_live_bytes", bytes],
    ["goal", "heap_goal_bytes", bytes], ["GOMEMLIMIT", "memory_limit_bytes", bytes]] },
  { title: "Collector: share of the CPU", least: 0.01, tick: percent, lines: [["GC", "gc_cpu_share", percent]] },
  { title: "Longest pause of a collection; goroutines' wait for a P (p99, dashed)", least: 0.1, tick: (ms) => ms + "ms",
    lines: [["longest pause", "longest_pause_ms", milliseconds], ["latency", "latency_p99_ms", milliseconds]] },
  { title: "Threads; runnable goroutines (dashed)", least: 1, tick: (n) => short(n), lines: [["threads", "threads", number],
    ["runnable", "runnable", number]] },
];

function scaleSmall(most) {
  const power = Math.pow(10, Math.floor(Math.log10(most)));
  const top = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= most);
  return [top, [0, top]];
}

function scale(most, wanted) {
  const raw = most / wanted, power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = Math.max(1, [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw));
  const top = Math.ceil(most / step) * step;
  return [top, Array.from({ length: Math.round(top / step) + 1 }, (_, i) => i * step)];
}
function scaleBytes(most) {
  let step = 1 << 20;
  while (most / step > 3) step *= 2;
  const top = Math.ceil(most / step) * step;
  return [top, Array.from({ length: top / step + 1 }, (_, i) => i * step)];
}
function short(n) {
  return n >= 1e6 ? (n / 1e6).toFixed(1).replace(/\.0$/, "") + "M" : n >= 1e4 ? (n / 1e3).toFixed(1).replace(/\.0$/, "") + "k" : number(n);
}

// Draws the charts of `data`, a timeline, into `page`, and tells what happened.
const timelineOf = (data, page) => {
  const span = data.to_ms - data.from_ms;
  const oneDay = Math.floor(data.from_ms / DAY) === Math.floor(data.to_ms / DAY);
  const clock = (ms) => iso(ms).slice(11, span < 20 * 60000 ? 19 : 16);
  const time = (ms) => (oneDay ? "" : iso(ms).slice(0, 10) + " ") + clock(ms);
  const precise = (ms) => oneDay ? iso(ms).slice(11, 19) : full(ms);

  // Colours: what leaks is warm, everything else calm.
  let warm = 0, calm = 0;
  const colours = data.sites.map((site) => site.leaking
    ? "var(--accent" + (warm++ % 8 ? "-" + ((warm - 1) % 8 + 1) : "") + ")" : "var(--calm-" + (calm++ % 6) + ")");
  // The leaking sites lie on top, the largest uppermost.
  const order = data.sites.map((_, i) => i).reverse();

  return { charts, happened, clock, time, precise, span };

  function charts() {
    // Where something leaks comes first.
    const leaky = (lane) => data.lives.some((life) => life.lane === lane && leaks(life));
    const lanes = [...new Set(data.lives.map((life) => life.lane))].sort((a, b) => leaky(b) - leaky(a) || a - b);
    for (const lane of lanes) {
      const lives = data.lives.map((life, index) => ({ life, index })).filter(({ life }) => life.lane === lane);
      const box = el("div", { class: "chart", tabindex: 0, role: "group",
        "aria-label": "Goroutines and memory over time. Arrow keys, Home and End move the cursor." });
      const readout = el("p", { class: "readout", "aria-live": "polite" });
      const shown = data.sites.map((site, i) => ({ site, i })).filter(({ i }) =>
        lives.some(({ life }) => life.segments.some((s) => s.sites.some((c) => c.of === i && c.counts.some((n) => n > 0)))));
      const legend = shown.slice(0, Math.max(7, shown.filter(({ site }) => site.leaking).length));
      // The largest band has a name, whatever leaks besides.
      const peak = ({ i }) => Math.max(0, ...lives.flatMap(({ life }) => life.segments.flatMap((s) => s.sites.filter((c) => c.of === i).flatMap((c) => c.counts))));
      const largest = shown.reduce((most, one) => !most || peak(one) > peak(most) ? one : most, null);
      if (largest && !legend.includes(largest)) legend[legend.length - 1].site.leaking ? legend.push(largest) : legend.splice(-1, 1, largest);
      page.append(el("section", {},
        el("div", { class: "head" }, el("h2", {}, "Goroutines by creation site"),
          lanes.length > 1 && el("p", {}, lives.map(({ life }) => "pid " + life.pid).join(", "))),
        el("ul", { class: "legend" },
          legend.map(({ site, i }) => el("li", { class: site.leaking && "hot" },
            el("span", { class: "swatch", style: "background:" + colours[i] }), label(site) + (site.created_by ? " " + place(site.created_by) : ""))),
          shown.length > legend.length && el("li", {}, "and " + (shown.length - legend.length) + " more")),
        box, readout));
      draw(box, readout, lives);
    }
  }

  function draw(box, readout, lives) {
    const points = lives.flatMap(({ life, index }) => life.segments.flatMap((segment, s) =>
      segment.ms.map((ms, i) => ({ ms, life, index, segment, i }))));
    let at = null;
    let move = () => {};
    const say = (point) => {
      const top = point.segment.sites.map((c) => ({ of: c.of, n: c.counts[point.i] })).filter((c) => c.n > 0)
        .sort((a, b) => b.n - a.n).slice(0, 4);
      const rss = point.segment.rss_bytes[point.i], cpus = point.segment.cpus[point.i];
      readout.replaceChildren(...[
        el("span", {}, el("b", {}, full(point.ms))),
        el("span", {}, el("b", {}, plural(point.segment.live[point.i], "goroutine"))),
        ...top.map((c) => el("span", {}, label(data.sites[c.of]) + " ", el("b", {}, number(c.n)))),
        rss !== null && el("span", {}, "memory ", el("b", {}, bytes(rss))),
        cpus !== null && el("span", {}, "CPUs ", el("b", {}, cpus.toFixed(2))),
        ...PANELS.flatMap((panel) => panel.lines).map(([name, of, say]) => {
          const value = at_look(point.segment, of, point.i);
          return value !== null && el("span", {}, name + " ", el("b", {}, say(value)));
        }),
      ].filter(Boolean));
    };
    const select = (index) => {
      if (!points.length) return;
      at = Math.max(0, Math.min(points.length - 1, index));
      say(points[at]);
      move(points[at].ms);
    };
    box.addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.round(points.length / 20));
      const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -page, PageDown: page };
      if (event.key === "Home") select(0);
      else if (event.key === "End") select(points.length - 1);
      else if (event.key in steps) select(at === null ? points.length - 1 : at + steps[event.key]);
      else return;
      event.preventDefault();
    });
    readout.append("Move over the chart, or focus it and use the arrow keys, to read the numbers of one look.");

    const render = () => {
      const width = Math.max(280, box.clientWidth - parseFloat(getComputedStyle(box).paddingLeft) * 2);
      const narrow = width < 560;
      const left = narrow ? 40 : 56, right = 8, flags = narrow ? 34 : 38, high = narrow ? 200 : 270, low = 96, between = 34;
      const inner = width - left - right;
      const x = (ms) => left + (span > 0 ? (ms - data.from_ms) / span : 0) * inner;
      const bottom = flags + high, memoryTop = bottom + between, memoryBottom = memoryTop + low;
      const panels = PANELS.filter((panel) => panel.lines.some(([, of]) => points.some((p) => at_look(p.segment, of, p.i) !== null)));
      const small = 56, end = memoryBottom + panels.length * (between + small);
      const root = svg("svg", { viewBox: `0 0 ${width} ${end + 26}`, height: end + 26, "aria-hidden": "true" });
      const most = Math.max(1, ...points.map((p) => p.segment.live[p.i]));
      const [topCount, countTicks] = scale(most, 4);
      const y = (n) => bottom - n / topCount * high;
      const limits = lives.map(({ life }) => life.memory_limit_bytes).filter((v) => v);
      const rss = points.map((p) => p.segment.rss_bytes[p.i]).filter((v) => v !== null);
      const [topBytes, byteTicks] = scaleBytes(Math.max(1 << 20, ...rss, ...limits.filter((l) => l < Math.max(0, ...rss) * 4)));
      const m = (n) => memoryBottom - n / topBytes * low;

      const flagged = [];
      for (const gap of data.gaps.filter((g) => g.blind && lives.some(({ index }) => index === g.life))) {
        const a = x(gap.from_ms), b = Math.max(x(gap.to_ms), a + 1.5);
        for (const [top, height] of [[flags, high], [memoryTop, low],
          ...panels.map((_, k) => [memoryBottom + between + k * (between + small), small])]) {
          root.append(svg("rect", { class: "gap", x: a, y: top, width: b - a, height },
            svg("title", {}, `${full(gap.from_ms)} to ${full(gap.to_ms)}: ${GAPS[gap.cause]}`)));
          for (const edge of [a, b]) root.append(svg("line", { class: "gap-edge", x1: edge, x2: edge, y1: top, y2: top + height }));
        }
        if (b - a > 78) root.append(svg("text", { class: "gap-text", x: (a + b) / 2, y: flags + 16, "text-anchor": "middle" }, "not recorded"));
        else flagged.push({ ms: gap.from_ms, text: "gap " + clock(gap.from_ms), bare: true });
      }
      for (const tick of countTicks) {
        root.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
        root.append(svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
      }
      for (const tick of byteTicks) {
        root.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: m(tick), y2: m(tick) }));
        root.append(svg("text", { x: left - 8, y: m(tick) + 4, "text-anchor": "end" }, tickBytes(tick)));
      }
      root.append(svg("text", { class: "title", x: left, y: memoryTop - 9 }, "Resident memory"));
      for (const ms of timeTicks(inner)) {
        root.append(svg("text", { x: x(ms), y: end + 19, "text-anchor": "middle" }, tickText(ms, inner)));
        root.append(svg("line", { class: "axis", x1: x(ms), x2: x(ms), y1: end, y2: end + 5 }));
      }

      for (const { life } of lives) for (const segment of life.segments) areas(root, segment, x, y);
      for (const { life } of lives) for (const segment of life.segments) memory(root, segment, x, m, memoryBottom);
      for (const { life } of lives) if (life.memory_limit_bytes && life.memory_limit_bytes <= topBytes && life.segments.length) {
        const from = x(life.segments[0].ms[0]), to = x(life.ended ? life.ended.ms : life.segments.at(-1).ms.at(-1));
        root.append(svg("line", { class: "limit", x1: from, x2: Math.max(to, from + 2), y1: m(life.memory_limit_bytes), y2: m(life.memory_limit_bytes) }));
        // One name for lives with the same limit.
        if (lives.findIndex((other) => other.life.memory_limit_bytes === life.memory_limit_bytes) === lives.findIndex((other) => other.life === life))
          root.append(svg("text", { x: from + 4, y: m(life.memory_limit_bytes) + 13 }, "limit " + bytes(life.memory_limit_bytes)));
      }

      panels.forEach((panel, k) => runtime(root, panel, lives, x, memoryBottom + between + k * (between + small), small, left, width - right));

      // Flags: of each process when its leak began and how it ended, then the rest as far as there is room.
      for (const { life, index } of lives) {
        const culprit = leaks(life) && data.groups[life.culprit].lives.find((of) => of.life === index), o = culprit && culprit.onset;
        if (!o) continue;
        const a = Math.max(left, x(o.earliest_ms)), b = Math.max(x(o.latest_ms), a + 2);
        root.append(svg("rect", { class: "band", x: a, y: flags, width: b - a, height: high }));
        if (!o.before_first_look) flagged.push({ ms: o.ms, text: "onset " + clock(o.ms), hot: true, first: true });
      }
      const mine = data.marks.filter((mark) => mark.kind !== "onset" && lives.some(({ index }) => index === mark.life));
      for (const mark of mine.filter((mark) => mark.kind !== "verdict")) {
        const words = { start: "start", restart: "restart", clock: "clock set", incident: "incident" }[mark.kind];
        const ended = words ? null : data.lives[mark.life].ended;
        flagged.push({ ms: mark.ms, text: (words || ended.label) + " " + clock(mark.ms), hot: mark.kind === "oom_kill", first: !!ended, title: mark.text });
      }
      for (const mark of mine.filter((mark) => mark.kind === "verdict")) {
        root.append(svg("line", { class: "rule", x1: x(mark.ms), x2: x(mark.ms), y1: bottom - 7, y2: bottom + 1 },
          svg("title", {}, full(mark.ms) + " " + mark.text)));
        root.append(svg("circle", { cx: x(mark.ms), cy: bottom + 5, r: 2.6, fill: "var(--accent)" }, svg("title", {}, full(mark.ms) + " " + mark.text)));
      }
      const rows = [[], []];
      for (const flag of flagged.sort((a, b) => (b.first || 0) - (a.first || 0) || a.ms - b.ms)) {
        const fx = x(flag.ms), size = flag.text.length * 6.3;
        const start = Math.max(left, Math.min(fx - size / 2, width - right - size));
        const row = rows.findIndex((taken) => taken.every(([from, to]) => to + 8 <= start || start + size + 8 <= from));
        if (!flag.bare) root.append(svg("line", { class: "rule" + (flag.hot ? " hot" : ""), x1: fx, x2: fx, y1: flags - (row === 1 ? 18 : 4), y2: bottom },
          svg("title", {}, full(flag.ms) + " " + (flag.title || flag.text))));
        if (!flag.bare) root.append(svg("line", { class: "rule" + (flag.hot ? " hot" : ""), x1: fx, x2: fx, y1: memoryTop, y2: memoryBottom }));
        if (row < 0) continue;
        rows[row].push([start, start + size]);
        root.append(svg("text", { class: "flag" + (flag.hot ? " hot" : ""), x: start, y: flags - 9 - row * 15 }, flag.text));
      }

      const cursor = svg("line", { class: "cursor", y1: flags, y2: end, visibility: "hidden" });
      const surface = svg("rect", { class: "surface", x: left, y: flags, width: inner, height: end - flags });
      surface.addEventListener("pointermove", (event) => {
        const ms = data.from_ms + (event.offsetX - left) / inner * span;
        let best = 0;
        points.forEach((p, i) => { if (Math.abs(p.ms - ms) < Math.abs(points[best].ms - ms)) best = i; });
        select(best);
      });
      root.append(cursor, surface);
      move = (ms) => { cursor.setAttribute("x1", x(ms)); cursor.setAttribute("x2", x(ms)); cursor.setAttribute("visibility", "visible"); };
      if (at !== null) move(points[at].ms);
      box.replaceChildren(root);
    };
    render();
    let last = box.clientWidth;
    // Drawn a moment later: what is resized while sizes are told of would be told of again.
    new ResizeObserver(() => requestAnimationFrame(() => { if (box.clientWidth !== last) { last = box.clientWidth; render(); } })).observe(box);
  }

  // Gaps of one process and cause that follow each other are told of together.
  function runs(gaps) {
    const runs = [];
    for (const gap of gaps) {
      const run = runs.at(-1);
      if (run && run.first.cause === gap.cause && run.first.life === gap.life) Object.assign(run, { last: gap, times: run.times + 1, ms: run.ms + gap.to_ms - gap.from_ms });
      else runs.push({ first: gap, last: gap, times: 1, ms: gap.to_ms - gap.from_ms });
    }
    return runs;
  }

  // What happened, as a list: marks, gaps, and how an end is known. None where nothing did.
  function happened() {
    const all = data.marks.map((m) => ({ ms: m.ms, text: m.text, hot: m.kind === "oom_kill" || m.kind === "onset" }))
      .concat(runs(data.gaps).map(({ first, last, times, ms }) => ({ ms: first.from_ms, text: (first.blind ? "Not recorded" : "Less seen")
        + (times > 1 ? " " + times + " times" : "") + " until " + time(last.to_ms) + " (" + duration(ms) + (times > 1 ? " in all" : "") + "): " + GAPS[first.cause] })));
    for (const life of data.lives) if (life.ended) all.push({ ms: life.ended.ms, text: "How that is known: " + life.ended.evidence, after: true });
    all.sort((a, b) => a.ms - b.ms || (a.after ? 1 : 0) - (b.after ? 1 : 0));
    if (!all.length) return null;
    const LIMIT = 30;
    const item = (e) => el("li", {}, el("time", { datetime: iso(e.ms) }, full(e.ms)), el("span", { class: e.hot && "hot" }, e.text));
    const list = el("ol", { class: "events" }, all.slice(0, LIMIT).map(item));
    const section = el("section", {}, el("div", { class: "head" }, el("h2", {}, "What happened")), list);
    if (all.length > LIMIT) {
      const more = el("button", { class: "more", type: "button", on: { click: () => { list.append(...all.slice(LIMIT).map(item)); more.remove(); } } },
        "Show " + (all.length - LIMIT) + " more");
      section.append(more);
    }
    return section;
  }

  function areas(root, segment, x, y) {
    const base = new Array(segment.ms.length).fill(0);
    const alone = segment.ms.length === 1;
    for (const i of order) {
      const counts = (segment.sites.find((c) => c.of === i) || {}).counts;
      if (!counts) continue;
      const xs = alone ? [x(segment.ms[0]) - 1, x(segment.ms[0]) + 1] : segment.ms.map(x);
      const low = alone ? [base[0], base[0]] : [...base];
      counts.forEach((n, k) => { base[k] += n; });
      const high = alone ? [base[0], base[0]] : base;
      const up = xs.map((px, k) => `${k ? "L" : "M"}${px.toFixed(1)} ${y(high[k]).toFixed(1)}`).join("");
      const down = xs.map((px, k) => `L${px.toFixed(1)} ${y(low[k]).toFixed(1)}`).reverse().join("");
      root.append(svg("path", { class: "area", d: up + down + "Z", fill: colours[i], "data-site": i, "data-last": counts.at(-1) },
        svg("title", {}, label(data.sites[i]))));
    }
  }

  function memory(root, segment, x, m, floor) {
    let run = [];
    const flush = () => {
      if (run.length) {
        const line = run.map(([px, py], k) => `${k ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("") + (run.length === 1 ? "h1.5" : "");
        root.append(svg("path", { class: "memory-area", d: `${line}L${run.at(-1)[0].toFixed(1)} ${floor}L${run[0][0].toFixed(1)} ${floor}Z` }));
        root.append(svg("path", { class: "memory", d: line }));
      }
      run = [];
    };
    segment.ms.forEach((ms, i) => { if (segment.rss_bytes[i] === null) flush(); else run.push([x(ms), m(segment.rss_bytes[i])]); });
    flush();
  }

  // What the Go runtime knew of itself: a panel for each unit, a line for each number.
  function runtime(root, panel, lives, x, top, height, left, right) {
    const valuesOf = (lines) => lives.flatMap(({ life }) => life.segments.flatMap((segment) =>
      segment.ms.flatMap((_, i) => lines.map(([, of]) => at_look(segment, of, i)).filter((v) => v !== null))));
    const isLimit = ([, of]) => of === "memory_limit_bytes";
    const used = valuesOf(panel.lines.filter((line) => !isLimit(line)));
    // A limit that is far away would leave nothing to see of the rest.
    const values = used.concat(valuesOf(panel.lines.filter(isLimit)).filter((limit) => limit < Math.max(0, ...used) * 4));
    const [most, ticks] = panel.bytes ? scaleBytes(Math.max(1 << 20, ...values)) : scaleSmall(Math.max(panel.least, ...values));
    const y = (n) => top + height - n / most * height;
    for (const tick of [ticks[0], ticks.at(-1)]) {
      root.append(svg("line", { class: "axis", x1: left, x2: right, y1: y(tick), y2: y(tick) }));
      root.append(svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, tick === 0 ? "0" : panel.tick(tick)));
    }
    root.append(svg("text", { class: "title", x: left, y: top - 9 }, panel.title));
    for (const { life } of lives) for (const segment of life.segments) panel.lines.forEach(([name, of], k) => {
      let run = [];
      const flush = () => {
        if (run.length) root.append(svg("path", { class: "vital vital-" + k, "data-of": of,
          d: run.map(([px, py], n) => `${n ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("") + (run.length === 1 ? "h1.5" : "") },
        svg("title", {}, name)));
        run = [];
      };
      segment.ms.forEach((ms, i) => {
        const value = at_look(segment, of, i);
        if (value === null || value > most) flush(); else run.push([x(ms), y(value)]);
      });
      flush();
    });
  }
  function timeStep(inner) {
    const s = 1000, min = 60 * s, h = 60 * min, d = 24 * h;
    return [s, 2 * s, 5 * s, 10 * s, 15 * s, 30 * s, min, 2 * min, 5 * min, 10 * min, 15 * min, 30 * min, h, 2 * h, 3 * h, 6 * h, 12 * h,
      d, 2 * d, 7 * d, 14 * d, 28 * d].find((step) => span / step <= inner / 92) || 28 * d;
  }
  function timeTicks(inner) {
    const step = timeStep(inner), ticks = [];
    for (let ms = Math.ceil(data.from_ms / step) * step; ms <= data.to_ms; ms += step) ticks.push(ms);
    return ticks;
  }
  function tickText(ms, inner) {
    const step = timeStep(inner);
    if (step >= DAY || (!oneDay && ms % DAY === 0)) return iso(ms).slice(5, 10);
    return iso(ms).slice(11, step < 60000 ? 19 : 16);
  }
};
