//! An API server that follows a script: the real client talks to it over a real socket, and it may say anything.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The answer to one request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// A whole document.
    Json(u16, Value),
    /// A stream of chunks, as a watch is.
    Stream(Vec<Chunk>),
    /// These bytes, and the connection closed.
    Raw(&'static [u8]),
    /// None, and the connection stays.
    Silence,
}

/// A part of a stream.
#[derive(Clone, Debug)]
pub(super) enum Chunk {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing until the test says so.
    Wait(Arc<Notify>),
    /// The regular end.
    End,
    /// The connection is closed in the middle.
    Cut,
}

/// What was asked.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Method, path and query.
    pub(super) line: String,
    /// The document that came with it.
    pub(super) body: Value,
}

/// A server; dropped, it and all its connections are gone.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Request>>>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Answers one request after the other, and those that follow with silence.
    pub(super) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), answers).await
    }

    /// The same at an address, which an earlier server may have had.
    pub(super) async fn at(address: SocketAddr, answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind(address).await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        let mut tasks = JoinSet::new();
        let log = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&log), Arc::clone(&script)));
            }
        });
        Self { address, asked, tasks }
    }

    /// All requests so far.
    pub(super) fn asked(&self) -> Vec<Request> {
        self.asked.lock().expect("no panic").clone()
    }

    /// Ends it and every connection.
    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn serve(mut stream: TcpStream, log: Arc<Mutex<Vec<Request>>>, script: Arc<Mutex<VecDeque<Answer>>>) {
    while let Some(request) = request(&mut stream).await {
        // Answers go to requests in the order in which these are told.
        let answer = {
            let mut log = log.lock().expect("no panic");
            log.push(request);
            script.lock().expect("no panic").pop_front().unwrap_or(Answer::Silence)
        };
        // A client that went away is no failure of the server.
        let stays = reply(&mut stream, answer).await.unwrap_or(false);
        if !stays {
            return;
        }
    }
}

async fn request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    while bytes.len() < head + length.unwrap_or(0) {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let line = text.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request { line, body: serde_json::from_slice(&bytes[head..]).unwrap_or_default() })
}

/// Whether the connection stays for another request.
async fn reply(stream: &mut TcpStream, answer: Answer) -> std::io::Result<bool> {
    match answer {
        Answer::Json(status, body) => {
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
            Ok(true)
        }
        Answer::Stream(chunks) => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            for chunk in chunks {
                match chunk {
                    Chunk::Bytes(bytes) => {
                        stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
                        stream.write_all(&bytes).await?;
                        stream.write_all(b"\r\n").await?;
                        stream.flush().await?;
                    }
                    Chunk::Wait(signal) => signal.notified().await,
                    Chunk::End => {
                        stream.write_all(b"0\r\n\r\n").await?;
                        return Ok(true);
                    }
                    Chunk::Cut => return Ok(false),
                }
            }
            std::future::pending().await
        }
        Answer::Raw(bytes) => {
            stream.write_all(bytes).await?;
            Ok(false)
        }
        Answer::Silence => std::future::pending().await,
    }
}
