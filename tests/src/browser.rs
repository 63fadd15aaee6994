//! A page opened in headless Chromium, which a script of the test works and reads.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::{command, packages};

use crate::target::DEADLINE;
use crate::wait;

/// Runs before the page: remembers whatever goes wrong.
const WATCHMAN: &str = r#"<script>
window.wrong = [];
for (const level of ["error", "warn"]) console[level] = (...said) => window.wrong.push(level + ": " + said.join(" "));
window.addEventListener("error", (event) => window.wrong.push("error: " + event.message));
window.addEventListener("unhandledrejection", (event) => window.wrong.push("rejection: " + event.reason));
document.addEventListener("securitypolicyviolation", (event) => window.wrong.push("policy: " + event.blockedURI));
</script>"#;

/// Opens `page` in a window of this size, runs `script`, and returns what it gives to `report`. What went wrong in the
/// page meanwhile is in the global `wrong`.
///
/// # Panics
///
/// When there is no Chromium and none can be installed, or the script reports nothing.
pub fn drive<T: DeserializeOwned>(page: &str, width: u32, height: u32, script: &str) -> T {
    let driver = format!(
        "<script>const report = (value) => {{ const out = document.createElement('pre'); out.id = 'report'; \
         out.textContent = JSON.stringify(value); document.body.append(out); }};\n{script}</script></body>"
    );
    let page = page.replacen("<head>", &format!("<head>{WATCHMAN}"), 1);
    let (before, after) = page.rsplit_once("</body>").expect("a body");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("page.html");
    std::fs::write(&file, format!("{before}{driver}{after}")).expect("written");
    let dom = chromium(dir.path(), &file, width, height);
    let report = dom
        .split("<pre id=\"report\">")
        .nth(1)
        .and_then(|rest| rest.split("</pre>").next())
        .unwrap_or_else(|| panic!("the page reports nothing:\n{dom}"));
    let json = report.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u{a0}").replace("&amp;", "&");
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn chromium(profile: &Path, file: &Path, width: u32, height: u32) -> String {
    let mut chromium = packages::program("chromium").expect("Chromium opens the page");
    chromium
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.join("profile").display()))
        .arg(format!("--window-size={width},{height}"))
        .arg(format!("file://{}", file.display()));
    command::output(&mut chromium).expect("Chromium ends well")
}

/// A page in a Chromium of its own, which lives on and is worked while a test goes on; it ends when this is dropped.
#[derive(Debug)]
pub struct Tab {
    child: Child,
    commands: File,
    answers: Receiver<Value>,
    session: Option<String>,
    last: u64,
    _dir: TempDir,
}

impl Tab {
    /// Opens `url` in a window of this size.
    ///
    /// # Panics
    ///
    /// When there is no Chromium, or it does not do as it is told.
    pub fn open(url: &str, width: u32, height: u32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let chromium = packages::program("chromium").expect("Chromium opens the page");
        // Chromium takes its commands from descriptor 3 and answers on 4, which a shell can open by name.
        let [take, give] = ["take", "give"].map(|name| {
            let path = dir.path().join(name);
            mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
            path
        });
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$@\" 3<\"$TAKE\" 4>\"$GIVE\"", "sh"]).arg(chromium.get_program());
        shell.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]);
        shell.args(["--remote-debugging-pipe", "about:blank"]);
        shell.arg(format!("--user-data-dir={}", dir.path().join("profile").display()));
        shell.envs(chromium.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.env("TAKE", &take).env("GIVE", &give).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = shell.spawn().expect("Chromium runs");
        // For both ways, so that opening waits for nobody.
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path).expect("a pipe");
        let (commands, answered) = (open(&take), open(&give));
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(answered).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("JSON of Chromium");
                // Nobody listens any more once the test is over.
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut tab = Self { child, commands, answers, session: None, last: 0, _dir: dir };
        let target = tab.call("Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = tab.call("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        tab.session = attached["sessionId"].as_str().map(str::to_owned);
        tab.call("Page.enable", &json!({}));
        let watchman = WATCHMAN.trim_start_matches("<script>").trim_end_matches("</script>");
        tab.call("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": watchman }));
        tab.size(width, height);
        tab.go(url);
        tab
    }

    /// Opens another page.
    ///
    /// # Panics
    ///
    /// When Chromium does not do it.
    pub fn go(&mut self, url: &str) {
        self.call("Page.navigate", &json!({ "url": url }));
    }

    /// Has all requests for such addresses fail from now on, and no others; in an address `*` is anything.
    ///
    /// # Panics
    ///
    /// When Chromium does not do it.
    pub fn refuse(&mut self, addresses: &[&str]) {
        self.call("Network.enable", &json!({}));
        self.call("Network.setBlockedURLs", &json!({ "urls": addresses }));
    }

    /// Makes the window that large.
    ///
    /// # Panics
    ///
    /// When Chromium does not do it.
    pub fn size(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Has the reader prefer `light` or `dark`.
    ///
    /// # Panics
    ///
    /// When Chromium does not do it.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// The value of an expression in the page, or of what it promises.
    ///
    /// # Panics
    ///
    /// When it throws, or is something else.
    pub fn eval<T: DeserializeOwned>(&mut self, expression: &str) -> T {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", &asked);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        let value = answer["result"]["value"].clone();
        serde_json::from_value(value).unwrap_or_else(|error| panic!("{expression}: {error}: {answer}"))
    }

    /// Waits until an expression in the page is true.
    ///
    /// # Panics
    ///
    /// When it never is.
    pub fn wait_for(&mut self, what: &str, expression: &str) {
        let found = wait::within(DEADLINE, || self.eval::<bool>(&format!("!!({expression})")).then_some(()).ok_or(()));
        if found.is_err() {
            panic!("waited in vain for {what}: {}", self.eval::<String>("document.body.innerText"));
        }
    }

    /// What went wrong in the page so far.
    pub fn wrong(&mut self) -> Vec<String> {
        self.eval("window.wrong")
    }

    /// Presses keys: text as it is typed.
    ///
    /// # Panics
    ///
    /// When Chromium does not do it.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", &json!({ "text": text }));
    }

    /// Presses a key by its name, such as `Enter` or `Tab`.
    ///
    /// # Panics
    ///
    /// When Chromium does not do it.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            _ => panic!("no key {key:?} is known here"),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// What the window shows, as PNG in base64.
    fn picture(&mut self) -> String {
        self.call("Page.captureScreenshot", &json!({ "format": "png" }))["data"].as_str().expect("a picture").to_owned()
    }

    /// For people who work on a page: with `PARKWARDEN_PICTURES` they get a picture of what the window shows, under that name.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn look_at(&mut self, name: &str) {
        if let Some(dir) = std::env::var_os("PARKWARDEN_PICTURES") {
            std::fs::write(Path::new(&dir).join(format!("{name}.png.base64")), self.picture()).expect("written");
        }
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        write!(self.commands, "{command}\0").expect("Chromium listens");
        loop {
            let message = self.answers.recv_timeout(DEADLINE);
            let message = message.unwrap_or_else(|error| panic!("Chromium does not answer {method}: {error}"));
            if message["id"] == self.last {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        // Its other processes end with it. It has gone already if the test failed for that.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
