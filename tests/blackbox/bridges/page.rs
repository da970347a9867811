//! The pages, and the configurations that stand on them.

use std::{fs, net::SocketAddr, path::Path};

use super::place::Secrets;
use crate::support::program::{ALL, Launch};

/// What every ready table has where an operator puts the API's own host and port.
const API: &str = "127.0.0.1:8080";

/// The five bridges, by the names that their pages have.
const BRIDGES: [&str; 5] = [
    "postfix-rest-connector",
    "postfix-rest-api-connector",
    "pfxhttp",
    "userli-postfix-adapter",
    "podop",
];

/// A configuration from a page.
#[derive(Clone)]
pub(crate) struct Ready(String);

impl Ready {
    /// Every configuration on a bridge's page.
    pub(crate) fn all(bridge: &str) -> Vec<Self> {
        let all = Self::on(&format!("docs/coming-from-{bridge}.md"));
        for ready in &all {
            let title = ready.title();
            assert!(title.contains(bridge), "{title:?} does not name {bridge}");
        }
        all
    }

    /// Every configuration of the guide to logins.
    pub(crate) fn logins() -> Vec<Self> {
        Self::on("docs/sasl.md")
    }

    /// The configuration of the guide to logins that has this title.
    pub(crate) fn login(title: &str) -> Self {
        let mut all = Self::logins().into_iter();
        let found = all.find(|ready| ready.title() == title);
        found.unwrap_or_else(|| panic!("docs/sasl.md has no {title:?}"))
    }

    /// Every configuration on a page.
    fn on(page: &str) -> Vec<Self> {
        let page = repository_file(page);
        let blocks = page.split("```toml\n").skip(1);
        let ready = blocks.map(|block| {
            let (text, _) = block.split_once("```").expect("an end of the block");
            assert!(text.contains(API), "no {API} in\n{text}");
            Self(text.to_owned())
        });
        ready.collect()
    }

    /// What its first line says.
    fn title(&self) -> &str {
        let first = self.0.lines().next().expect("a line");
        first.strip_prefix("# ").expect("a title")
    }

    /// What follows its first line.
    pub(crate) fn rest(&self) -> &str {
        self.0.split_once('\n').expect("a line").1
    }

    /// The first configuration on a bridge's page.
    pub(crate) fn of(bridge: &str) -> Self {
        Self::numbered(bridge, 0)
    }

    /// The configuration with this number on a bridge's page.
    pub(crate) fn numbered(bridge: &str, number: usize) -> Self {
        let mut all = Self::all(bridge);
        assert!(number < all.len(), "{bridge} has {} tables", all.len());
        all.swap_remove(number)
    }

    /// Takes the comment sign off the one line that offers this, as the page tells the reader to.
    pub(crate) fn with(self, offer: &str) -> Self {
        let commented = format!("\n#{offer}");
        assert_eq!(self.0.matches(&commented).count(), 1, "{offer}");
        Self(self.0.replace(&commented, &format!("\n{offer}")))
    }

    /// The lines that can have their comment sign taken off.
    fn offers(&self) -> Vec<String> {
        let is_offer = |line: &&str| {
            let key = line.split(' ').next().unwrap_or_default();
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        };
        let lines = self.0.lines().filter_map(|line| line.strip_prefix('#'));
        lines.filter(is_offer).map(str::to_owned).collect()
    }

    /// As it is on the page but for the address of the API.
    pub(crate) fn asking(&self, api: SocketAddr) -> String {
        self.0.replace(API, &api.to_string())
    }
}

fn repository_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Demands that every program that has a table there takes the configuration.
async fn accepted(bridge: &str, ready: &Ready) {
    let mut programs = 0;
    for binary in ALL {
        if !ready.0.contains(&format!("\n[{}.", binary.name())) {
            continue;
        }
        programs += 1;
        let secrets = Secrets::default();
        let launch = Launch::new(binary).config(ready.0.as_str());
        let end = secrets.given_to(launch).argument("--check").end().await;
        assert_eq!(end.stderr, "", "{bridge}");
        assert_eq!(end.stdout, "ok\n", "{bridge}");
        end.status(0);
    }
    for (kind, launch) in [("dict", Launch::dict()), ("sasl", Launch::sasl())] {
        if !ready.0.contains(&format!("\n[{kind}.")) {
            continue;
        }
        programs += 1;
        let secrets = Secrets::default();
        let launch = launch.config(ready.0.as_str());
        let end = secrets.given_to(launch).argument("--check").end().await;
        assert_eq!(
            (end.stdout.as_str(), end.stderr.as_str()),
            ("ok\n", ""),
            "{bridge}"
        );
    }
    assert!(programs > 0, "{bridge}: a table of no program");
}

#[tokio::test]
async fn every_ready_table_passes_the_check_without_a_warning() {
    for bridge in BRIDGES {
        let all = Ready::all(bridge);
        assert!(!all.is_empty(), "no table on the page of {bridge}");
        for ready in all {
            accepted(bridge, &ready).await;
        }
    }
    for ready in Ready::logins() {
        accepted(ready.title(), &ready).await;
    }
}

#[tokio::test]
async fn every_line_offered_in_a_ready_table_can_be_taken() {
    let mut count = 0;
    for bridge in BRIDGES {
        for ready in Ready::all(bridge) {
            for offer in ready.offers() {
                count += 1;
                accepted(bridge, &ready.clone().with(&offer)).await;
            }
        }
    }
    assert!(count > 0, "no page offers anything");
}

#[test]
fn the_readme_links_every_page() {
    let readme = repository_file("README.md");
    for bridge in BRIDGES {
        let link = format!("(docs/coming-from-{bridge}.md)");
        assert!(readme.contains(&link), "README.md has no {link}");
    }
}
