//! The server spoken to over real connections.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{HttpConfig, LAST_AT_MOST, MAX_PER_ADDRESS, Metrics, Running, serve};
use crate::config::settings::Switch;
use crate::discover::describe::Description;
use crate::discover::workload::Workload;
use crate::export::metrics::Format;
use crate::node::{Node, NodeProcess, ProcessKey, WatchState};
use crate::report::Report;

const TOKEN: &str = "0123456789abcdef0123";

/// A server, and the runtime it runs on.
struct Server {
    running: Running,
    node: Arc<Node>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // What a test has made wait for ever is not waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Server {
    fn start(config: &HttpConfig) -> Self {
        Self::listening(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), config)
    }

    fn listening(listen: SocketAddr, config: &HttpConfig) -> Self {
        Self::answering(listen, config, b"parkwarden_build_info 1\n")
    }

    /// With these as its metrics.
    fn answering(listen: SocketAddr, config: &HttpConfig, metrics: &'static [u8]) -> Self {
        Self::with(listen, config, Arc::new(move |_: &_, _| metrics.to_vec()))
    }

    fn with(listen: SocketAddr, config: &HttpConfig, metrics: Arc<Metrics>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let node = Arc::new(Node::default());
        let running = runtime.block_on(serve(listen, config, Arc::clone(&node), metrics)).expect("serves");
        Self { running, node, runtime: Some(runtime) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.running.address.port())).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        stream
    }

    /// Sends bytes and reads until the server closes.
    fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // It may close before it has read all of it.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Status and answer of a GET with further header lines.
    fn get(&self, path: &str, headers: &str) -> (u16, String) {
        let answer =
            self.say(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").as_bytes());
        (status(&answer), answer)
    }

    fn status(&self, path: &str) -> u16 {
        self.get(path, "").0
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn token_file(dir: &Path) -> HttpConfig {
    let file = dir.join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("written");
    HttpConfig { token_file: Some(file), ..HttpConfig::default() }
}

fn process(pid: u32) -> Arc<NodeProcess> {
    let key = ProcessKey { pid, start_ticks: 1 };
    Arc::new(NodeProcess::new(key, "/srv/cart".to_owned(), Description::default(), None, None))
}

fn golden_report() -> Report {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/leaks.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the golden report")).expect("a report")
}

#[test]
fn each_route_answers_and_others_do_not() {
    let server = Server::start(&HttpConfig::default());
    assert_eq!(server.status("/readyz"), 503);
    server.node.set_ready();
    for path in ["/", "/metrics", "/healthz", "/readyz", "/api/v1/processes"] {
        assert_eq!(server.status(path), 200, "{path}");
    }
    for path in ["/api/v1/processes/7", "/api/v1/processes/x", "/api/v1/processes/99999999999999999999", "/etc/passwd"]
    {
        assert_eq!(server.status(path), 404, "{path}");
    }
    for path in ["/../../etc/passwd", "/%2e%2e/etc/passwd", "//metrics", "/api/v1/processes/../../metrics"] {
        assert_eq!(server.status(path), 404, "{path}");
    }
    for query in ["", "?pid=x", "?pid=7&seconds=30", "?namespace=shop", "?pid=-1"] {
        assert_eq!(server.status(&format!("/debug/pprof/goroutine{query}")), 400, "{query}");
    }
    for kind in ["goroutine", "heap", "allocs", "block", "mutex", "threadcreate"] {
        assert_eq!(server.status(&format!("/debug/pprof/{kind}?pid=7")), 404, "no process");
        assert_eq!(server.status(&format!("/debug/pprof/{kind}")), 400);
    }
    for query in ["heap?pid=7&gc=1", "heap?pid=7&debug=1"] {
        assert_eq!(server.status(&format!("/debug/pprof/{query}")), 400, "{query}");
    }
    for path in
        ["/debug/pprof/nothing?pid=7", "/debug/pprof/cmdline?pid=7", "/debug/pprof/heap/x?pid=7", "/debug/pprof"]
    {
        assert_eq!(server.status(path), 404, "{path}");
    }
    let (_, answer) = server.get("/metrics", "");
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
}

#[test]
fn browsers_get_a_page_without_data_that_may_load_nothing_from_elsewhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&token_file(dir.path()));
    server.node.insert(process(7));
    let browser = "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n";
    for (path, headers) in [("/", browser), ("/processes/7", ""), ("/health", "")] {
        let (status, answer) = server.get(path, headers);
        assert!(status == 200 && answer.contains("text/html") && !answer.contains("/srv/cart"), "{answer}");
        let policy = answer.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).expect("a policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'self'; script-src 'self'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("  "), "{policy}");
    }
    assert!(server.get("/", "Accept: */*\r\n").1.contains("text/plain"));
    for (path, kind) in [("/page/agent.css", "text/css"), ("/page/agent.js", "text/javascript")] {
        let (status, answer) = server.get(path, "");
        assert!(status == 200 && answer.contains(&format!("content-type: {kind}")), "{answer}");
        assert!(!answer.contains("innerHTML") && !answer.contains("eval(") && !answer.contains("https://"), "{path}");
    }
    for path in ["/processes/", "/processes/x", "/processes/7/x", "/page/", "/page/../x"] {
        assert_eq!(server.status(path), 404, "{path}");
    }
    for path in ["/api/v1/events", "/api/v1/processes/7/why", "/api/v1/processes/7/timeline"] {
        assert_eq!(server.status(path), 401, "{path}");
    }
}

#[test]
fn a_stream_tells_of_what_changes_and_ends_with_the_server() {
    let server = Server::start(&HttpConfig::default());
    server.node.insert(process(7));
    let mut stream = server.connect();
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut so_far = String::new();
    let mut until = |stream: &mut TcpStream, wanted: &str| {
        while !so_far.contains(wanted) {
            let mut some = [0; 4096];
            let length = stream.read(&mut some).expect("more");
            assert!(length > 0, "it ended before {wanted}: {so_far}");
            so_far += &String::from_utf8_lossy(&some[..length]);
        }
    };
    until(&mut stream, "event: all");
    until(&mut stream, "\"pid\":7");
    server.node.insert(process(8));
    until(&mut stream, "event: changes");
    until(&mut stream, "\"pid\":8");
    server.node.remove(ProcessKey { pid: 7, start_ticks: 1 });
    until(&mut stream, "\"gone\":[7]");
    let ended = Instant::now();
    drop(server);
    let mut rest = Vec::new();
    // Broken off or ended, as it comes.
    let _ = stream.read_to_end(&mut rest);
    assert!(ended.elapsed() < Duration::from_secs(5), "it went on for {:?}", ended.elapsed());
}

#[test]
fn readers_that_take_nothing_of_a_stream_hold_up_nobody_and_are_let_go_of() {
    let server = Server::start(&HttpConfig::default());
    // All of them are more than the kernel keeps for a client that does not read.
    for pid in 1..=100 {
        let (key, exe) = (ProcessKey { pid, start_ticks: 1 }, format!("/srv/{}", "x".repeat(100 << 10)));
        server.node.insert(Arc::new(NodeProcess::new(key, exe, Description::default(), None, None)));
    }
    let ask = || {
        let mut stream = server.connect();
        stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        stream
    };
    let mut idle: Vec<TcpStream> = (1..MAX_PER_ADDRESS).map(|_| ask()).collect();
    let mut reads = BufReader::new(ask());
    let mut until = |wanted: &str| {
        let mut line = Vec::new();
        while memchr::memmem::find(&line, wanted.as_bytes()).is_none() {
            line.clear();
            assert!(reads.read_until(b'\n', &mut line).expect("more") > 0, "it ended before {wanted}");
        }
    };
    until("event: all");
    until("\"pid\":100");
    server.node.insert(process(101));
    let changed = Instant::now();
    until("\"pid\":101");
    assert!(changed.elapsed() < Duration::from_secs(8), "it waited for the others: {:?}", changed.elapsed());
    drop(reads);
    idle.push(ask());
    let begun = Instant::now();
    while server.status("/healthz") != 200 {}
    assert!(begun.elapsed() < LAST_AT_MOST / 2, "{:?}", begun.elapsed());
}

#[test]
fn the_last_hour_of_a_process_is_there_without_a_recording() {
    let server = Server::start(&HttpConfig::default());
    let watched = process(7);
    server.node.insert(Arc::clone(&watched));
    assert_eq!(server.status("/api/v1/processes/8/history"), 404);
    server.node.looked(&watched, Arc::new(golden_report()));
    let (status, answer) = server.get("/api/v1/processes/7/history", "");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let history: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(status, 200);
    let report = golden_report();
    let expected = report.goroutines.live - report.goroutines.system;
    assert_eq!(history["points"][0]["goroutines"], expected, "{history}");
}

#[test]
fn what_is_not_recorded_has_no_timeline() {
    let server = Server::start(&HttpConfig::default());
    server.node.insert(process(7));
    let (status, answer) = server.get("/api/v1/processes/7/timeline", "");
    assert!(status == 404 && answer.contains("start the agent with --record"), "{answer}");
    let dir = tempfile::tempdir().expect("a directory");
    let recording = Some(dir.path().join("none.db"));
    let server = Server::start(&HttpConfig { recording, ..HttpConfig::default() });
    server.node.insert(process(7));
    assert_eq!(server.status("/api/v1/processes/8/timeline"), 404);
    assert_eq!(server.status("/api/v1/processes/7/timeline?since=soon"), 400);
    let (status, answer) = server.get("/api/v1/processes/7/timeline", "");
    assert!(status == 500 && answer.contains("none.db"), "{answer}");
}

#[test]
fn metrics_come_in_the_format_and_encoding_that_are_asked_for() {
    let metrics = |_: &_, format| match format {
        Format::Text => b"text".repeat(100),
        Format::OpenMetrics => b"open".repeat(100),
    };
    let server = Server::with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &HttpConfig::default(), Arc::new(metrics));
    let ask = |headers: &str| {
        let mut stream = server.connect();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        (String::from_utf8_lossy(&answer[..end]).to_lowercase(), answer.split_off(end))
    };
    let (head, body) = ask("");
    assert!(head.contains("content-type: text/plain; version=0.0.4") && head.contains("vary: accept, accept-encoding"));
    assert!(!head.contains("content-encoding"), "{head}");
    assert_eq!(body, b"text".repeat(100));
    let (head, body) =
        ask("Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\nAccept-Encoding: br, GZIP;q=0.5\r\n");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(head.contains("content-encoding: gzip") && body.len() < 100, "{head}");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).expect("gzip");
    assert_eq!(plain, b"open".repeat(100));
    for not in ["identity", "gzip;q=0", "gzip; q=0.000", "gzippy", ""] {
        let (head, body) = ask(&format!("Accept-Encoding: {not}\r\n"));
        assert!(!head.contains("content-encoding") && body.len() == 400, "{not}: {head}");
    }
}

#[test]
fn the_index_of_profiles_has_those_of_each_watched_process_and_their_names_stay_text() {
    let server = Server::start(&HttpConfig::default());
    let key = ProcessKey { pid: 7, start_ticks: 1 };
    let exe = "/srv/<b onclick='x'>&\"cart".to_owned();
    let watched = Arc::new(NodeProcess::new(key, exe, Description::default(), None, None));
    server.node.insert(Arc::clone(&watched));
    server.node.insert(process(8));
    server.node.looked(&watched, Arc::new(golden_report()));
    let (status, answer) = server.get("/debug/pprof/", "");
    assert_eq!(status, 200);
    for part in [
        "text/html",
        "content-security-policy: default-src 'none'",
        "/srv/&#60;b onclick=&#39;x&#39;&#62;&#38;&#34;cart",
        "<a href=\"/debug/pprof/heap?pid=7\">heap</a>",
        "<a href=\"/debug/pprof/threadcreate?pid=7\">threadcreate</a>",
        "<a href=\"/debug/pprof/goroutine?pid=7&amp;debug=2\">full goroutine stack dump</a>",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    assert!(!answer.contains("pid=8"), "it is not watched: {answer}");
}

#[test]
fn processes_are_listed_with_their_state_and_reason() {
    let server = Server::start(&HttpConfig::default());
    let refused = process(7);
    refused.set_state(WatchState::Refused { reason: "no_layout", message: "not \"known\"".to_owned() });
    server.node.insert(refused);
    server.node.insert(process(8));
    let (_, answer) = server.get("/api/v1/processes", "");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let listing: Value = serde_json::from_str(body).expect("JSON");
    let entry = &listing["processes"][0];
    assert_eq!((&entry["pid"], &entry["state"], &entry["reason"]), (&7.into(), &"refused".into(), &"no_layout".into()));
    assert_eq!(listing["processes"][1]["state"], "starting");
    assert_eq!(server.status("/api/v1/processes/7"), 409);
    assert_eq!(server.status("/api/v1/processes/8"), 503, "not looked at yet");
}

#[test]
fn of_a_process_that_was_not_chosen_there_is_no_profile() {
    let server = Server::start(&HttpConfig::default());
    let (left_alone, starting) = (process(4_194_305), process(4_194_306));
    left_alone.set_state(WatchState::Unselected { why: "its pod says so".to_owned() });
    for process in [&left_alone, &starting] {
        server.node.insert(Arc::clone(process));
    }
    for profile in ["heap?", "goroutine?debug=2&"] {
        let (status, answer) = server.get(&format!("/debug/pprof/{profile}pid=4194305"), "");
        assert!(status == 409 && answer.contains("it is not watched: its pod says so"), "{answer}");
        // That there is no such process is found out by looking.
        let (status, answer) = server.get(&format!("/debug/pprof/{profile}pid=4194306"), "");
        assert!(status == 409 && !answer.contains("it is not watched"), "{answer}");
    }
}

#[test]
fn a_pod_that_is_several_processes_is_told_apart_by_what_a_user_knows() {
    let server = Server::start(&HttpConfig::default());
    let of = |pid: u32, namespace: &str, container: &str| {
        let process = process(pid);
        process.set_workload(Workload {
            namespace: Some(namespace.to_owned()),
            pod: Some("cart-0".to_owned()),
            container: Some(container.to_owned()),
            ..Workload::default()
        });
        server.node.insert(process);
    };
    let refused = |query: &str| {
        let (status, answer) = server.get(&format!("/debug/pprof/goroutine?pod=cart-0{query}"), "");
        assert_eq!(status, 400, "{answer}");
        answer
    };
    of(7, "shop", "app");
    of(8, "shop", "proxy");
    assert!(refused("").contains("name one with &container=: app, proxy"), "{}", refused(""));
    of(9, "shop", "app");
    assert!(refused("&container=app").contains("name one with ?pid=: 7, 9"), "{}", refused("&container=app"));
    of(10, "trial", "app");
    assert!(refused("").contains("name one with &namespace=: shop, trial"), "{}", refused(""));
    assert!(refused("&namespace=shop").contains("&container=: app, proxy"), "{}", refused("&namespace=shop"));
}

#[test]
fn all_but_metrics_and_health_take_the_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = token_file(dir.path());
    let server = Server::start(&config);
    server.node.set_ready();
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(server.status(path), 200, "{path}");
    }
    let path = "/api/v1/processes";
    for wrong in ["", "Authorization: Bearer\r\n", "Authorization: Bearer wrong\r\n", "Authorization: Basic eDp5\r\n"] {
        let (status, answer) = server.get(path, wrong);
        assert_eq!(status, 401, "{wrong}");
        assert!(answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
    }
    let short = format!("Authorization: Bearer {}\r\n", &TOKEN[1..]);
    assert_eq!(server.get(path, &short).0, 401);
    assert_eq!(server.get(path, &format!("Authorization: Bearer {TOKEN}\r\n")).0, 200);
}

#[test]
fn without_a_token_only_loopback_addresses_serve_processes() {
    let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let server = Server::listening(anywhere, &HttpConfig::default());
    assert_eq!((server.status("/metrics"), server.status("/api/v1/processes")), (200, 403));
    let on = HttpConfig { api: Switch::On, ..HttpConfig::default() };
    assert_eq!(Server::listening(anywhere, &on).status("/api/v1/processes"), 200);
    let off = HttpConfig { api: Switch::Off, ..HttpConfig::default() };
    assert_eq!(Server::start(&off).status("/api/v1/processes"), 403);
}

#[test]
fn a_token_that_can_be_guessed_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = token_file(dir.path());
    for weak in ["", "short", "with spaces in the middle of it"] {
        std::fs::write(dir.path().join("token"), weak).expect("written");
        let token = super::auth::Token::open(config.token_file.as_deref().expect("a file"));
        assert!(token.is_err(), "{weak:?}");
    }
}

#[test]
fn what_is_no_request_or_too_much_of_one_is_refused_and_service_goes_on() {
    let server = Server::start(&HttpConfig::default());
    let long = "a".repeat(1 << 20);
    let many = "X: y\r\n".repeat(1000);
    for bad in [
        "\0\0\0\0\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
    ] {
        let answer = server.say(bad.as_bytes());
        assert!(answer.is_empty() || (400..600).contains(&status(&answer)), "{bad:.40}: {answer:.200}");
    }
    let post = server.say(b"POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(status(&post), 405);
    let body =
        server.say(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n");
    assert_eq!(status(&body), 413);
    assert_eq!(server.status("/healthz"), 200);
}

#[test]
fn clients_that_say_nothing_take_no_more_than_their_places() {
    let server = Server::start(&HttpConfig::default());
    let mut idle: Vec<TcpStream> = (0..MAX_PER_ADDRESS).map(|_| server.connect()).collect();
    // One more is closed at once, and never answered.
    let answer = loop {
        let answer = server.say(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        // Those before may not have been accepted yet.
        if answer.is_empty() {
            break answer;
        }
    };
    assert_eq!(answer, "");
    // A client that sends its request byte by byte, too slowly, is let go of.
    let slow = idle.first_mut().expect("one");
    slow.write_all(b"GET / HT").expect("sent");
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer);
    idle.clear();
    while server.status("/healthz") != 200 {}
}

#[test]
fn clients_that_take_nothing_of_their_answers_are_let_go_of() {
    // More than the kernel keeps for a client that does not read.
    static ANSWER: [u8; 16 << 20] = [b'x'; 16 << 20];
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Server::answering(listen, &HttpConfig::default(), &ANSWER);
    let asked: Vec<TcpStream> = (0..MAX_PER_ADDRESS)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
            stream
        })
        .collect();
    // All places are taken at first. They are free again long before a connection has lasted as long as it may.
    let begun = Instant::now();
    while server.status("/healthz") != 200 {}
    assert!(begun.elapsed() < LAST_AT_MOST / 2, "{:?}", begun.elapsed());
    drop(asked);
}

#[test]
fn health_waits_for_nothing_that_others_wait_for() {
    const SOON: Duration = Duration::from_secs(1);
    let dir = tempfile::tempdir().expect("a directory");
    let config = token_file(dir.path());
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    // Metrics that are there when the sender is gone, one scrape after the other.
    let metrics = move |_: &_, _| {
        let _ = held.lock().map(|held| held.recv());
        Vec::new()
    };
    let server = Server::with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &config, Arc::new(metrics));
    server.node.set_ready();
    // Reading the token takes for ever, too: nobody writes to this pipe.
    let pipe = config.token_file.expect("a file");
    std::fs::remove_file(&pipe).expect("removed");
    succeeds(std::process::Command::new("mkfifo").arg(&pipe));
    let ask = |path: &str| {
        let mut stream = server.connect();
        stream.set_read_timeout(Some(SOON)).expect("a limit");
        let header = format!("Authorization: Bearer {TOKEN}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let answered = stream.read(&mut [0]).is_ok();
        (answered, stream)
    };
    // What was read of it serves for a moment.
    while ask("/api/v1/processes").0 {}
    let waiting: Vec<_> = ["/metrics", "/metrics", "/api/v1/processes"].into_iter().map(ask).collect();
    assert!(waiting.iter().all(|(answered, _)| !answered), "they are held up");
    for path in ["/healthz", "/readyz"] {
        let begun = Instant::now();
        assert_eq!(server.status(path), 200, "{path}");
        assert!(begun.elapsed() < SOON, "{path}: {:?}", begun.elapsed());
    }
    drop(release);
    // An end to the reading, and to what waits for that.
    drop(std::fs::OpenOptions::new().write(true).open(&pipe).expect("somebody reads it"));
    while !ask("/metrics").0 {}
}

fn succeeds(command: &mut std::process::Command) {
    assert!(command.status().expect("it runs").success(), "{command:?}");
}

#[test]
fn with_a_certificate_it_speaks_tls_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let config = HttpConfig { tls: Some((cert.clone(), key.clone())), ..HttpConfig::default() };
    let server = Server::start(&config);
    assert!(server.running.url().starts_with("https://"));
    assert_eq!(server.status("/healthz"), 0, "plain HTTP is not answered");

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().expect("a name");
    let connection = rustls::ClientConnection::new(Arc::new(client), name).expect("a connection");
    let mut stream = rustls::StreamOwned::new(connection, server.connect());
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert_eq!(status(&answer), 200, "{answer}");

    std::fs::write(&cert, "no certificate").expect("written");
    let error = super::tls::Certificate::open(&cert, &key).err().expect("refused").to_string();
    assert!(error.contains("cert.pem"), "{error}");
}
