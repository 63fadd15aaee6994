"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const page = document.getElementById("page");
  const { charts, happened, time, precise, span } = timelineOf(data, page);

  document.title = data.headline;
  header();
  incidents();
  charts();
  groups();
  page.append(happened() || "");
  page.append(el("footer", {},
    el("p", {}, "Times are UTC. Grey times are gaps: nothing was recorded, and nothing is drawn in its place. The coloured band is when the leak can have begun."),
    data.notes.map((note) => el("p", {}, note))));

  function header() {
    const culprit = data.culprit === null ? null : data.groups[data.culprit];
    const life = data.lives[culprit ? culprit.life : data.lives.length - 1];
    page.append(el("header", {},
      el("p", { class: "mark" }, el("b", {}, "parkwarden"), " leak timeline"),
      el("h1", {}, data.headline.replace(/(\d) (?=\d{3}\b)/g, "$1" + NBSP)),
      [...data.lives].sort((a, b) => leaks(b) - leaks(a)).slice(0, 4).map((l) => el("p", { class: "who" }, el("code", {}, l.exe), " pid" + NBSP + l.pid + ", " +
        [l.go_version, l.pod_name ? "pod " + (l.pod_namespace ? l.pod_namespace + "/" : "") + l.pod_name
          : l.pod_uid ? "pod " + l.pod_uid : null, l.container ? "container " + l.container.slice(0, 12) : null, l.unit,
          "on " + l.host].filter(Boolean).join(", "))),
      data.lives.length > 4 && el("p", { class: "who" }, "and " + number(data.lives.length - 4) + " more")));
    if (!life) return;
    const facts = [];
    if (culprit) {
      const o = culprit.onset, told = culprit.lives.find((of) => of.life === culprit.life);
      facts.push(["Leaked", number(culprit.parked_at_end), "of " + plural(culprit.at_end, "goroutine") + " waiting there"
        + (culprit.level ? "; " + number(culprit.level) + " waited before" : ""), true]);
      if (life.leaked > culprit.parked_at_end) facts.push(["All that leak", number(life.leaked), "in all groups, likely or proven"]);
      if (o) facts.push([o.before_first_look ? "Leaking since before" : "Leaking since", time(o.before_first_look ? o.latest_ms : o.ms),
        o.before_first_look ? "the first look; its growth leads back to " + time(o.ms)
          : "between " + precise(o.earliest_ms) + " and " + precise(o.latest_ms)]);
      else if (told && told.told_ms) facts.push(["Leaking since before", time(told.told_ms), "when it was told first"]);
      if (culprit.growth_per_second) facts.push(["Growth", "+" + rate(culprit.growth_per_second), culprit.wait_reason]);
    } else {
      const last = life.segments.at(-1);
      facts.push(["Goroutines", number(last.live.at(-1)), "at the last look"]);
      if (life.stuck) facts.push(["Stuck", number(life.stuck), "at the last look", true]);
    }
    const rss = life.segments.flatMap((s) => s.rss_bytes).filter((v) => v !== null);
    if (rss.length) facts.push(["Memory at the end", bytes(rss.at(-1)),
      life.memory_limit_bytes ? "of a limit of " + bytes(life.memory_limit_bytes) : "resident"]);
    if (life.ended) facts.push(["Ended", time(life.ended.ms), life.ended.how, life.ended.kind === "oom_killed"]);
    page.append(el("dl", { class: "facts" }, facts.map(([name, value, more, hot]) =>
      el("div", {}, el("dt", {}, name), el("dd", { class: hot && "hot" }, value, el("small", {}, more))))));
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

  function incidents() {
    if (!(data.incidents || []).length) return;
    const LIMIT = 5;
    const line = (group) => el("li", {}, plural(group.peak, "goroutine") + ", " + group.wait_reason + (group.blocked_at ? " at " + group.blocked_at.function : ""),
      group.blocked_at && el("small", {}, place(group.blocked_at)), el("small", {}, "created by " + label(group)));
    const roots = (incident) => incident.roots.length > 0 && el("p", {}, (incident.cycle ? "In a circle: goroutines " : "The others waited for goroutine" + (incident.roots.length === 1 ? " " : "s ")) + incident.roots.join(", ") + ".");
    const item = (incident) => el("li", {}, el("time", { datetime: iso(incident.from_ms) }, time(incident.from_ms) + " to " + (incident.ended_ms === null ? "the end" : time(incident.ended_ms))),
      el("div", {}, el("p", { class: "hot" }, incident.headline), roots(incident),
        el("ol", { class: "stack" }, incident.groups.map((index) => line(data.groups[index])))));
    const more = data.incidents.length - LIMIT;
    page.append(el("section", {}, el("div", { class: "head" }, el("h2", {}, "Who waited for whom"),
      el("p", {}, "those that the others waited for first" + (more > 0 ? "; " + more + " more incidents are below, under what happened" : ""))),
      el("ol", { class: "events" }, data.incidents.slice(0, LIMIT).map(item))));
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

  // What tells it from others of the same go statement.
  function where(group) {
    const kin = data.groups.filter((other) => other.site === group.site && label(other) === label(group));
    return kin.length > 1 && group.blocked_at ? "at " + group.blocked_at.function + " " + place(group.blocked_at) : "";
  }

  function row(group, index) {
    const id = "group-" + index;
    const button = el("button", { type: "button", "aria-expanded": "false", "aria-controls": id }, label(group));
    const detail = el("tr", { class: "detail", id, hidden: "" });
    const head = el("tr", { class: "row" },
      el("td", { class: "name" }, button, el("div", { class: "sub" }, [place(group.created_by), group.wait_reason, where(group)].filter(Boolean).join(", "))),
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
})();
