//! The request that a goroutine serves which is in a handler of `net/http`: method and path.
//!
//! `net/http.Request` has had its fields in the same places in all versions since Go 1.7 (src/net/http/request.go). Which of the
//! words on a stack is one, the struct itself tells: it has a method, `HTTP/` and a version, and what only a server's has, the
//! client's address and the target of its request line. A handler that sends a request of its own has two; that of a server lies
//! further out.
//!
//! The memory is the target's, and may say anything: what makes no sense is none.

use std::collections::HashSet;

use super::census::Goroutine;
use super::{Memory, Request as Read, bytes_at, word_at};
use crate::golang::Frame;

/// What is read of a `Request`: up to and with `RequestURI`.
const SIZE: usize = 208;
const METHOD: usize = 0;
const PROTO: usize = 24;
const REMOTE_ADDR: usize = 176;
const REQUEST_URI: usize = 192;

/// Longest method, version and address that are believed, and longest target.
const MAX_METHOD: u64 = 24;
const MAX_PROTO: u64 = 8;
const MAX_REMOTE_ADDR: u64 = 128;
const MAX_URI: u64 = 8192;

/// How much of a target is read: what is longer is cut.
const MAX_PATH: usize = 256;

/// Outermost bytes of a stack that are searched: the server's own calls, and the first of the handler's.
const SEARCHED: u64 = 16 << 10;

/// What serves a request: HTTP/1, and HTTP/2 of the standard library until Go 1.26 and since, and of x/net.
const SERVERS: [&str; 4] = [
    "net/http.(*conn).serve",
    "net/http.(*http2serverConn).runHandler",
    "net/http/internal/http2.(*serverConn).runHandler",
    "golang.org/x/net/http2.(*serverConn).runHandler",
];

/// Whether a goroutine with this stack serves a request.
pub fn serves(stack: &[Frame]) -> bool {
    stack.iter().any(|frame| SERVERS.contains(&frame.function.as_str()))
        && stack.iter().any(|frame| frame.function.ends_with(".ServeHTTP"))
}

/// Method and path of the request that a goroutine serves, `GET /search`: without the query, which may have secrets.
pub fn of(memory: &dyn Memory, goroutine: &Goroutine) -> Option<String> {
    let from = goroutine.resume().1.max(goroutine.stack_hi.saturating_sub(SEARCHED)) & !7;
    let len = goroutine.stack_hi.checked_sub(from).filter(|len| *len <= SEARCHED)?;
    let stack = bytes_at(memory, from, len as usize)?;
    let mut seen = HashSet::new();
    // The outermost first.
    let words = (0..stack.len() / 8).rev().filter_map(|index| word_at(&stack, 8 * index));
    let may_point = |word: &u64| {
        word.is_multiple_of(8) && *word >= 1 << 16 && !(goroutine.stack_lo..goroutine.stack_hi).contains(word)
    };
    let words: Vec<u64> = words.filter(may_point).filter(|word| seen.insert(*word)).collect();
    let mut structs = vec![[0; SIZE]; words.len()];
    let mut reads: Vec<Read<'_>> =
        words.iter().zip(&mut structs).map(|(address, buf)| Read { address: *address, buf, ok: false }).collect();
    memory.read_many(&mut reads).ok()?;
    let read: Vec<bool> = reads.iter().map(|read| read.ok).collect();
    structs.iter().zip(read).filter(|(_, ok)| *ok).find_map(|(bytes, _)| request(memory, bytes))
}

/// Of what may be a server's request.
fn request(memory: &dyn Memory, bytes: &[u8; SIZE]) -> Option<String> {
    let text = |at: usize, most: u64, read: usize| -> Option<Vec<u8>> {
        let len = word_at(bytes, at + 8).filter(|len| (1..=most).contains(len))?;
        Some(bytes_at(memory, word_at(bytes, at)?, (len as usize).min(read))?.into_owned())
    };
    // What is told by lengths alone first.
    word_at(bytes, REMOTE_ADDR + 8).filter(|len| (1..=MAX_REMOTE_ADDR).contains(len))?;
    text(PROTO, MAX_PROTO, MAX_PROTO as usize).filter(|proto| proto.starts_with(b"HTTP/"))?;
    let method = text(METHOD, MAX_METHOD, MAX_METHOD as usize)?;
    method.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-').then_some(())?;
    let uri = text(REQUEST_URI, MAX_URI, MAX_PATH)?;
    let whole = String::from_utf8_lossy(&uri);
    let path = whole.split(['?', '#']).next().unwrap_or_default();
    Some(format!("{} {path}", String::from_utf8_lossy(&method)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::census::Status;
    use crate::memory::image::Image;

    const STACK: u64 = 0xc000_1000;
    const OURS: u64 = 0xc000_8000;
    const THEIRS: u64 = 0xc000_9000;
    const TEXT: u64 = 0xc000_a000;

    /// Puts a request there, with texts of its own from `texts` on.
    fn put(image: &mut Image, at: u64, texts: u64, [method, proto, remote, uri]: [&str; 4]) {
        let mut words = [0; SIZE / 8];
        let fields = [(METHOD, method), (PROTO, proto), (REMOTE_ADDR, remote), (REQUEST_URI, uri)];
        for (index, (field, text)) in fields.into_iter().enumerate() {
            let address = texts + 0x400 * index as u64;
            image.insert(address, text.as_bytes().to_vec());
            (words[field / 8], words[field / 8 + 1]) = (address, text.len() as u64);
        }
        image.insert_words(at, &words);
    }

    fn served(requests: &[(u64, [&str; 4])], stack: &[u64]) -> Option<String> {
        let mut image = Image::default();
        for (index, (at, texts)) in requests.iter().enumerate() {
            put(&mut image, *at, TEXT + 0x1000 * index as u64, *texts);
        }
        image.insert_words(STACK, stack);
        let hi = STACK + 8 * stack.len() as u64;
        let goroutine = Goroutine {
            status: Status::Waiting,
            stack_lo: STACK,
            stack_hi: hi,
            sp: STACK,
            pc: 1,
            ..Goroutine::default()
        };
        of(&image, &goroutine)
    }

    #[test]
    fn the_servers_request_is_told_without_its_query() {
        let ours = (OURS, ["POST", "HTTP/1.1", "10.0.0.7:4242", "/pay?card=4111"]);
        // One that the handler sends has no address and no line of its own.
        let theirs = (THEIRS, ["GET", "HTTP/1.1", "", ""]);
        let stack = [7, THEIRS, STACK + 8, 0, OURS, u64::MAX, 0x1234_5678];
        assert_eq!(served(&[ours, theirs], &stack).as_deref(), Some("POST /pay"));
        assert_eq!(served(&[theirs], &[THEIRS]), None);
    }

    #[test]
    fn what_is_no_request_is_none() {
        let with = |texts| served(&[(OURS, texts)], &[OURS]);
        assert_eq!(with(["GET", "HTTP/2.0", "@", "/"]).as_deref(), Some("GET /"));
        assert_eq!(with(["GET", "SPDY/3", "10.0.0.7:1", "/"]), None);
        assert_eq!(with(["\u{1b}[31m", "HTTP/1.1", "10.0.0.7:1", "/"]), None);
        assert_eq!(with(["", "HTTP/1.1", "10.0.0.7:1", "/"]), None);
        assert_eq!(served(&[], &[OURS, 8, u64::MAX - 7]), None);
    }
}
