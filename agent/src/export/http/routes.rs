//! Which request gets which answer.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use strum::VariantArray as _;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::auth::Token;
use super::events::{Events, Feed};
use super::listing::{History, Listing};
use super::looks::{Looks, NoLook};
use super::numbers::HttpNumbers;
use super::{Metrics, page};
use crate::clock::unix_now_ns;
use crate::discover::workload::Workload;
use crate::export::goroutine_text;
use crate::export::metrics::{Format, openmetrics};
use crate::export::profile::{self, Kind, ProfileError};
use crate::live::Target;
use crate::node::{Node, NodeProcess, ProcessKey, WatchState};
use crate::record::{Reader, RecordError, Selection};
use crate::snapshot::Look;
use crate::timeline::{self, Timeline};
use crate::why;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const EVENT_STREAM: &str = "text/event-stream";
const PROFILE: &str = "application/octet-stream";
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Scrapes at once, and other answers; what takes too long keeps its place.
const SCRAPES: usize = 4;
const ANSWERS: usize = 16;

/// Recordings read at once.
const TIMELINES: usize = 2;

/// Time between the two looks that tell who stands.
const STOOD: Duration = Duration::from_secs(1);

/// How long they may take.
const APART_WITHIN: Duration = Duration::from_secs(10);

/// See the module.
pub struct Router {
    api: bool,
    token: Option<Token>,
    node: Arc<Node>,
    metrics: Arc<Metrics>,
    numbers: Arc<HttpNumbers>,
    looks: Looks,
    scrapes: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    timelines: Arc<Semaphore>,
    events: Events,
    /// Where what is seen is recorded.
    recording: Option<PathBuf>,
}

/// What is in an answer: bytes, or what comes by and by.
type Content = Either<Full<Bytes>, Feed>;

fn content(bytes: impl Into<Bytes>) -> Content {
    Either::Left(Full::new(bytes.into()))
}

/// An answer in the making.
struct Answer {
    status: StatusCode,
    kind: &'static str,
    body: Content,
    /// Of a file: what it is to be called.
    name: Option<&'static str>,
    /// Whether the body is compressed.
    gzip: bool,
}

impl Answer {
    fn ok(kind: &'static str, body: Vec<u8>) -> Self {
        Self { status: StatusCode::OK, kind, body: content(body), name: None, gzip: false }
    }

    fn json(value: &impl Serialize) -> Self {
        // Every value here has a form in JSON.
        Self::ok(JSON, serde_json::to_vec(value).unwrap_or_default())
    }

    /// An error, with what can be done about it.
    fn error(status: StatusCode, message: impl Into<String>) -> Self {
        let body = serde_json::json!({ "error": message.into() });
        Self { status, kind: JSON, body: content(body.to_string()), name: None, gzip: false }
    }
}

fn nothing_here() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "there is nothing here; / lists what there is")
}

fn unknown() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, format!("no Go process of this node is known: {PROCESSES} lists them"))
}

fn not_watched(why: &str) -> Answer {
    Answer::error(StatusCode::CONFLICT, format!("it is not watched: {why}"))
}

fn panicked() -> Answer {
    Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "parkwarden panicked: its log has the message")
}

impl Router {
    pub fn new(
        api: bool,
        token: Option<Token>,
        node: Arc<Node>,
        metrics: Arc<Metrics>,
        numbers: Arc<HttpNumbers>,
        recording: Option<PathBuf>,
    ) -> Self {
        let [scrapes, answers, timelines] = [SCRAPES, ANSWERS, TIMELINES].map(|turns| Arc::new(Semaphore::new(turns)));
        let (looks, events) = (Looks::default(), Events::new(Arc::clone(&node), recording.is_some()));
        Self { api, token, node, metrics, numbers, looks, scrapes, answers, timelines, events, recording }
    }

    /// The answer to a request.
    pub async fn answer(self: &Arc<Self>, request: &Request<Incoming>) -> Response<Content> {
        let (route, answer) = self.route(request).await;
        self.numbers.answered(route, answer.status.as_u16());
        let mut response = Response::new(answer.body);
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if answer.kind == HTML {
            let policy = if route == "page" { page::POLICY } else { PROFILES_POLICY };
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        }
        if answer.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if route == "metrics" {
            headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        }
        if let Some(name) = answer.name
            && let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""))
        {
            // As net/http/pprof names it.
            headers.insert(CONTENT_DISPOSITION, disposition);
        }
        match answer.status {
            StatusCode::UNAUTHORIZED => headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            StatusCode::METHOD_NOT_ALLOWED => headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD")),
            StatusCode::SERVICE_UNAVAILABLE => headers.insert(RETRY_AFTER, HeaderValue::from_static("5")),
            _ => None,
        };
        response
    }

    async fn route(self: &Arc<Self>, request: &Request<Incoming>) -> (&'static str, Answer) {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return ("other", Answer::error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered"));
        }
        if !request.body().is_end_stream() {
            return ("other", Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "a request has no body here"));
        }
        let path = request.uri().path();
        match path {
            "/metrics" => {
                let open = openmetrics::is_wanted(values(request, &ACCEPT));
                let gzip = takes_gzip(values(request, &ACCEPT_ENCODING));
                let scrape = self.apart(&self.scrapes, move |router| router.scrape(open, gzip));
                return ("metrics", scrape.await.unwrap_or_else(|busy| busy));
            }
            "/healthz" => return ("health", Answer::ok(TEXT, b"ok\n".to_vec())),
            "/readyz" if self.node.is_ready() => return ("health", Answer::ok(TEXT, b"ok\n".to_vec())),
            "/readyz" => {
                let body = content("the first search for processes is not done\n");
                return (
                    "health",
                    Answer { status: StatusCode::SERVICE_UNAVAILABLE, kind: TEXT, body, name: None, gzip: false },
                );
            }
            _ => {}
        }
        let route = match path {
            "/" if wants_html(values(request, &ACCEPT)) => return ("page", Answer::ok(HTML, page::HTML.into())),
            "/" => return ("index", Answer::ok(TEXT, INDEX.as_bytes().to_vec())),
            path if page::is_process(path) => return ("page", Answer::ok(HTML, page::HTML.into())),
            page::STYLE_PATH => return ("page", Answer::ok(CSS, page::style().into_bytes())),
            page::CODE_PATH => return ("page", Answer::ok(SCRIPT, page::code().into_bytes())),
            EVENTS => "events",
            path if path.strip_prefix(PROFILES).is_some_and(|name| name.is_empty() || kind(name).is_some()) => {
                "profile"
            }
            path if path == PROCESSES || path.starts_with(&format!("{PROCESSES}/")) => "api",
            _ => return ("other", nothing_here()),
        };
        if !self.api {
            let why = "processes and profiles are not served here: configure http.token_file, or set http.api = \"on\"";
            return (route, Answer::error(StatusCode::FORBIDDEN, why));
        }
        let given = request.headers().get(AUTHORIZATION).cloned();
        let (wanted, query) = (path.to_owned(), request.uri().query().unwrap_or_default());
        match self.apart(&self.answers, move |router| router.known(given.as_ref(), &wanted)).await {
            Ok(None) => (route, self.asked(path, query).await),
            Ok(Some(answer)) | Err(answer) => (route, answer),
        }
    }

    /// What takes a look, a recording, or longer.
    async fn asked(self: &Arc<Self>, path: &str, query: &str) -> Answer {
        if path == EVENTS {
            return match self.events.stream() {
                Some(feed) => Answer { body: Either::Right(feed), ..Answer::ok(EVENT_STREAM, Vec::new()) },
                None => Answer::error(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many streams are open: ask now and then instead",
                ),
            };
        }
        if let Some(kind) = path.strip_prefix(PROFILES) {
            return self.profile(self::kind(kind).unwrap_or(Kind::Goroutine), query).await;
        }
        match part(path) {
            Some((pid, Part::History)) => {
                self.node.process(pid).map_or_else(unknown, |process| Answer::json(&History::of(&process)))
            }
            Some((pid, Part::Timeline)) => self.timeline(pid, query).await,
            Some((pid, Part::Why)) => self.why(pid).await,
            None => nothing_here(),
        }
    }

    fn scrape(&self, open: bool, gzip: bool) -> Answer {
        let (format, kind) =
            if open { (Format::OpenMetrics, openmetrics::CONTENT_TYPE) } else { (Format::Text, METRICS) };
        let body = (self.metrics)(&self.numbers, format);
        match gzip.then(|| compressed(&body)) {
            Some(Ok(body)) => Answer { gzip, ..Answer::ok(kind, body) },
            // Memory does not fail; if it did, what is not compressed serves as well.
            _ => Answer::ok(kind, body),
        }
    }

    /// Has something done by a thread of its own: what waits for a disk or a lock holds up nobody else, health least of all.
    async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        turns: &Arc<Semaphore>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Answer> {
        let busy = || Answer::error(StatusCode::SERVICE_UNAVAILABLE, "other requests are being answered: try again");
        let turn = Arc::clone(turns).try_acquire_owned().map_err(|_| busy())?;
        let router = Arc::clone(self);
        let working = tokio::task::spawn_blocking(move || {
            // Also when nobody waits any more.
            let _turn = turn;
            work(&router)
        });
        match timeout(APART_WITHIN, working).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(panicked()),
            Err(_) => Err(busy()),
        }
    }

    /// The answer to who has no token, and to everything that takes no look at a process.
    fn known(&self, authorization: Option<&HeaderValue>, path: &str) -> Option<Answer> {
        let given = authorization.map(HeaderValue::as_bytes);
        if self.token.as_ref().is_some_and(|token| !token.admits(given)) {
            let why = "needs the header `Authorization: Bearer TOKEN` with the token of http.token_file";
            return Some(Answer::error(StatusCode::UNAUTHORIZED, why));
        }
        if path.strip_prefix(PROFILES).is_some_and(str::is_empty) {
            return Some(Answer::ok(HTML, self.profiles().into_bytes()));
        }
        if part(path).is_some() {
            return None;
        }
        match path.strip_prefix(PROCESSES)? {
            "" => Some(self.processes()),
            rest => Some(self.report(rest.trim_start_matches('/'))),
        }
    }

    /// The profiles of each process, as `/debug/pprof/` of one lists them.
    fn profiles(&self) -> String {
        let mut page = PROFILES_HEAD.to_owned();
        for process in self.node.processes().iter().filter(|process| process.report().is_some()) {
            let [namespace, pod, container] = process.workload().labels().map(escaped);
            let (exe, pid) = (escaped(&process.exe), process.key.pid);
            page.push_str(&format!(
                "<tr><td>{pid}</td><td>{exe}</td><td>{namespace}</td><td>{pod}</td><td>{container}</td><td>"
            ));
            for kind in Kind::VARIANTS {
                let name: &str = kind.into();
                page.push_str(&format!("<a href=\"{PROFILES}{name}?pid={pid}\">{name}</a> "));
            }
            page.push_str(&format!(
                "<a href=\"{PROFILES}goroutine?pid={pid}&amp;debug=1\">goroutines by stack</a> \
                 <a href=\"{PROFILES}goroutine?pid={pid}&amp;debug=2\">full goroutine stack dump</a></td></tr>\n"
            ));
        }
        page + PROFILES_END
    }

    fn processes(&self) -> Answer {
        Answer::json(&Listing::of(&self.node, self.recording.is_some()))
    }

    fn report(&self, pid: &str) -> Answer {
        let Some(process) = pid.parse().ok().and_then(|pid| self.node.process(pid)) else {
            return unknown();
        };
        match (process.report(), process.state()) {
            (Some(report), _) => Answer::json(&*report),
            (None, WatchState::Refused { message, .. }) => {
                Answer::error(StatusCode::CONFLICT, format!("it cannot be watched: {message}"))
            }
            (None, WatchState::Unselected { why }) => not_watched(&why),
            (None, _) => Answer::error(StatusCode::SERVICE_UNAVAILABLE, "it has not been looked at yet: try again"),
        }
    }

    /// A profile of a process, as `net/http/pprof` of that process would answer.
    async fn profile(&self, kind: Kind, query: &str) -> Answer {
        let mut wanted = Wanted::default();
        if let Err(why) = wanted.read(query) {
            return Answer::error(StatusCode::BAD_REQUEST, why);
        }
        if wanted.debug > 0 && kind != Kind::Goroutine {
            let why =
                "debug: only goroutine profiles have a text form here; `go tool pprof -top` makes one of the others";
            return Answer::error(StatusCode::BAD_REQUEST, why);
        }
        let process = match self.chosen(&wanted) {
            Ok(process) => process,
            Err(answer) => return answer,
        };
        // Who has chosen not to have it watched has not chosen to have its memory shown.
        if let WatchState::Unselected { why } = process.state() {
            return not_watched(&why);
        }
        let (pid, debug) = (process.key.pid, wanted.debug);
        self.look(pid, move || take(pid, kind, debug)).await
    }

    /// Who waits for whom in a process.
    async fn why(&self, pid: u32) -> Answer {
        let Some(process) = self.node.process(pid) else { return unknown() };
        match process.state() {
            WatchState::Unselected { why } => return not_watched(&why),
            WatchState::Refused { message, .. } => return not_watched(&message),
            WatchState::Starting | WatchState::Watched => {}
        }
        let look = move || match why::live(pid, STOOD) {
            Ok(report) => Answer::json(&report),
            Err(error) => Answer::error(StatusCode::CONFLICT, crate::exit::chain(&error)),
        };
        self.look(pid, look).await
    }

    /// What is recorded of a process.
    async fn timeline(self: &Arc<Self>, pid: u32, query: &str) -> Answer {
        let Some(path) = self.recording.clone() else {
            return Answer::error(StatusCode::NOT_FOUND, "nothing is recorded: start the agent with --record FILE");
        };
        let Some(process) = self.node.process(pid) else { return unknown() };
        let mut wanted = Stretch::default();
        if let Err(why) = wanted.read(query) {
            return Answer::error(StatusCode::BAD_REQUEST, why);
        }
        let done = self.apart(&self.timelines, move |_| match recorded(&path, process.key, wanted.ago) {
            Ok(Some(timeline)) if wanted.html => {
                let page = timeline::render_html(&timeline).into_bytes();
                Answer { name: Some("timeline.html"), ..Answer::ok(PROFILE, page) }
            }
            Ok(Some(timeline)) => Answer::json(&timeline),
            Ok(None) => Answer::error(StatusCode::NOT_FOUND, "nothing is recorded of this process in that time"),
            Err(error) => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, crate::exit::chain(&error)),
        });
        done.await.unwrap_or_else(|busy| busy)
    }

    /// The answer that a look at a process gives.
    async fn look(&self, pid: u32, look: impl FnOnce() -> Answer + Send + 'static) -> Answer {
        match self.looks.look(pid, look).await {
            Ok(answer) => answer,
            Err(NoLook::Busy) => {
                Answer::error(StatusCode::SERVICE_UNAVAILABLE, "other processes are being looked at already: try again")
            }
            Err(NoLook::Hung) => Answer::error(
                StatusCode::GATEWAY_TIMEOUT,
                format!("pid {pid} does not answer: reading it takes too long"),
            ),
            Err(NoLook::Panicked) => panicked(),
        }
    }

    fn chosen(&self, wanted: &Wanted) -> Result<Arc<NodeProcess>, Answer> {
        let mut found: Vec<Arc<NodeProcess>> = match wanted.pid {
            Some(pid) => self.node.process(pid).into_iter().collect(),
            None => self.node.processes(),
        };
        let is =
            |wanted: &Option<String>, value: Option<&str>| wanted.as_deref().is_none_or(|wanted| value == Some(wanted));
        found.retain(|process| {
            let workload = process.workload();
            is(&wanted.pod, workload.pod.as_deref())
                && is(&wanted.namespace, workload.namespace.as_deref())
                && is(&wanted.container, workload.container.as_deref())
        });
        match <[Arc<NodeProcess>; 1]>::try_from(found) {
            Ok([process]) => Ok(process),
            Err(none) if none.is_empty() => Err(Answer::error(
                StatusCode::NOT_FOUND,
                match wanted.pid {
                    Some(pid) => format!(
                        "no Go process of this node is pid {pid}, or not the one described: {PROCESSES} lists them"
                    ),
                    None => format!("no Go process of this node is that: {PROCESSES} lists them"),
                },
            )),
            Err(many) => Err(Answer::error(StatusCode::BAD_REQUEST, which_of(&many, wanted))),
        }
    }
}

/// What would tell several processes apart: the first of these that does.
fn which_of(many: &[Arc<NodeProcess>], wanted: &Wanted) -> String {
    let workloads: Vec<Workload> = many.iter().map(|process| process.workload()).collect();
    let different = |of: fn(&Workload) -> Option<&String>| workloads.iter().filter_map(of).collect::<BTreeSet<_>>();
    let namespaces = different(|workload| workload.namespace.as_ref());
    let containers = different(|workload| workload.container.as_ref());
    for (parameter, given, values) in
        [("namespace", &wanted.namespace, namespaces), ("container", &wanted.container, containers)]
    {
        if given.is_none() && values.len() > 1 {
            let values: Vec<&str> = values.into_iter().map(String::as_str).collect();
            return format!("several {parameter}s are that; name one with &{parameter}=: {}", values.join(", "));
        }
    }
    let pids: Vec<String> = many.iter().map(|process| process.key.pid.to_string()).collect();
    format!("several processes are that; name one with ?pid=: {}", pids.join(", "))
}

const PROCESSES: &str = "/api/v1/processes";
const EVENTS: &str = "/api/v1/events";
const PROFILES: &str = "/debug/pprof/";

const PROFILES_HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>/debug/pprof/</title>\
<style>body{font-family:sans-serif}td,th{padding:0 1em 0 0;text-align:left}a{padding-right:.5em}</style></head><body>\n\
<h1>/debug/pprof/</h1>\n<p>Profiles of the Go processes that are watched on this node, read from their memory.</p>\n<table>\n\
<tr><th>PID</th><th>Executable</th><th>Namespace</th><th>Pod</th><th>Container</th><th>Profiles</th></tr>\n";
const PROFILES_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
const PROFILES_END: &str = "</table>\n<p>heap, allocs, block and mutex are what the program records itself: nothing is switched on in \
it. <code>go tool pprof URL</code> reads all but the last two of each.</p>\n</body></html>\n";

/// What a request has in that header, wherever it is text.
fn values<'a>(request: &'a Request<Incoming>, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
}

/// Whether the values of `Accept` name HTML, as those of browsers do.
fn wants_html<'a>(mut accepted: impl Iterator<Item = &'a str>) -> bool {
    accepted.any(|value| value.split([',', ';']).any(|kind| kind.trim().eq_ignore_ascii_case("text/html")))
}

/// Something about a process that is not its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    History,
    Timeline,
    Why,
}

/// Which process and what of it a path names.
fn part(path: &str) -> Option<(u32, Part)> {
    let (pid, part) = path.strip_prefix(PROCESSES)?.strip_prefix('/')?.split_once('/')?;
    let part = match part {
        "history" => Part::History,
        "timeline" => Part::Timeline,
        "why" => Part::Why,
        _ => return None,
    };
    Some((pid.parse().ok()?, part))
}

/// What of a recording is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    /// The last so much of it; all, if it is none.
    ago: Option<Duration>,
    /// As a page to be kept.
    html: bool,
}

impl Stretch {
    fn read(&mut self, query: &str) -> Result<(), String> {
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "since" => {
                    let ago = humantime::parse_duration(&value);
                    self.ago = Some(ago.map_err(|_| "since has to be a time before now, such as 2h".to_owned())?);
                }
                "format" if value == "html" || value == "json" => self.html = value == "html",
                "format" => return Err("format is html or json".to_owned()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What a recording has of a process, if it has anything.
fn recorded(path: &Path, key: ProcessKey, ago: Option<Duration>) -> Result<Option<Timeline>, RecordError> {
    let since = ago.map(|ago| unix_now_ns().saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX)));
    let reader = Reader::open(path)?;
    let entries = reader.entries()?;
    let selection = Selection { pid: Some(key.pid), since, ..Selection::default() };
    let chosen = selection.of(&entries).into_iter().find(|entry| entry.process.start_ticks == key.start_ticks);
    let Some(entry) = chosen else { return Ok(None) };
    Ok(Some(Timeline::of(vec![reader.history(entry, since, None)?])))
}

/// Whether the values of `Accept-Encoding` have gzip.
fn takes_gzip<'a>(accepted: impl Iterator<Item = &'a str>) -> bool {
    accepted.flat_map(|value| value.split(',')).any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let quality = parameters.split_once('=').map_or(Ok(1.0), |(_, quality)| quality.trim().parse::<f64>());
        name.trim().eq_ignore_ascii_case("gzip") && quality.is_ok_and(|quality| quality > 0.0)
    })
}

/// As gzip, quickly: a scrape is the same names again and again.
fn compressed(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(body)?;
    gzip.finish()
}

/// The profile of that name.
fn kind(name: &str) -> Option<Kind> {
    name.parse().ok()
}

/// A text that means nothing to HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' | '>' | '&' | '"' | '\'' => out.push_str(&format!("&#{};", u32::from(character))),
            _ => out.push(character),
        }
    }
    out
}

const INDEX: &str = "parkwarden agent\n\n\
/                              in a browser: a page of all this\n\
/metrics                       Prometheus\n\
/healthz /readyz               health\n\
/api/v1/processes              the Go processes of this node\n\
/api/v1/processes/PID          the report of one; PID/why: who waits for whom; PID/timeline: what is recorded of it; PID/history: its last hour\n\
/api/v1/events                 the processes as they change, as server-sent events\n\
/debug/pprof/                  the profiles of each process: goroutine, heap, allocs, block, mutex, threadcreate\n\
/debug/pprof/goroutine?pid=PID its goroutine profile; &debug=1 or 2 as text; or ?pod=NAME&container=NAME&namespace=NAME\n";

/// What a profile is asked of.
#[derive(Debug, Default)]
struct Wanted {
    pid: Option<u32>,
    pod: Option<String>,
    namespace: Option<String>,
    container: Option<String>,
    debug: u32,
}

impl Wanted {
    fn read(&mut self, query: &str) -> Result<(), String> {
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let number = || value.parse::<u32>().map_err(|_| format!("{key} has to be a number"));
            match &*key {
                "pid" => self.pid = Some(number()?),
                "debug" => self.debug = number()?,
                "pod" => self.pod = Some(value.into_owned()),
                "namespace" => self.namespace = Some(value.into_owned()),
                "container" => self.container = Some(value.into_owned()),
                "gc" if value != "0" => return Err("gc: nothing is run in a process from here".to_owned()),
                "seconds" => return Err("seconds: a difference of two profiles is not taken here; take two".to_owned()),
                // `net/http/pprof` ignores what it does not know, and scrapers send more.
                _ => {}
            }
        }
        match (self.pid, &self.pod) {
            (None, None) => Err("name a process: ?pid=PID, or ?pod=NAME, with &container= and &namespace=".to_owned()),
            _ => Ok(()),
        }
    }
}

fn take(pid: u32, kind: Kind, debug: u32) -> Answer {
    let refused = |error: &dyn std::error::Error| Answer::error(StatusCode::CONFLICT, crate::exit::chain(error));
    let mut target = match Target::open(pid) {
        Ok(target) => target,
        Err(error) => return refused(&error),
    };
    if debug > 0 {
        return match Look::at(&mut target) {
            Ok(look) if debug == 1 => Answer::ok(TEXT, goroutine_text::counts(&look).into_bytes()),
            Ok(look) => Answer::ok(TEXT, goroutine_text::stacks(&look).into_bytes()),
            Err(error) => refused(&error),
        };
    }
    match profile::take(&mut target, kind) {
        Ok(profile) => Answer { name: Some(kind.into()), ..Answer::ok(PROFILE, profile) },
        Err(ProfileError::Encode(error)) => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(error) => refused(&error),
    }
}
