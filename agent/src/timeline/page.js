"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const page = document.getElementById("page");
  const SVG = "http" + "://www.w3.org/2000/svg";

  // Every text goes through here as a text: names come from the watched program.
  const put = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
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
  const span = data.to_ms - data.from_ms;
  const iso = (ms) => new Date(ms).toISOString();
  const oneDay = Math.floor(data.from_ms / DAY) === Math.floor(data.to_ms / DAY);
  const clock = (ms) => iso(ms).slice(11, span < 20 * 60000 ? 19 : 16);
  const time = (ms) => (oneDay ? "" : iso(ms).slice(0, 10) + " ") + clock(ms);
  const full = (ms) => iso(ms).slice(0, 19).replace("T", " ");
  const precise = (ms) => oneDay ? iso(ms).slice(11, 19) : full(ms);
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
  const isLeak = (verdict) => verdict === "likely" || verdict === "proven";
  const GAPS = { not_running: "parkwarden was not running", recording_stopped: "the recording could not be written",
    stalled: "no look", events_lost: "events lost", budget_reached: "probes removed to save cost" };

  // What the Go runtime knew of itself at a look, where that is recorded.
  const at_look = (segment, of, i) => { const line = segment.runtime && segment.runtime[of]; return line ? line[i] : null; };
  const milliseconds = (ms) => (ms < 10 ? ms.toFixed(2) : number(ms)) + NBSP + "ms";
  const percent = (share) => (100 * share).toFixed(1) + NBSP + "%";
  const tickBytes = (n) => bytes(n).replace(NBSP, "").replace("iB", "");
  const PANELS = [
    { title: "Go heap: live, goal (dashed), GOMEMLIMIT (dotted)", bytes: true, tick: tickBytes, lines: [["heap live", "heap_live_bytes", bytes],
      ["goal", "heap_goal_bytes", bytes], ["GOMEMLIMIT", "memory_limit_bytes", bytes]] },
    { title: "Collector: share of the CPU", least: 0.01, tick: percent, lines: [["GC", "gc_cpu_share", percent]] },
    { title: "Longest pause of a collection; goroutines' wait for a P (p99, dashed)", least: 0.1, tick: (ms) => ms + "ms",
      lines: [["longest pause", "longest_pause_ms", milliseconds], ["latency", "latency_p99_ms", milliseconds]] },
    { title: "Threads; runnable goroutines (dashed)", least: 1, tick: (n) => short(n), lines: [["threads", "threads", number],
      ["runnable", "runnable", number]] },
  ];

  // Colours: what leaks is warm, everything else calm.
  let warm = 0, calm = 0;
  const colours = data.sites.map((site) => site.leaking
    ? "var(--accent" + ["", "-2", "-3"][warm++ % 3] + ")" : "var(--calm-" + (calm++ % 6) + ")");
  // The leaking sites lie on top, the largest uppermost.
  const order = data.sites.map((_, i) => i).reverse();

  document.title = data.headline;
  header();
  charts();
  groups();
  events();
  page.append(el("footer", {},
    el("p", {}, "Times are UTC. Shaded times are gaps: nothing was recorded, and nothing is drawn in its place."),
    data.notes.map((note) => el("p", {}, note))));

  function header() {
    const culprit = data.culprit === null ? null : data.groups[data.culprit];
    const life = data.lives[culprit ? culprit.life : data.lives.length - 1];
    page.append(el("header", {},
      el("p", { class: "mark" }, el("b", {}, "parkwarden"), " leak timeline"),
      el("h1", {}, data.headline.replace(/(\d) (?=\d{3}\b)/g, "$1" + NBSP)),
      data.lives.slice(0, 4).map((l) => el("p", { class: "who" }, el("code", {}, l.exe), " pid" + NBSP + l.pid + ", " +
        [l.go_version, l.pod_name ? "pod " + (l.pod_namespace ? l.pod_namespace + "/" : "") + l.pod_name
          : l.pod_uid ? "pod " + l.pod_uid : null, l.container ? "container " + l.container.slice(0, 12) : null, l.unit,
          "on " + l.host].filter(Boolean).join(", "))),
      data.lives.length > 4 && el("p", { class: "who" }, "and " + number(data.lives.length - 4) + " more")));
    if (!life) return;
    const facts = [];
    if (culprit && culprit.onset) {
      const o = culprit.onset;
      facts.push(["Leaked", number(culprit.at_end - culprit.level), "of " + plural(culprit.at_end, "goroutine") + " waiting there", true]);
      facts.push([o.before_first_look ? "Leaking since before" : "Leaking since", time(o.before_first_look ? o.latest_ms : o.ms),
        o.before_first_look ? "the first look; its growth leads back to " + time(o.ms)
          : "between " + precise(o.earliest_ms) + " and " + precise(o.latest_ms)]);
      facts.push(["Growth", "+" + rate(culprit.growth_per_second), culprit.wait_reason]);
    } else {
      const last = life.segments.at(-1);
      facts.push(["Goroutines", number(last.live.at(-1)), "at the last look"]);
    }
    const rss = life.segments.flatMap((s) => s.rss_bytes).filter((v) => v !== null);
    if (rss.length) facts.push(["Memory at the end", bytes(rss.at(-1)),
      life.memory_limit_bytes ? "of a limit of " + bytes(life.memory_limit_bytes) : "resident"]);
    if (life.ended) facts.push(["Ended", time(life.ended.ms), life.ended.how, life.ended.kind === "oom_killed"]);
    page.append(el("dl", { class: "facts" }, facts.map(([name, value, more, hot]) =>
      el("div", {}, el("dt", {}, name), el("dd", { class: hot && "hot" }, value, el("small", {}, more))))));
  }

  function charts() {
    const lanes = [...new Set(data.lives.map((life) => life.lane))].sort((a, b) => a - b);
    for (const lane of lanes) {
      const lives = data.lives.map((life, index) => ({ life, index })).filter(({ life }) => life.lane === lane);
      const box = el("div", { class: "chart", tabindex: 0, role: "group",
        "aria-label": "Goroutines and memory over time. Arrow keys, Home and End move the cursor." });
      const readout = el("p", { class: "readout", "aria-live": "polite" });
      const shown = data.sites.map((site, i) => ({ site, i })).filter(({ i }) =>
        lives.some(({ life }) => life.segments.some((s) => s.sites.some((c) => c.of === i && c.counts.some((n) => n > 0)))));
      const legend = shown.slice(0, 7);
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
        root.append(svg("text", { x: left - 8, y: m(tick) + 4, "text-anchor": "end" }, tick === 0 ? "0" : bytes(tick).replace(NBSP, "").replace("iB", "")));
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

      // Flags: the incident's own in words, the others as lines that say what they are.
      const culprit = data.culprit === null ? null : data.groups[data.culprit];
      if (culprit && culprit.onset && lives.some(({ index }) => index === culprit.life)) {
        const o = culprit.onset;
        const a = Math.max(left, x(o.earliest_ms)), b = Math.max(x(o.latest_ms), a + 2);
        root.append(svg("rect", { class: "band", x: a, y: flags, width: b - a, height: high }));
        if (!o.before_first_look) flagged.push({ ms: o.ms, text: "onset " + clock(o.ms), hot: true });
      }
      const mine = data.marks.filter((mark) => lives.some(({ index }) => index === mark.life));
      for (const mark of mine.filter((mark) => mark.kind !== "verdict")) {
        const words = { start: "start", restart: "restart", exit: "exit", oom_kill: "OOM kill", clock: "clock set" }[mark.kind];
        flagged.push({ ms: mark.ms, text: words + " " + clock(mark.ms), hot: mark.kind === "oom_kill", title: mark.text });
      }
      for (const mark of mine.filter((mark) => mark.kind === "verdict")) {
        root.append(svg("line", { class: "rule", x1: x(mark.ms), x2: x(mark.ms), y1: bottom - 7, y2: bottom + 1 },
          svg("title", {}, full(mark.ms) + " " + mark.text)));
        root.append(svg("circle", { cx: x(mark.ms), cy: bottom + 5, r: 2.6, fill: "var(--accent)" }, svg("title", {}, full(mark.ms) + " " + mark.text)));
      }
      const rows = [-Infinity, -Infinity];
      for (const flag of flagged.sort((a, b) => a.ms - b.ms)) {
        const fx = x(flag.ms), size = flag.text.length * 6.3;
        const start = Math.max(left, Math.min(fx - size / 2, width - right - size));
        const row = rows.findIndex((end) => end + 8 <= start);
        if (!flag.bare) root.append(svg("line", { class: "rule" + (flag.hot ? " hot" : ""), x1: fx, x2: fx, y1: flags - (row === 1 ? 18 : 4), y2: bottom },
          svg("title", {}, full(flag.ms) + " " + (flag.title || flag.text))));
        if (!flag.bare) root.append(svg("line", { class: "rule" + (flag.hot ? " hot" : ""), x1: fx, x2: fx, y1: memoryTop, y2: memoryBottom }));
        if (row < 0) continue;
        rows[row] = start + size;
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
    new ResizeObserver(() => { if (box.clientWidth !== last) { last = box.clientWidth; render(); } }).observe(box);
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
  function scaleSmall(most) {
    const power = Math.pow(10, Math.floor(Math.log10(most)));
    const top = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= most);
    return [top, [0, top]];
  }

  function scale(most, wanted) {
    const raw = most / wanted, power = Math.pow(10, Math.floor(Math.log10(raw)));
    const step = Math.max(1, [1, 2, 2.5, 5, 10].map((f) => f * power).find((s) => s >= raw));
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

  function spark(group, index) {
    const width = 128, height = 30;
    const root = svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    const x = (ms) => (span > 0 ? (ms - data.from_ms) / span : 0) * width;
    const y = (n) => height - 2 - n / Math.max(1, group.peak) * (height - 4);
    const colour = isLeak(group.strongest) ? "var(--accent)" : "var(--calm-0)";
    for (const life of data.lives) for (const segment of life.segments) {
      const counts = (segment.groups.find((c) => c.of === index) || {}).counts || segment.ms.map(() => 0);
      const stride = Math.max(1, Math.floor(counts.length / 128));
      const kept = counts.map((n, i) => [segment.ms[i], n]).filter((_, i) => i % stride === 0 || i === counts.length - 1);
      const line = kept.map(([ms, n], i) => `${i ? "L" : "M"}${x(ms).toFixed(1)} ${y(n).toFixed(1)}`).join("");
      root.append(svg("path", { d: line + (kept.length === 1 ? "h1" : ""), fill: "none", stroke: colour, "stroke-width": 1.6, "vector-effect": "non-scaling-stroke" }));
    }
    return root;
  }

  function groups() {
    const body = el("tbody");
    const LIMIT = 12;
    const rows = data.groups.map((group, index) => row(group, index));
    const add = (from, to) => rows.slice(from, to).forEach((pair) => body.append(...pair));
    add(0, LIMIT);
    const section = el("section", { class: "groups" },
      el("div", { class: "head" }, el("h2", {}, "Groups of waiting goroutines"),
        el("p", {}, "same go statement, same stack, same reason; open one for its stack and evidence")),
      el("table", {},
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Created by"), el("th", { scope: "col" }, "Verdict"),
          el("th", { scope: "col" }, "Over time"), el("th", { scope: "col" }, "Onset"), el("th", { scope: "col", class: "n" }, "Growth"),
          el("th", { scope: "col", class: "n" }, "At the end"))),
        body));
    if (rows.length > LIMIT) {
      const more = el("button", { class: "more", type: "button", on: { click: () => { add(LIMIT, rows.length); more.remove(); } } },
        "Show " + (rows.length - LIMIT) + " more groups");
      section.append(more);
    }
    page.append(section);
  }

  function row(group, index) {
    const id = "group-" + index;
    const button = el("button", { type: "button", "aria-expanded": "false", "aria-controls": id }, label(group));
    const detail = el("tr", { class: "detail", id, hidden: "" });
    const head = el("tr", { class: "row" },
      el("td", { class: "name" }, button, el("div", { class: "sub" }, [place(group.created_by), group.wait_reason].filter(Boolean).join(", "))),
      el("td", { class: "verdict-cell" }, el("span", { class: "verdict " + (group.strongest || "none") }, group.strongest || "not parked long")),
      el("td", { class: "trend" }, spark(group, index)),
      el("td", { class: "nowrap", "data-label": group.onset && "since" }, group.onset ? (group.onset.before_first_look ? "before " + time(group.onset.latest_ms) : time(group.onset.ms)) : ""),
      el("td", { class: "n nowrap", "data-label": group.growth_per_second !== null && "growth" }, group.growth_per_second !== null ? "+" + rate(group.growth_per_second) : ""),
      el("td", { class: "n nowrap", "data-label": "at the end" }, number(group.at_end)));
    const toggle = () => {
      const open = button.getAttribute("aria-expanded") !== "true";
      button.setAttribute("aria-expanded", String(open));
      head.classList.toggle("open", open);
      if (open && !detail.firstChild) detail.append(details(group));
      detail.toggleAttribute("hidden", !open);
      if (open) detail.dispatchEvent(new Event("shown"));
    };
    // A click on the button reaches the row as well.
    head.addEventListener("click", toggle);
    return [head, detail];
  }

  function details(group) {
    const block = (title, ...content) => el("div", { class: "block" }, el("h3", {}, title), content);
    const facts = [];
    if (group.onset) {
      const o = group.onset;
      facts.push(o.before_first_look
        ? "It grew already at the first look, " + precise(o.latest_ms) + "; at the same rate it would have begun at " + precise(o.ms) + "."
        : "Onset " + precise(o.ms) + ", not before " + precise(o.earliest_ms) + " and not after " + precise(o.latest_ms) + " (" + duration(o.latest_ms - o.earliest_ms) + ").");
      facts.push("It grew by " + rate(group.growth_per_second) + " to at most " + number(group.peak) + "; " + number(group.parked_at_end) + " of " + number(group.at_end) + " were parked long at the end.");
    }
    const changes = group.verdicts.slice(-12).map((c) => el("li", {}, el("span", { class: "mono" }, precise(c.ms)), " ", c.verdict,
      c.evidence.length > 0 && el("div", { class: "sub", style: "padding-left:0" }, c.evidence.join(" "))));
    return el("td", { colspan: 6 }, el("div", { class: "cols" },
      el("div", {},
        (group.cause || group.remedy) && el("div", { class: "block" },
          group.cause && el("p", {}, group.cause), group.remedy && el("p", { class: "remedy" }, group.remedy)),
        facts.length > 0 && block("Growth", el("ul", {}, facts.map((f) => el("li", {}, f)))),
        group.evidence.length > 0 && block("Evidence", el("ul", {}, group.evidence.map((e) => el("li", {}, e)))),
        changes.length > 0 && block("Verdicts", el("ul", {}, changes))),
      el("div", {},
        block("Stack", group.stack.length ? el("ol", { class: "stack" }, group.stack.map((f) =>
          el("li", { class: /^(runtime|sync|internal)[./]/.test(f.function) && "plumbing" }, f.function + (f.inlined ? " (inlined)" : ""),
            el("small", {}, f.file + ":" + f.line)))) : el("p", {}, "It could not be read.")),
        block("Created by", el("ol", { class: "stack" }, el("li", {}, label(group),
          group.created_by && el("small", {}, group.created_by.file + ":" + group.created_by.line)),
          el("li", {}, "runs " + group.start_function))))),
      group.examples.length > 0 && el("div", { class: "block", style: "margin-top:18px" },
        el("h3", {}, "Some of its goroutines"), bars(group)));
  }

  function bars(group) {
    const shown = group.examples.slice(0, 20);
    const box = el("div", { class: "bars" });
    const width = Math.max(260, Math.min(1080, page.clientWidth - 100)), left = 78, height = 17;
    const begin = Math.min(...shown.map((g) => g.created_ms ?? g.parked_ms)), end = Math.max(begin + 1, ...shown.map((g) => g.seen_ms));
    const x = (ms) => left + 12 + (ms - begin) / (end - begin) * (width - left - 16);
    const root = svg("svg", { viewBox: `0 0 ${width} ${shown.length * height + 20}`, role: "img", "aria-label": "Goroutines from their creation to the last look that found them parked" });
    shown.forEach((g, i) => {
      const y = i * height;
      const what = `goroutine ${g.goid}: ` + (g.created_ms !== null ? `created ${full(g.created_ms)}, ` : "") +
        `parked ${g.exact ? "" : "at least "}since ${full(g.parked_ms)}, last seen ${full(g.seen_ms)}`;
      const bar = svg("g", {}, svg("title", {}, what), svg("text", { x: left - 8, y: y + 12, "text-anchor": "end" }, String(g.goid)));
      if (g.created_ms !== null && g.created_ms < g.parked_ms)
        bar.append(svg("rect", { class: "before", x: x(g.created_ms), y: y + 4, width: Math.max(1, x(g.parked_ms) - x(g.created_ms)), height: 9, rx: 2 }));
      bar.append(svg("rect", { class: "parked", x: x(g.parked_ms), y: y + 4, width: Math.max(2, x(g.seen_ms) - x(g.parked_ms)), height: 9, rx: 2 }));
      if (!g.exact) bar.append(svg("line", { class: "since", x1: x(g.parked_ms) - 9, x2: x(g.parked_ms), y1: y + 8.5, y2: y + 8.5 }));
      root.append(bar);
    });
    for (const [ms, anchor] of [[begin, "start"], [end, "end"]])
      root.append(svg("text", { x: x(ms), y: shown.length * height + 15, "text-anchor": anchor }, precise(ms)));
    box.append(root);
    if (group.examples.some((g) => !g.exact)) box.append(el("p", {}, "A dotted beginning: it was parked before it was first seen."));
    return box;
  }

  function events() {
    const all = data.marks.map((m) => ({ ms: m.ms, text: m.text, hot: m.kind === "oom_kill" }))
      .concat(data.gaps.map((g) => ({ ms: g.from_ms, text: (g.blind ? "Not recorded" : "Less seen") + " until " + time(g.to_ms) + " (" + duration(g.to_ms - g.from_ms) + "): " + GAPS[g.cause] })));
    const culprit = data.culprit === null ? null : data.groups[data.culprit];
    if (culprit && culprit.onset) all.push({ ms: culprit.onset.ms, text: "Onset of " + label(culprit) + ", computed from its growth", hot: true });
    for (const life of data.lives) if (life.ended) all.push({ ms: life.ended.ms, text: "How that is known: " + life.ended.evidence, after: true });
    all.sort((a, b) => a.ms - b.ms || (a.after ? 1 : 0) - (b.after ? 1 : 0));
    if (!all.length) return;
    const LIMIT = 30;
    const item = (e) => el("li", {}, el("time", { datetime: iso(e.ms) }, full(e.ms)), el("span", { class: e.hot && "hot" }, e.text));
    const list = el("ol", { class: "events" }, all.slice(0, LIMIT).map(item));
    const section = el("section", {}, el("div", { class: "head" }, el("h2", {}, "What happened")), list);
    if (all.length > LIMIT) {
      const more = el("button", { class: "more", type: "button", on: { click: () => { list.append(...all.slice(LIMIT).map(item)); more.remove(); } } },
        "Show " + (all.length - LIMIT) + " more");
      section.append(more);
    }
    page.append(section);
  }
})();
