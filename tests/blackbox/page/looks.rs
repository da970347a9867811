//! The page as a browser shows it, and as a validator reads it.

use std::fs;
use std::process::Command;

use super::browser::Browser;
use super::{in_trouble, url};
use crate::metrics::page;
use crate::support::{
    Directory, Wrong,
    backend::{Backend, response},
};
use crate::tool::tool;

/// Every text whose colour is too near to that of its ground for people to read (WCAG 2.2, 1.4.3),
/// and every picture of it (1.4.11).
const FAINT: &str = r#"
(() => {
  const parts = color => color.match(/[\d.]+/g).map(Number);
  const light = color => {
    const [r, g, b] = parts(color).map(c => c / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((parts(color)[3] ?? 1) === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const [text, element] = [walker.currentNode.data.trim(), walker.currentNode.parentElement];
    const ratio = contrast(getComputedStyle(element).color, ground(element));
    if (text && ratio < 4.5) faint.push(`${text}: ${ratio}`);
  }
  for (const path of document.querySelectorAll("path.failed")) {
    const ratio = contrast(getComputedStyle(path).fill, ground(path));
    if (ratio < 3) faint.push(`a bar: ${ratio}`);
  }
  return faint;
})()
"#;

/// The elements that reach over the edge of the window.
const TOO_WIDE: &str = r#"
[...document.querySelectorAll("body *")]
  .filter(e => { const b = e.getBoundingClientRect(); return b.right > innerWidth + 0.5 || b.left < -0.5 })
  .map(e => e.outerHTML.slice(0, 80))
  .concat(document.documentElement.scrollWidth > innerWidth ? ["the page"] : [])
"#;

/// Nothing, as a list of JavaScript.
fn nothing() -> serde_json::Value {
    serde_json::json!([])
}

#[tokio::test]
async fn a_browser_shows_it_in_every_light_and_width_and_loads_nothing_else() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let (program, _backends) = in_trouble().await;
    let mut wrong = Wrong::default();
    let mut grounds = Vec::new();
    for (colours, width) in [
        ("light", 1200),
        ("dark", 1200),
        ("light", 400),
        ("dark", 400),
    ] {
        let what = format!("{colours}, {width} px");
        browser.look(colours, width).await;
        let page = url(&program, "/");
        let visit = browser.visit(&page).await;
        let is_alone = visit
            .requests
            .iter()
            .all(|url| *url == page || url.starts_with("data:"));
        wrong.require(&what, is_alone, || format!("{:?}", visit.requests));
        wrong.require(&what, visit.complaints.is_empty(), || {
            visit.complaints.join("\n")
        });
        wrong.require(&what, visit.renewal == Some(10.0), || {
            format!("{:?}", visit.renewal)
        });
        for check in [FAINT, TOO_WIDE] {
            let found = browser.evaluate(check).await;
            wrong.require(&what, found == nothing(), || found.to_string());
        }
        // The style is in force: the policy has not shut it out.
        let ground = browser
            .evaluate("getComputedStyle(document.body).backgroundColor")
            .await;
        grounds.push(ground);
        let text = browser.evaluate("document.body.innerText").await;
        let text = text.as_str().expect("a text");
        for words in [
            "Needs attention",
            "broken: targets down: http://127.0.0.1:",
            " (1 of 1)",
            "down since",
            "2 of 2 requests failed in the last minute, last: backend down",
            "limit \u{201c}per-login\u{201d} reached 1 time in the last minute",
            "50 % of requests answered from it",
        ] {
            wrong.require(&what, text.contains(words), || {
                format!("no {words:?} in {text}")
            });
        }
    }
    wrong.none();
    assert_ne!(grounds[0], grounds[1]);
    assert_eq!(grounds[..2], grounds[2..]);
    let visit = browser.visit(&url(&program, "/?stay")).await;
    assert_eq!(visit.renewal, None);
}

#[tokio::test]
async fn what_the_browser_finds_is_found() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let (program, _backends) = in_trouble().await;
    let (head, text) = page(&program, "/").await;
    let policy = head
        .lines()
        .find_map(|line| line.strip_prefix("content-security-policy: "));
    let policy = policy.expect("a policy");
    let spoilt = text.replace(
        "<main>",
        "<main><img src=\"http://127.0.0.1:1/x\"><p style=\"width: 3000px\">wide</p>\
         <script>document.title = 'run'</script>",
    );
    let served = |policy: &str| {
        let headers = [
            ("Content-Type", "text/html"),
            ("Content-Security-Policy", policy),
        ];
        Backend::always(response(200, &headers, &spoilt))
    };
    let strict = served(policy);
    let visit = browser.visit(&strict.url("/")).await;
    let complaints = visit.complaints.join("\n");
    for what in ["img-src", "style-src", "script-src"] {
        assert!(complaints.contains(what), "no {what} in {complaints}");
    }
    assert_ne!(browser.evaluate("document.title").await, "run");
    assert_eq!(browser.evaluate(TOO_WIDE).await, nothing());

    let lax = served("default-src *; style-src 'unsafe-inline'; script-src 'unsafe-inline'");
    let visit = browser.visit(&lax.url("/")).await;
    assert!(
        visit.requests.contains(&"http://127.0.0.1:1/x".to_owned()),
        "{visit:?}"
    );
    assert_eq!(browser.evaluate("document.title").await, "run");
    assert_ne!(browser.evaluate(TOO_WIDE).await, nothing());
    let grey = "document.body.style.color = '#999'; document.body.style.background = '#ccc'";
    browser.evaluate(grey).await;
    assert_ne!(browser.evaluate(FAINT).await, nothing());
}

#[tokio::test]
async fn a_validator_has_no_complaint() {
    let Some(tidy) = tool("tidy", "tidy") else {
        return;
    };
    let (program, _backends) = in_trouble().await;
    let folder = Directory::new();
    let complaints = |text: &str| {
        let path = folder.join("page.html");
        fs::write(&path, text).expect("a written page");
        let output = Command::new(&tidy)
            .args(["-quiet", "-errors", "-utf8"])
            .arg(&path)
            .output();
        let output = output.expect("tidy starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    for path in ["/", "/?stay"] {
        let (_, text) = page(&program, path).await;
        assert_eq!(complaints(&text), (Some(0), String::new()), "{text}");
        for (good, bad) in [
            ("</article>", ""),
            ("<dl>", "<dl><p>text</p>"),
            ("<title>", "<titel>"),
            (" id=\"table-1\"", " id=\"table-0\""),
            ("<main>", "<main class=\"a\" class=\"b\">"),
        ] {
            let (status, said) = complaints(&text.replacen(good, bad, 1));
            assert_ne!(status, Some(0), "{bad}: {said}");
        }
    }
}
