"use strict";
(() => {
  const page = document.getElementById("page");
  const PROCESSES = "/api/v1/processes";
  // In memory alone: it goes with the page.
  let token = null;
  // Points of a line that are kept of each process, and looks that are kept of the one that is shown.
  const POINTS = 240;
  const POLL_EVERY = 5000;

  // What is known: of each process its entry and how many goroutines it had at the looks since the page was opened.
  const known = new Map();
  let agent = null, ready = false, state = ["late", "asking"], view = null;

  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const tell = (className, ...children) => el("p", { class: className }, ...children);
  const button = (text, act) => el("button", { class: "act", type: "button", on: { click: act } }, text);

  // Asking. An answer that is none becomes an Error with the agent's sentence.
  class Refused extends Error { constructor(status, message) { super(message); this.status = status; } }
  async function ask(path, more) {
    const answer = await fetch(path, { ...more, cache: "no-store", headers: token === null ? {} : { Authorization: "Bearer " + token } });
    if (answer.ok) return answer;
    const text = await answer.text();
    let said = text;
    try { said = JSON.parse(text).error || text; } catch { /* It is a sentence as it is. */ }
    throw new Refused(answer.status, said);
  }
  const json = async (path) => (await ask(path)).json();

  // Following the agent: by its stream of events, and where that fails by asking again and again.
  let following = 0;
  async function follow() {
    const mine = ++following;
    while (mine === following) {
      try {
        await stream(mine);
      } catch (error) {
        if (mine !== following) return;
        if (error.status === 401) return signIn(token === null ? "" : "The agent does not take this token.");
        if (error.status === 403) return show(refusal(error.message));
        try {
          const all = await json(PROCESSES);
          if (mine !== following) return;
          take({ ...all, all: true });
          say("late", "asking every " + POLL_EVERY / 1000 + " s: the stream fails");
        } catch (failed) {
          if (failed.status === 401) continue;
          say("gone", failed.status ? failed.message : "the agent does not answer");
        }
        await wait(POLL_EVERY);
      }
    }
  }
  async function stream(mine) {
    const end = new AbortController();
    const answer = await ask("/api/v1/events", { signal: end.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (mine !== following) return end.abort();
      if (done) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = /^data: (.*)$/m.exec(event);
        if (data) take({ ...JSON.parse(data[1]), all: /^event: all$/m.test(event) });
      }
      say("", "live");
    }
  }
  function take(news) {
    agent = news.agent;
    ready = news.ready;
    const listed = new Set(news.processes.map((p) => p.pid));
    if (news.all) for (const pid of known.keys()) if (!listed.has(pid)) known.delete(pid);
    for (const pid of news.gone || []) known.delete(pid);
    for (const entry of news.processes) {
      let process = known.get(entry.pid);
      if (!process || process.entry.start_ticks !== entry.start_ticks) known.set(entry.pid, process = { points: [] });
      process.entry = entry;
      const last = process.points.at(-1);
      if (entry.numbers && entry.looked_ms && (!last || last[0] < entry.looked_ms)) {
        process.points.push([entry.looked_ms, entry.numbers.goroutines]);
        if (process.points.length > POINTS) process.points.shift();
      }
    }
    if (!view) open();
    else view.changed();
  }
  function say(kind, text) {
    state = [kind, text];
    const shown = document.querySelector(".state");
    if (!shown) return;
    shown.className = "state " + kind;
    if (shown.textContent !== text) shown.textContent = text;
  }

  // Where the reader is.
  const nameOf = (entry) => entry.exe.replace(/ \(deleted\)$/, "").split("/").at(-1) || entry.exe;
  const podOf = (entry) => [entry.namespace, entry.pod].filter(Boolean).join("/") || entry.unit || "";
  function go(path) {
    history.pushState(null, "", path);
    open();
    window.scrollTo(0, 0);
  }
  const link = (path, ...children) => el("a", { href: path, on: { click: (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    event.stopPropagation();
    go(path);
  } } }, ...children);
  window.addEventListener("popstate", () => { if (view) open(); });
  function open() {
    const pid = /^\/processes\/(\d+)$/.exec(location.pathname);
    page.className = pid ? "" : "wide";
    view = pid ? processView(Number(pid[1])) : location.pathname === "/health" ? healthView() : listView();
    show(view.root);
    view.changed();
  }
  function show(...content) {
    page.replaceChildren(top(), ...content);
  }
  function top() {
    const here = (path) => location.pathname === path ? "page" : false;
    const nav = [["/", "Processes"], ["/health", "The agent"]].map(([path, text]) => {
      const to = link(path, text);
      if (here(path)) to.setAttribute("aria-current", "page");
      return to;
    });
    return el("header", { class: "top" }, tell("mark", el("b", {}, "parkwarden")), el("nav", {}, nav),
      el("span", { class: "state " + state[0], role: "status" }, state[1]));
  }

  // Without a token there are no data, and without data nothing but this.
  function signIn(wrong) {
    view = null;
    known.clear();
    const field = el("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false", required: "" });
    const form = el("form", { on: { submit: (event) => {
      event.preventDefault();
      const given = field.value.trim();
      if (/[^\x21-\x7e]/.test(given)) return signIn("A token has letters, digits and signs of ASCII alone.");
      token = given;
      follow();
    } } }, field, el("button", { class: "act", type: "submit" }, "Sign in"));
    page.className = "";
    page.replaceChildren(el("section", { class: "sign-in" }, el("h2", {}, "This agent wants its token"),
      el("p", {}, "It is in the file that http.token_file names. It stays in this page's memory until the page is closed."),
      el("label", { for: "token" }, "Token"), form, el("p", { class: "wrong", role: "alert" }, wrong)));
    document.title = "parkwarden: sign in";
    field.focus();
  }
  const refusal = (message) => el("section", {}, el("div", { class: "head" }, el("h2", {}, "Nothing is shown here")), tell("empty", message));

  // The table of processes.
  const RANK = { idle: 1, stuck: 2, likely: 3, proven: 4 };
  const of = (entry, name) => entry.numbers ? entry.numbers[name] : null;
  const signed = (perSecond) => perSecond > 0 ? "+" + rate(perSecond) : "0";
  const cost = (percentOfCore) => percentOfCore > 0 && percentOfCore < 0.01 ? "<0.01" + NBSP + "%" : percentOfCore.toFixed(2) + NBSP + "%";
  // Title, value to sort by, and how it is said; what is zero is quiet.
  const COLUMNS = [
    ["Process", (e) => nameOf(e).toLowerCase()],
    ["Verdict", (e) => RANK[e.verdict] || 0],
    ["PID", (e) => e.pid, String],
    ["Goroutines", (e) => of(e, "goroutines"), number],
    ["Over time", null],
    ["Stuck", (e) => of(e, "stuck"), number, true],
    ["Leaked", (e) => of(e, "leaked"), number, true],
    ["Growth", (e) => e.growth_per_second, signed],
    ["Held", (e) => of(e, "held"), bytes],
    ["Heap", (e) => of(e, "heap"), bytes],
    ["GC", (e) => e.gc_cpu_share, percent],
    ["Runnable", (e) => of(e, "runnable"), number],
    ["Cost", (e) => of(e, "cost"), cost],
    ["Mode", (e) => e.mode || ""],
    ["Pod or unit", podOf],
  ];
  const order = { by: "Verdict", down: true };
  let wanted = "";
  // Of a column that sorts: what assistive techniques are told, and what choosing it does. Names go up at first, numbers down.
  const NAMES = ["Process", "Pod or unit", "Created by"];
  const sorting = (title, order) => order.by === title && (order.down ? "descending" : "ascending");
  function sort(order, title, down) {
    order.down = down !== undefined ? down : order.by === title ? !order.down : !NAMES.includes(title);
    order.by = title;
  }
  const kind = (title) => "c-" + title.toLowerCase().replaceAll(" ", "-");
  const compare = (a, b) => a === b ? 0 : a === null || a === undefined ? -1 : b === null || b === undefined ? 1 : a < b ? -1 : 1;
  function sorted() {
    const value = COLUMNS.find(([title]) => title === order.by)[1];
    const trouble = (e) => (of(e, "leaked") || 0) + (of(e, "stuck") || 0);
    const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (e) => [e.exe, e.pid, e.command, e.user, podOf(e), e.container, e.state, e.verdict, e.mode, e.go_version].join(" ").toLowerCase();
    return [...known.values()].filter(({ entry }) => { const all = text(entry); return words.every((word) => all.includes(word)); })
      .sort(({ entry: a }, { entry: b }) => (order.down ? -1 : 1) * compare(value(a), value(b))
        || trouble(b) - trouble(a) || compare(of(b, "goroutines"), of(a, "goroutines")) || a.pid - b.pid);
  }

  function listView() {
    const rows = new Map();
    const body = el("tbody");
    const count = el("p", { role: "status" });
    const heads = COLUMNS.map(([title, value, says]) => el("th", { scope: "col", class: kind(title) + (says ? " n" : "") },
      value ? el("button", { type: "button", on: { click: () => sortBy(title) } }, title) : title));
    const choose = el("select", { class: "order", "aria-label": "Sort by", on: { change: () => sortBy(choose.value, true) } },
      COLUMNS.filter(([, value]) => value).map(([title]) => el("option", { value: title }, "by " + title.toLowerCase())));
    const field = el("input", { type: "search", placeholder: "Filter: name, pid, pod, verdict, state", "aria-label": "Filter processes",
      on: { input: () => { wanted = field.value; changed(); } } });
    field.value = wanted;
    const none = el("p", { class: "empty", hidden: "" });
    function sortBy(title, down) {
      sort(order, title, down);
      changed();
    }
    function changed() {
      const list = sorted();
      const shown = new Set(list.map(({ entry }) => entry.pid));
      for (const [pid, row] of rows) if (!shown.has(pid)) { row.remove(); rows.delete(pid); }
      list.forEach((process, index) => {
        let row = rows.get(process.entry.pid);
        if (!row) rows.set(process.entry.pid, row = el("tr", { class: "row", "data-pid": process.entry.pid, on: { click: (event) => {
          if (!event.target.closest("a")) go("/processes/" + process.entry.pid);
        } } }));
        fill(row, process);
        if (body.children[index] !== row) body.insertBefore(row, body.children[index] || null);
      });
      heads.forEach((head, i) => {
        head.removeAttribute("aria-sort");
        put(head, { "aria-sort": sorting(COLUMNS[i][0], order) });
      });
      choose.value = order.by;
      const said = plural(list.length, "Go process").replace(/processs$/, "processes") + (list.length < known.size ? " of " + number(known.size) : "");
      if (count.textContent !== said) count.textContent = said;
      none.hidden = list.length > 0;
      none.textContent = known.size ? "No process has all of these words." : ready ? "No Go process runs on this node, or none may be looked at."
        : "The first search for processes is not done yet.";
      document.title = "parkwarden: " + said;
    }
    const root = el("section", {}, el("div", { class: "tools" }, field, choose, count), el("div", { class: "processes" },
      el("table", {}, el("thead", {}, el("tr", {}, heads)), body), none));
    return { root, changed };
  }

  // A row is written again only where something else is to be said: a link that has the focus keeps it.
  function fill(row, process) {
    const entry = process.entry, said = JSON.stringify([entry, process.points.length]);
    if (row.said === said) return;
    row.said = said;
    const focused = row.contains(document.activeElement);
    row.replaceChildren(...COLUMNS.map(([title, value, says, alarming]) => {
      if (title === "Process") return el("td", { class: "name" }, link("/processes/" + entry.pid, nameOf(entry)),
        el("div", { class: "sub", title: entry.command }, entry.exe));
      if (title === "Verdict") return verdictCell(entry);
      if (title === "Over time") return el("td", { class: "trend" }, line(process.points, entry.verdict));
      const known = value(entry), void_ = known === null || known === undefined;
      if (!says) return el("td", { class: kind(title), "data-label": known && title.toLowerCase(), title: known }, known);
      const name = kind(title) + " " + (alarming && known > 0 ? "n hot" : !known ? "n quiet" : "n");
      return el("td", { class: name + (void_ ? " void" : ""), "data-label": title.toLowerCase() }, void_ ? "" : says(known));
    }));
    if (focused) row.querySelector("a").focus();
  }
  function verdictCell(entry) {
    if (entry.state === "watched") return el("td", { class: "verdict-cell" }, el("span", { class: "verdict " + (entry.verdict || "none") }, entry.verdict || "nothing parked"));
    return el("td", { class: "verdict-cell why" }, el("span", { class: "verdict none" }, { unselected: "not watched", refused: "cannot be watched" }[entry.state] || entry.state),
      entry.reason && el("div", { class: "sub", title: entry.message }, entry.reason.replaceAll("_", " ")));
  }
  function line(points, verdict) {
    const width = 96, height = 22;
    const root = svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    if (points.length < 2) return root;
    const [first, last] = [points[0][0], points.at(-1)[0]], most = Math.max(1, ...points.map(([, n]) => n));
    const path = points.map(([ms, n], i) => `${i ? "L" : "M"}${((ms - first) / (last - first) * width).toFixed(1)} ${(height - 2 - n / most * (height - 4)).toFixed(1)}`);
    root.append(svg("path", { d: path.join(""), fill: "none", stroke: isLeak(verdict) || verdict === "stuck" ? "var(--accent)" : "var(--calm-0)",
      "stroke-width": 1.6, "vector-effect": "non-scaling-stroke" }));
    return root;
  }

  // One process.
  function processView(pid) {
    const parts = Object.fromEntries(["who", "facts", "incidents", "graph", "groups", "chart", "happened", "runtime", "watch"].map((name) => [name, el("div")]));
    const root = el("div", {}, parts.who, parts.facts, parts.incidents, parts.graph, parts.groups, parts.chart, parts.happened, parts.runtime, parts.watch);
    const seen = [], opened = new Set(), order = { by: "Verdict", down: true };
    let past = null, looked = null, asked = false, again = false, gone = false, stretch = "1h", drawn = false, most = 12;
    const here = () => view && view.root === root;

    function changed() {
      const process = known.get(pid);
      if (!process) {
        if (!gone) parts.who.replaceChildren(el("h1", {}, "pid " + pid + (looked ? " is gone" : " is no Go process of this node")),
          tell("who", looked ? "What follows is what was seen of it last." : "It may have ended: ", !looked && link("/", "all processes")));
        gone = true;
        return;
      }
      gone = false;
      const entry = process.entry;
      who(entry);
      if (entry.state !== "watched") {
        parts.facts.replaceChildren(el("section", {}, el("div", { class: "head" }, el("h2", {}, "It is not watched")),
          tell("empty", entry.message || "It has just begun, and is being attached to.")));
      } else if (entry.looked_ms !== looked) {
        looked = entry.looked_ms;
        load(entry);
      }
    }
    function who(entry) {
      document.title = nameOf(entry) + " " + pid + ": " + (entry.verdict || entry.state);
      const text = JSON.stringify([entry.exe, entry.command, podOf(entry), entry.go_version, agent.records]);
      if (parts.who.said === text && parts.who.firstChild) return;
      parts.who.said = text;
      const at = PROCESSES + "/" + pid, kinds = ["goroutine", "heap", "allocs", "block", "mutex", "threadcreate"];
      parts.who.replaceChildren(el("header", {}, el("h1", {}, nameOf(entry)),
        tell("who", el("code", {}, entry.command || entry.exe), " pid" + NBSP + pid + ", " + [entry.go_version, podOf(entry), entry.container && "container " + entry.container,
          entry.user && "user " + entry.user].filter(Boolean).join(", "))),
      el("ul", { class: "links" }, kinds.map((kind) => el("li", {}, file(kind, "/debug/pprof/" + kind + "?pid=" + pid, kind + "-" + pid + ".pb.gz"))),
        el("li", {}, file("stacks", "/debug/pprof/goroutine?debug=2&pid=" + pid, "stacks-" + pid + ".txt")),
        el("li", {}, file("JSON", at, "report-" + pid + ".json")),
        agent.records && el("li", {}, file("timeline", at + "/timeline?format=html", "timeline-" + pid + ".html"))));
    }
    async function load(entry) {
      if (asked) { again = true; return; }
      asked = true;
      try {
        const report = await json(PROCESSES + "/" + pid);
        if (!here()) return;
        seen.push(sample(entry, report));
        if (seen.length > POINTS) seen.shift();
        facts(entry, report);
        incidents(report);
        groups(report);
        runtime(report);
        watched(report);
        await chart();
      } catch (error) {
        if (here() && error.status !== 404) say("late", error.message);
      } finally {
        asked = false;
        if (again && here()) { again = false; changed(); }
      }
    }
    function facts(entry, report) {
      const n = entry.numbers, list = [["Goroutines", number(n.goroutines), n.runnable === null ? "" : number(n.runnable) + " runnable"]];
      list.push(["Leaked", number(n.leaked), n.stuck ? number(n.stuck) + " more are stuck" : "likely or proven", n.leaked > 0]);
      list.push(["Growth", signed(entry.growth_per_second), "of what leaks or is stuck", entry.growth_per_second > 0 && n.leaked > 0]);
      list.push(["Held", bytes(n.held), "stacks, and heap where a proof counted it"]);
      const rss = report.runtime && report.runtime.process && report.runtime.process.rss_bytes;
      if (rss) list.push(["Memory", bytes(rss), n.heap === null ? "resident" : "resident; heap " + bytes(n.heap)]);
      parts.facts.replaceChildren(el("dl", { class: "facts" }, list.map(([name, value, more, hot]) =>
        el("div", {}, el("dt", {}, name), el("dd", { class: hot && "hot" }, value, el("small", {}, more))))));
    }
    function incidents(report) {
      if (!report.incidents.length) {
        parts.incidents.replaceChildren();
        parts.graph.replaceChildren();
        drawn = false;
        return;
      }
      parts.incidents.replaceChildren(el("section", { class: "incidents" }, el("div", { class: "head" }, el("h2", {}, "Incidents"),
        el("p", {}, "goroutines that wait for one another")), report.incidents.map((incident) => el("div", { class: "incident" },
        tell("sentence", incident.headline), tell("sub", plural(incident.goroutines, "goroutine") + (incident.times > 1 ? ", " + number(incident.times) + " times the same" : "")
          + (incident.cycle ? ", in a circle" : "") + (incident.roots.length ? "; they wait for " + incident.roots.slice(0, 8).join(", ") : ""))))));
      if (!drawn) { drawn = true; graph(); }
    }
    // A look of its own, so only when there is something to see, and when it is asked for.
    async function graph() {
      const head = el("div", { class: "head" }, el("h2", {}, "Who waits for whom"));
      const section = el("section", { class: "waits" }, head, tell("empty", "Looking twice, a second apart."));
      parts.graph.replaceChildren(section);
      try {
        const why = await json(PROCESSES + "/" + pid + "/why");
        if (!here()) return;
        head.append(tell("", "as of " + full(Date.now()) + " UTC, standing for " + duration(why.stood_seconds * 1000)), button("Look again", graph));
        section.replaceChildren(head);
        why.incidents.slice(0, 5).forEach((incident) => {
          const box = el("div", { class: "graph" }, el("p", {}, incident.headline));
          section.append(box);
          waits(box, incident);
        });
        if (!why.incidents.length) section.append(tell("empty", "At this look nobody waited for another."));
      } catch (error) {
        section.replaceChildren(head, tell("empty", error.message));
        head.append(button("Look again", graph));
      }
    }
    function groups(report) {
      const value = GROUP_COLUMNS.find(([title]) => title === order.by)[1];
      const list = [...report.groups].sort((a, b) => (order.down ? -1 : 1) * compare(value(a), value(b))
        || (RANK[b.verdict] || 0) - (RANK[a.verdict] || 0) || b.count - a.count);
      const focused = document.activeElement && document.activeElement.dataset.focus;
      const heads = GROUP_COLUMNS.map(([title, , isNumber]) => el("th", { scope: "col", class: isNumber && "n", "aria-sort": sorting(title, order) },
        el("button", { type: "button", "data-focus": "sort " + title, on: { click: () => { sort(order, title); groups(report); } } }, title)));
      const rows = list.slice(0, most).flatMap((group) => groupRows(group, opened));
      parts.groups.replaceChildren(el("section", { class: "groups" }, el("div", { class: "head" }, el("h2", {}, "Groups of waiting goroutines"),
        el("p", {}, "same go statement, same stack, same reason; open one for its stack and evidence")),
      rows.length ? el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows))
        : tell("empty", "No goroutine has been parked longer than the threshold."),
      list.length > most && el("button", { class: "more", type: "button", on: { click: () => { most = 1000; groups(report); } } },
        "Show " + plural(list.length - most, "more group"))));
      if (focused) for (const one of parts.groups.querySelectorAll("button")) if (one.dataset.focus === focused) one.focus();
    }
    function runtime(report) {
      const health = report.runtime;
      if (!health) return parts.runtime.replaceChildren();
      parts.runtime.replaceChildren(el("section", {}, el("div", { class: "head" }, el("h2", {}, "Its Go runtime")), el("div", { class: "body" },
        health.unknown && el("p", {}, "Its numbers are not known: " + health.unknown),
        health.signs.length ? el("ul", {}, health.signs.map((sign) => el("li", {}, sign.says))) : !health.unknown && el("p", {}, "Nothing about it is unusual."))));
    }
    function watched(report) {
      const o = report.observed, lost = Object.entries(o.lost).filter(([, n]) => n > 0);
      const lines = [
        "Mode " + o.mode + " (asked for: " + o.modes.choice + "), for " + duration(o.seconds * 1000) + "; parked long is longer than " + duration(o.threshold_seconds * 1000) + ".",
        "Cost to it: " + cost(o.cost.percent_of_core) + " of a core, " + cost(o.cost.percent_of_target) + " of its own CPU time; the budget is " + o.cost.budget + ".",
        lost.length ? "Lost: " + lost.map(([cause, n]) => number(n) + " " + cause.replaceAll("_", " ")).join(", ") + "." : "Nothing was lost.",
        o.modes.no_probes && "There are no probes: " + o.modes.no_probes,
        ...o.modes.refused.map((one) => "Mode " + one.mode + " is not allowed here: " + one.reason),
        ...o.modes.history.slice(-6).map((move) => "After " + duration(move.seconds * 1000) + " to mode " + move.mode + ": " + move.reason),
        o.proofs && "Proofs: " + number(o.proofs.taken) + " taken, " + number(o.proofs.refused) + " given up" + (o.proofs.refusal ? " (" + o.proofs.refusal + ")" : "")
          + "; longest pause " + milliseconds(o.proofs.longest_pause_seconds * 1000) + ".",
      ].filter(Boolean);
      parts.watch.replaceChildren(el("section", {}, el("div", { class: "head" }, el("h2", {}, "How it is watched")), el("div", { class: "body" }, el("ul", {}, lines.map((text) => el("li", {}, text))))));
    }
    // What is recorded if anything is, else what the agent has of the last hour and what this page has seen.
    async function chart() {
      let data = null;
      if (agent.records) try {
        data = await json(PROCESSES + "/" + pid + "/timeline" + (stretch ? "?since=" + stretch : ""));
      } catch (error) { if (error.status === 401) throw error; }
      if (!here()) return;
      const recorded = data !== null;
      if (!recorded) {
        if (!past) past = (await json(PROCESSES + "/" + pid + "/history")).points.filter((point) => point.ms < seen[0].ms);
        if (!here()) return;
        data = timelineSeen(past, seen);
      }
      if (!data.lives.length) return;
      const choose = el("select", { "aria-label": "How far back", on: { change: () => { stretch = choose.value; chart(); } } },
        [["15m", "15 minutes"], ["1h", "1 hour"], ["6h", "6 hours"], ["24h", "1 day"], ["", "all that is recorded"]].map(([value, text]) => el("option", { value }, text)));
      choose.value = stretch;
      const hadFocus = parts.chart.contains(document.activeElement) ? document.activeElement.className : null;
      parts.chart.replaceChildren();
      const { charts, happened } = timelineOf(data, parts.chart);
      charts();
      const told = happened(), says = told ? told.textContent : "";
      // What the reader has opened stays open until there is more.
      if (parts.happened.said !== says) parts.happened.replaceChildren(told || "");
      parts.happened.said = says;
      const head = parts.chart.querySelector(".head");
      if (head) head.append(recorded ? choose : el("p", {}, "the last hour at most, since this page was opened by go statement; with --record the agent remembers more"));
      if (hadFocus === "chart") parts.chart.querySelector(".chart").focus();
    }
    return { root, changed };
  }

  // A file of the agent, which a plain link could not fetch where there is a token.
  function file(text, path, name) {
    return el("a", { href: path, on: { click: async (event) => {
      if (token === null) return;
      event.preventDefault();
      try {
        const url = URL.createObjectURL(await (await ask(path)).blob());
        el("a", { href: url, download: name }).click();
        setTimeout(() => URL.revokeObjectURL(url), 60000);
      } catch (error) { say("late", error.message); }
    } } }, text);
  }

  const heldBy = (group) => group.stack_bytes + (group.heap_bytes || 0);
  // Title, value to sort by, and whether it is a number.
  const GROUP_COLUMNS = [
    ["Created by", (group) => label(group).toLowerCase()],
    ["Verdict", (group) => RANK[group.verdict] || 0],
    ["Count", (group) => group.count, true],
    ["Growth", (group) => group.growth_per_second, true],
    ["Parked", (group) => group.parked_seconds.max, true],
    ["Held", heldBy, true],
  ];
  function groupRows(group, opened) {
    const key = [label(group), place(group.created_by), group.wait_reason, ...group.stack.map((f) => f.function + f.line)].join("|");
    const at = group.in_program || group.blocked_at;
    const toggle = () => {
      const open = opener.getAttribute("aria-expanded") !== "true";
      opened[open ? "add" : "delete"](key);
      set(open);
    };
    const set = (open) => {
      opener.setAttribute("aria-expanded", String(open));
      head.classList.toggle("open", open);
      if (open && !detail.firstChild) detail.append(groupDetail(group));
      detail.toggleAttribute("hidden", !open);
    };
    const opener = el("button", { type: "button", "aria-expanded": "false", "data-focus": key }, label(group));
    const detail = el("tr", { class: "detail", hidden: "" });
    const head = el("tr", { class: "row", on: { click: toggle } },
      el("td", { class: "name" }, opener, el("div", { class: "sub" }, [place(group.created_by), group.wait_reason, at && "at " + at.function + " " + place(at)].filter(Boolean).join(", "))),
      el("td", { class: "verdict-cell" }, el("span", { class: "verdict " + group.verdict }, group.verdict)),
      el("td", { class: "n nowrap", "data-label": "count" }, number(group.count) + (group.proven && group.proven < group.count ? " (" + number(group.proven) + " proven)" : "")),
      el("td", { class: "n nowrap", "data-label": "growth" }, signed(group.growth_per_second)),
      el("td", { class: "n nowrap", "data-label": "parked" }, duration(group.parked_seconds.max * 1000)),
      el("td", { class: "n nowrap", "data-label": "held" }, bytes(heldBy(group))));
    if (opened.has(key)) set(true);
    return [head, detail];
  }
  function groupDetail(group) {
    const block = (title, ...content) => el("div", { class: "block" }, el("h3", {}, title), content);
    return el("td", { colspan: 6 }, el("div", { class: "cols" },
      el("div", {},
        group.cause && el("div", { class: "block" }, el("p", {}, group.cause.sentence), el("p", { class: "remedy" }, group.cause.remedy)),
        group.evidence.length > 0 && block("Evidence", el("ul", {}, group.evidence.map((e) => el("li", {}, e)))),
        block("Goroutines", el("p", {}, group.goids.slice(0, 20).join(", ") + (group.count > 20 ? ", …" : "")))),
      el("div", {},
        block("Stack", group.stack.length ? el("ol", { class: "stack" }, group.stack.map((f) =>
          el("li", { class: /^(runtime|sync|internal)[./]/.test(f.function) && "plumbing" }, f.function + (f.inlined ? " (inlined)" : ""), el("small", {}, f.file + ":" + f.line))))
          : el("p", {}, "It could not be read.")),
        block("Created by", el("ol", { class: "stack" }, el("li", {}, label(group), group.created_by && el("small", {}, group.created_by.file + ":" + group.created_by.line)),
          el("li", {}, "runs " + group.start_function))))));
  }

  // A look, and the timeline of those since the page was opened, in the form that recordings have.
  function sample(entry, report) {
    const sites = new Map();
    for (const group of report.groups) {
      const name = label(group) + " " + place(group.created_by), site = sites.get(name) || { line: group, n: 0, leaking: false };
      site.n += group.waiting;
      site.leaking = site.leaking || RANK[group.verdict] > 1;
      sites.set(name, site);
    }
    const now = report.runtime && report.runtime.now, between = report.runtime && report.runtime.between;
    return { ms: entry.looked_ms, live: entry.numbers.goroutines, parked: report.goroutines.parked_over_threshold, sites, entry,
      rss: report.runtime && report.runtime.process ? report.runtime.process.rss_bytes : null,
      runtime: { heap_live_bytes: now ? now.memory.heap_live : null, runnable: now ? report.runtime.runnable : null,
        gc_cpu_share: between ? between.gc_cpu_share ?? null : null, longest_pause_ms: between && between.longest_pause_ns ? between.longest_pause_ns / 1e6 : null } };
  }
  // Before that the agent tells how many there were, and not of which statements.
  function timelineSeen(past, seen) {
    const before = past.map((point) => ({ ms: point.ms, live: point.goroutines, parked: point.leaked + point.stuck, sites: new Map(), rss: null,
      trouble: point.leaked + point.stuck, runtime: { heap_live_bytes: point.heap_live_bytes, runnable: null, gc_cpu_share: null, longest_pause_ms: null } }));
    const looks = [...before, ...seen];
    const names = new Map();
    for (const look of seen) for (const [name, site] of look.sites) names.set(name, { ...site, leaking: site.leaking || (names.has(name) && names.get(name).leaking) });
    const ranked = [...names].sort((a, b) => b[1].leaking - a[1].leaking || b[1].n - a[1].n).slice(0, 12);
    const count = (look, name) => look.sites.has(name) ? look.sites.get(name).n : 0;
    const sites = ranked.map(([, { line, leaking }]) => ({ created_by: line.created_by, start_function: line.start_function, name: "", leaking }));
    sites.push({ created_by: null, start_function: "", name: "not parked long, or of other go statements", leaking: false });
    sites.push({ created_by: null, start_function: "", name: "leaked or stuck before this page was opened", leaking: true });
    const counts = ranked.map(([name], of) => ({ of, counts: looks.map((look) => count(look, name)) }));
    const others = (look) => look.live - (look.trouble || 0) - ranked.reduce((sum, [name]) => sum + count(look, name), 0);
    counts.push({ of: ranked.length, counts: looks.map((look) => Math.max(0, others(look))) });
    counts.push({ of: ranked.length + 1, counts: looks.map((look) => look.trouble || 0) });
    const runtime = {};
    for (const of of ["heap_live_bytes", "runnable", "gc_cpu_share", "longest_pause_ms"]) runtime[of] = looks.map((look) => look.runtime[of]);
    const segment = { ms: looks.map((look) => look.ms), live: looks.map((look) => look.live), parked: looks.map((look) => look.parked),
      rss_bytes: looks.map((look) => look.rss), cpus: looks.map(() => null), runtime, sites: counts, groups: [] };
    const lives = seen.length ? [{ ...seen[0].entry, lane: 0, memory_limit_bytes: null, ended: null, segments: [segment] }] : [];
    return { from_ms: segment.ms[0], to_ms: segment.ms.at(-1), culprit: null, lives, sites, groups: [], marks: [], gaps: [] };
  }

  // Who waits for whom: what is waited for above, in layers by how many are in between.
  const LINKS = { holds: "holds the lock", member: "has its Done to run", may_hold: "may hold the lock", made: "was made by the one that waits" };
  function waits(box, incident) {
    const MOST = 18, shown = incident.groups.slice(0, MOST);
    const groupOf = new Map();
    shown.forEach((group, i) => group.goids.forEach((goid) => groupOf.set(goid, i)));
    const edges = new Map();
    for (const { from, to, link } of incident.waits) {
      const [a, b] = [groupOf.get(from), groupOf.get(to)];
      if (a === undefined || b === undefined) continue;
      const key = a + ">" + b, edge = edges.get(key) || { a, b, n: 0, link };
      edge.n += 1;
      edges.set(key, edge);
    }
    const width = Math.max(260, box.clientWidth - 40), gap = 18, high = 58, between = 46;
    const columns = Math.max(1, Math.min(4, Math.floor((width + gap) / 230)));
    const layers = new Map();
    shown.forEach((group, i) => layers.set(group.distance, [...(layers.get(group.distance) || []), i]));
    const places = [];
    let y = 4;
    for (const distance of [...layers.keys()].sort((a, b) => a - b)) {
      const layer = layers.get(distance);
      for (let row = 0; row < layer.length; row += columns) {
        const line = layer.slice(row, row + columns), wide = Math.min(330, (width - gap * (line.length - 1)) / line.length);
        const left = (width - line.length * wide - gap * (line.length - 1)) / 2;
        line.forEach((i, k) => { places[i] = { x: left + k * (wide + gap), y, wide }; });
        y += high + between;
      }
    }
    const root = svg("svg", { viewBox: `0 0 ${width} ${y - between + 8}`, height: y - between + 8, role: "img", "aria-label": incident.headline });
    for (const { a, b, n, link } of edges.values()) {
      const [from, to] = [places[a], places[b]], shift = a === b ? 26 : 0;
      const x1 = from.x + from.wide / 2 + (a < b ? 14 : -14) + shift, x2 = to.x + to.wide / 2 + (a < b ? 14 : -14) - shift;
      const up = from.y > to.y, level = from.y === to.y;
      const y1 = up ? from.y : from.y + high, y2 = up ? to.y + high : level ? to.y + high : to.y;
      const bend = level ? 34 : Math.abs(y1 - y2) / 2, sign = up ? -1 : 1;
      const tip = up || level ? 7 : -7;
      root.append(svg("path", { class: "edge" + (link === "holds" || link === "member" ? "" : " maybe"),
        d: `M${x1} ${y1}C${x1} ${y1 + sign * bend} ${x2} ${y2 + (up || level ? 1 : -1) * bend} ${x2} ${y2 + tip}` },
      svg("title", {}, number(n) + " here wait for one there, which " + (LINKS[link] || link))));
      root.append(svg("path", { class: "arrow", d: `M${x2} ${y2}l-4 ${tip}h8z` }));
    }
    const cut = (text, wide) => { const room = Math.floor((wide - 20) / 6.6); return text.length > room ? text.slice(0, room - 1) + "…" : text; };
    shown.forEach((group, i) => {
      const { x, y, wide } = places[i], at = group.in_program || group.blocked_at;
      const lines = [number(group.count) + " × " + label(group), at ? at.function + " " + place(at) : "", group.wait_reason + ", " + duration(group.seconds * 1000)];
      root.append(svg("g", { class: group.distance === 0 ? "root" : "" }, svg("title", {}, lines.join("\n")), svg("rect", { x, y, width: wide, height: high, rx: 7 }),
        lines.map((text, k) => svg("text", { class: k ? "soft" : "", x: x + 10, y: y + 18 + k * 16 }, cut(text, wide)))));
    });
    box.append(root, el("p", { class: "note" }, "Arrows lead to what is waited for. Solid: memory shows it; dashed: it may be."
      + (incident.groups.length > MOST ? " " + plural(incident.groups.length - MOST, "more place") + " where goroutines stand " + (incident.groups.length - MOST === 1 ? "is" : "are") + " left out." : "")));
  }

  // The agent itself.
  function healthView() {
    const root = el("div"), own = el("div", { class: "body" });
    const section = (title, note, ...content) => el("section", {}, el("div", { class: "head" }, el("h2", {}, title), note && el("p", {}, note)), content);
    const tally = (rows, none) => el("div", { class: "body" }, rows.length ? el("table", { class: "tally" }, el("tbody", {}, rows.map(([name, value, more]) =>
      el("tr", {}, el("td", {}, name), el("td", { class: "n" }, value), more && el("td", {}, more))))) : el("p", {}, none));
    let said = null;
    function changed() {
      const entries = [...known.values()].map(({ entry }) => entry), watched = entries.filter((e) => e.state === "watched");
      const now = JSON.stringify([agent, entries.map((e) => [e.state, e.reason, e.message, e.mode, of(e, "cost")])]);
      if (now === said) return;
      said = now;
      const by = (list, key) => { const all = new Map(); for (const e of list) all.set(key(e), [...(all.get(key(e)) || []), e]); return [...all].sort((a, b) => b[1].length - a[1].length); };
      const sum = watched.reduce((total, e) => total + (of(e, "cost") || 0), 0);
      const losses = Object.entries(agent.losses).filter(([, n]) => n > 0);
      const unwatched = entries.filter((e) => e.state === "refused" || e.state === "unselected");
      root.replaceChildren(
        section("The agent", "version " + agent.version + (agent.records ? ", it records" : ", it records nothing"), own),
        section("What watching costs", "an estimate: hits of probes times what one costs on this host",
          tally([["All processes together", cost(sum) + " of a core"], ...watched.filter((e) => of(e, "cost") > 0).sort((a, b) => of(b, "cost") - of(a, "cost")).slice(0, 8)
            .map((e) => [link("/processes/" + e.pid, nameOf(e) + " " + e.pid), cost(of(e, "cost"))])])),
        section("Modes", number(agent.moves) + " moves so far", tally(by(watched, (e) => e.mode).map(([mode, list]) => [mode, number(list.length)]), "No process is watched.")),
        section("Losses", "since the agent began, by cause", tally(losses.map(([cause, n]) => [cause.replaceAll("_", " "), number(n)]), "Nothing was lost.")),
        section("Proofs", null, tally([["Given up", number(agent.proofs_refused)], ["Proven, and ran all the same", number(agent.contradicted)]])),
        section("Not watched", agent.unseen ? plural(agent.unseen, "process").replace(/processs$/, "processes") + " may not be looked at" : null,
          tally(by(unwatched, (e) => e.message || e.reason || e.state).slice(0, 40).map(([why, list]) => [
            list.slice(0, 6).map((e, i) => [i > 0 && ", ", link("/processes/" + e.pid, nameOf(e) + " " + e.pid)]), number(list.length), why]), "Every Go process is watched.")));
      document.title = "parkwarden: the agent";
      self();
    }
    async function self() {
      try {
        const text = await (await ask("/metrics")).text();
        const value = (name) => { const line = text.split("\n").find((l) => l.startsWith(name + "{exe=\"parkwarden\"")); return line ? Number(line.split(" ").at(-1)) : null; };
        const cpu = value("process_cpu_seconds_total"), rss = value("process_resident_memory_bytes"), began = value("process_start_time_seconds");
        own.replaceChildren(el("table", { class: "tally" }, el("tbody", {}, [["Memory", rss, bytes], ["CPU time", cpu, (s) => duration(s * 1000)],
          ["CPU, on average", cpu !== null && began ? cpu / Math.max(1, Date.now() / 1000 - began) : null, percent], ["Running for", began && Date.now() - began * 1000, duration]]
          .filter(([, n]) => n !== null).map(([name, n, says]) => el("tr", {}, el("td", {}, name), el("td", { class: "n" }, says(n)))))));
      } catch (error) { own.replaceChildren(el("p", {}, error.message)); }
    }
    return { root, changed };
  }

  follow();
})();
