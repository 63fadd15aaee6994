//! A page opened in headless Chromium, which a script of the test works and reads.

use std::path::Path;

use serde::de::DeserializeOwned;
use xtask::{command, packages};

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
