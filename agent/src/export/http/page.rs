//! The agent's page in a browser: what it is made of, and what it may do.
//!
//! The page holds no data. Its script asks for them as any client does, with the token that the reader has typed in, and it
//! makes texts of all names: they are the watched programs' words. Charts and colours are those of timelines.

use crate::timeline;

/// The page, the same for the table and for each process: its script looks at the address.
pub const HTML: &str = include_str!("page/agent.html");

/// Where its style and its script are.
pub const STYLE_PATH: &str = "/page/agent.css";
pub const CODE_PATH: &str = "/page/agent.js";

/// It loads and asks for nothing but what this server has.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = include_str!("page/agent.css");
const CODE: &str = include_str!("page/agent.js");

/// How it looks.
pub fn style() -> String {
    [timeline::STYLE, STYLE].concat()
}

/// What it does.
pub fn code() -> String {
    [timeline::CHART, CODE].concat()
}

/// Whether that is the page of a process, or of the agent itself.
pub fn is_process(path: &str) -> bool {
    let pid = path.strip_prefix("/processes/");
    path == "/health" || pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
}
