//! An agent on a node where others mean harm: programs that lie, executables that are made to be misread, and clients of
//! its HTTP server that are hostile. It goes on with its work, and its counters tell.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use parkwarden::clock::unix_now_ns;
use parkwarden_tests::node::Node;
use parkwarden_tests::target::Target;
use parkwarden_tests::{BuildFlags, fixture};
use serde_json::Value;
use xtask::packages;
use xtask::toolchain::NEWEST;

use super::watch::EACH;

const TOKEN: &str = "a-token-nobody-can-guess-0123456789";

/// Far longer than a look at an honest process takes, far shorter than following a lie would.
const LOOKED_WITHIN: f64 = 20.0;

/// What begins as Go's build information does (`debug/buildinfo`, Go 1.18 and later), with a version that is known.
fn build_info(version: &str) -> Vec<u8> {
    let mut bytes = b"\xff Go buildinf:\x08\x02".to_vec();
    bytes.resize(32, 0);
    bytes.push(version.len() as u8);
    bytes.extend(version.as_bytes());
    // No module.
    bytes.push(0);
    bytes
}

/// Starts a program that is none of Go's, with sections that say otherwise.
fn impostor(dir: &Path, name: &str, sections: &[(&str, Vec<u8>)]) -> std::process::Child {
    let program = dir.join(name);
    let mut objcopy = packages::program("objcopy").expect("installed");
    for (index, (section, bytes)) in sections.iter().enumerate() {
        let file = dir.join(format!("{name}.{index}.section"));
        fs::write(&file, bytes).expect("written");
        objcopy.arg("--add-section").arg(format!("{section}={}", file.display()));
        objcopy.arg("--set-section-flags").arg(format!("{section}=alloc,readonly,data"));
    }
    let output = objcopy.arg("/bin/sleep").arg(&program).output().expect("objcopy runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut command = Command::new(&program);
    command.arg("600").stdin(Stdio::null()).stdout(Stdio::null());
    parkwarden_tests::target::spawn(&mut command).expect("it runs")
}

/// Ended when dropped.
struct Impostors(Vec<std::process::Child>);

impl Drop for Impostors {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The address in an agent's URL.
pub(crate) fn address(node: &Node) -> &str {
    node.url.strip_prefix("http://").expect("plain HTTP")
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    stream
}

/// Sends bytes; the answer's status, none if there was no answer.
fn say(node: &Node, bytes: &[u8]) -> Option<u16> {
    ask(address(node), bytes)
}

pub(crate) fn ask(address: &str, bytes: &[u8]) -> Option<u16> {
    let mut stream = connect(address);
    // It may close before it has read all of it.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

pub(crate) fn get(path: &str, header: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{header}\r\n").into_bytes()
}

/// The sum of a metric's series whose labels have `part`.
fn count(node: &Node, metric: &str, part: &str) -> f64 {
    let series = node.series(metric);
    series.iter().filter(|(labels, _)| labels.contains(part)).map(|(_, value)| value).sum()
}

#[test]
fn it_goes_on_among_programs_that_lie_and_clients_that_mean_harm() {
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    fs::write(&token, TOKEN).expect("written");
    let copy = |name: &str, version: &str| {
        let program = dir.path().join(name);
        fs::copy(fixture(name, version, BuildFlags::Default), &program).expect("copied");
        program
    };
    let (honest, _): (_, Value) = Target::ready(&copy("leaks", NEWEST), ["-n", EACH]);
    let hostile = copy("hostile", "1.22.10");
    let liars: Vec<Target> = ["length", "cycle", "unmapped", "null", "stacks", "bounds"]
        .map(|lie| {
            let (target, _): (_, Value) = Target::ready(&hostile, [lie]);
            target
        })
        .into();
    let (hanging, _): (_, Value) = Target::ready(&hostile, ["hang"]);
    let junk = |bytes: usize| (0..bytes).map(|index| (index * 31 % 251) as u8).collect::<Vec<u8>>();
    // A function table that begins as one and says that it has all functions there can be.
    let mut endless = b"\xf1\xff\xff\xff\x00\x00\x01\x08".to_vec();
    endless.extend([0xff; 64]);
    endless.extend(junk(1 << 16));
    let impostors = Impostors(vec![
        impostor(dir.path(), "junk", &[(".go.buildinfo", build_info("go1.27.3")), (".gopclntab", junk(1 << 20))]),
        impostor(dir.path(), "endless", &[(".go.buildinfo", build_info("go1.22.10")), (".gopclntab", endless)]),
        impostor(dir.path(), "future", &[(".go.buildinfo", build_info("go9.99.9"))]),
        impostor(dir.path(), "cut", &[(".go.buildinfo", b"\xff Go buildinf:".to_vec())]),
    ]);

    let pattern = format!("{}/*", dir.path().display());
    let token_file = token.to_str().expect("a path");
    let mut node = Node::start(&pattern, &["--interval", "500ms", "--threshold", "0s", "--token-file", token_file]);
    node.token = Some(TOKEN.to_owned());
    node.wait_for_state(honest.pid(), "watched");
    for liar in &liars {
        node.wait_for("a liar that is watched or refused", |node| {
            let process = node.process(liar.pid())?;
            matches!(process["state"].as_str(), Some("watched" | "refused")).then_some(())
        });
    }
    let refused = |pid: u32| {
        node.wait_for(&format!("the refusal of {pid}"), |node| {
            let process = node.process(pid)?;
            (process["state"] == "refused").then(|| process["message"].as_str().unwrap_or_default().to_owned())
        })
    };
    for impostor in &impostors.0[..3] {
        assert!(!refused(impostor.id()).is_empty(), "a refusal has a reason");
    }
    let in_metrics: f64 = node.series("parkwarden_processes_refused").iter().map(|(_, count)| count).sum();
    assert!(in_metrics >= 3.0, "{in_metrics}");

    // Profiles of a process whose memory never answers take no more than a while, and no other one's place.
    let profile_of =
        |pid: u32| get(&format!("/debug/pprof/goroutine?pid={pid}"), &format!("Authorization: Bearer {TOKEN}\r\n"));
    let (url, request) = (address(&node).to_owned(), profile_of(hanging.pid()));
    let of_hanging = std::thread::spawn(move || ask(&url, &request));

    // Clients that mean harm, all at once.
    let seconds = |node: &Node| node.report(honest.pid()).expect("the honest process is watched").observed.seconds;
    let (before, begun) = (seconds(&node), Instant::now());
    let silent: Vec<TcpStream> = (0..8).map(|_| connect(address(&node))).collect();
    let mut slow = connect(address(&node));
    slow.write_all(b"GET /metrics HT").expect("sent");
    let long = "a".repeat(1 << 20);
    for bad in [
        b"\0\x16\x03\x01\0\0\r\n\r\n".to_vec(),
        get(&format!("/{long}"), ""),
        get("/metrics", &format!("X-Long: {long}\r\n")),
        get("/metrics", &"X: y\r\n".repeat(1000)),
        get("/api/v1/processes/%00%ff%2e%2e", &format!("Authorization: Bearer {TOKEN}\r\n")),
        b"POST /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc".to_vec(),
    ] {
        let status = say(&node, &bad);
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "{:?}: {status:?}", &bad[..20]);
    }
    let unauthorized = count(&node, "parkwarden_http_answers_total", "code=\"401\"");
    for guess in ["", "Authorization: Bearer\r\n", "Authorization: Bearer a-token\r\n", "Authorization: Basic eDp5\r\n"]
    {
        assert_eq!(say(&node, &get("/api/v1/processes", guess)), Some(401), "{guess:?}");
        assert_eq!(say(&node, &get("/debug/pprof/goroutine?pid=1", guess)), Some(401), "{guess:?}");
    }
    assert_eq!(count(&node, "parkwarden_http_answers_total", "code=\"401\""), unauthorized + 8.0);
    // Places are limited for each address: those who take them all are not heard, and counted.
    let crowd: Vec<TcpStream> = (0..64).map(|_| connect(address(&node))).collect();
    drop((crowd, silent));
    node.wait_for("a place among the connections", |node| (say(node, &get("/healthz", "")) == Some(200)).then_some(()));
    assert!(count(&node, "parkwarden_http_connections_total", "outcome=\"refused\"") > 0.0);
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(String::from_utf8_lossy(&rest).lines().all(|line| !line.starts_with("parkwarden_")), "half a request");

    // All the while the honest process was watched, and those that lie cost no more than their share.
    node.wait_for("later looks at the honest process", |node| {
        let passed = begun.elapsed().as_secs_f64();
        (seconds(node) >= before + (passed - LOOKED_WITHIN).max(1.0)).then_some(())
    });
    let at = count(&node, "parkwarden_process_last_look_timestamp_seconds", &format!(",pid=\"{}\"", honest.pid()));
    let age = unix_now_ns() as f64 / 1e9 - at;
    assert!(age < LOOKED_WITHIN, "the honest process was not looked at for {age} s");
    assert_eq!(node.get("/healthz").0, 200);
    assert_eq!(say(&node, &profile_of(honest.pid())), Some(200));
    assert_eq!(of_hanging.join().expect("no panic"), Some(504));
    assert_eq!(say(&node, &profile_of(hanging.pid())), Some(504));
    let state = node.process(hanging.pid()).expect("it is known")["state"].clone();
    assert_eq!(state, "starting", "reading its memory takes for ever");
    let said = node.said();
    assert!(said.iter().all(|line| !line.contains("panicked")), "{said:#?}");
    let (status, took) = node.end();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(5), "it took {took:?} to let go of all");
}
