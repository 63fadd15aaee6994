//! The timeline as one page that needs nothing else: its style, script and data are inside.
//!
//! Names and paths come from the watched program and may be anything. The data is JSON in which no character can end
//! the script element it stands in, and the script puts texts into the page as texts.

use super::Timeline;

const PAGE: &str = include_str!("page.html");
/// How pages look.
pub const STYLE: &str = include_str!("page.css");
/// The charts, and what a page's script is made of.
pub const CHART: &str = include_str!("chart.js");
const CODE: &str = include_str!("page.js");

/// The page.
pub fn render(timeline: &Timeline) -> String {
    // Everything in a timeline has a JSON form.
    let data = serde_json::to_string(timeline).unwrap_or_default();
    PAGE.replace("/* style */", STYLE)
        .replace("/* code */", &[CHART, CODE].concat())
        .replace("/* data */", &inert(&data))
}

/// JSON without the characters that mean something to HTML, or that older scripts take for ends of lines.
fn inert(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_leave_its_element_and_stays_what_it_is() {
        let text = "</script><script>alert(1)</script><!-- & \u{2028}\u{2029} \"\\";
        let json = serde_json::to_string(text).expect("a string");
        let safe = inert(&json);
        assert!(!safe.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&safe).expect("still JSON"), text);
    }

    #[test]
    fn the_page_has_all_its_parts_and_asks_for_nothing() {
        let timeline = Timeline::of(Vec::new());
        let page = render(&timeline);
        for marker in ["/* style */", "/* code */", "/* data */"] {
            assert!(PAGE.contains(marker) && !page.contains(marker), "{marker}");
        }
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("@import"));
        assert!(!page.contains("innerHTML") && !page.contains("eval("));
        assert!(page.contains("default-src 'none'"));
    }
}
