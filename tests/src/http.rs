//! An HTTP server in the test: it answers as the test says, and remembers what it was asked.

use std::io::{BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method, path and query.
    pub line: String,
    /// The document that came with it.
    pub body: Value,
}

/// The answer to one request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A whole document.
    Json(u16, Value),
    /// A stream that begins and says nothing for as long as the server lives, as a watch of what does not change.
    Stream,
}

/// A server on a port of its own; dropped, it and all its connections are gone.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    asked: Mutex<Vec<Request>>,
    connections: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

impl Server {
    /// Answers every request.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (shared, answer) = (Arc::new(Shared::default()), Arc::new(answer));
        let server = Self { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.ended.load(Ordering::Acquire) {
                    break;
                }
                let (shared, answer) = (Arc::clone(&shared), Arc::clone(&answer));
                shared.connections.lock().expect("no panic").push(stream.try_clone().expect("a descriptor is free"));
                // A client that went away is no failure of the server.
                std::thread::spawn(move || serve(&stream, &shared, &*answer));
            }
        });
        server
    }

    /// Where it listens, such as `http://127.0.0.1:8080`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    ///
    /// # Panics
    ///
    /// When answering one panicked.
    pub fn asked(&self) -> Vec<Request> {
        self.shared.asked.lock().expect("no panic").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // It is woken by this.
        let _ = TcpStream::connect(self.address);
        for connection in self.shared.connections.lock().iter().flat_map(|connections| connections.iter()) {
            // Fails when the client was faster.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// One connection, until it ends.
fn serve(mut stream: &TcpStream, shared: &Shared, answer: &dyn Fn(&Request) -> Answer) -> Option<()> {
    let mut input = BufReader::new(stream);
    loop {
        let request = request(&mut input)?;
        let answer = answer(&request);
        shared.asked.lock().ok()?.push(request);
        let (head, body) = match answer {
            Answer::Json(status, body) => {
                let body = body.to_string();
                (format!("HTTP/1.1 {status} -\r\ncontent-length: {}\r\n", body.len()), body)
            }
            Answer::Stream => ("HTTP/1.1 200 -\r\ntransfer-encoding: chunked\r\n".to_owned(), String::new()),
        };
        write!(stream, "{head}content-type: application/json\r\n\r\n{body}").ok()?;
    }
}

fn request(input: &mut impl std::io::BufRead) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let length = lines.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    input.read_exact(&mut body).ok()?;
    let line = lines.first()?.trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request { line, body: serde_json::from_slice(&body).unwrap_or_default() })
}
