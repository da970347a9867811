//! A headless Chromium, led over its pipes by the DevTools protocol: messages of JSON, each with a
//! NUL at its end, on descriptors 3 and 4.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use command_fds::{CommandFdExt, FdMapping};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::process::{Child, Command};

use crate::support::{Directory, soon};
use crate::tool::tool;

/// A browser with one tab.
pub(super) struct Browser {
    _process: Child,
    _profile: Directory,
    commands: Sender,
    answers: BufReader<Receiver>,
    session: Option<String>,
    number: u64,
    events: Vec<Value>,
}

/// What a visit has shown.
#[derive(Debug, Default)]
pub(super) struct Visit {
    /// The URL of each request.
    pub(super) requests: Vec<String>,
    /// What the browser says in its log, its console and its audits.
    pub(super) complaints: Vec<String>,
    /// In how many seconds the page is to be loaded again.
    pub(super) renewal: Option<f64>,
}

impl Browser {
    /// Starts Chromium, if it can be had.
    pub(super) async fn start() -> Option<Self> {
        const NAME: &str = "chromium-headless-shell";
        let path = tokio::task::spawn_blocking(|| tool(NAME, NAME));
        let path = path.await.expect("a thread")?;
        let mut browser = Self::open(&path);
        let tab = json!({ "url": "about:blank" });
        let tab = browser.command("Target.createTarget", tab).await;
        let attach = json!({ "targetId": tab["targetId"], "flatten": true });
        let session = browser.command("Target.attachToTarget", attach).await;
        browser.session = Some(session["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Network", "Log", "Runtime", "Audits"] {
            browser
                .command(&format!("{domain}.enable"), json!({}))
                .await;
        }
        Some(browser)
    }

    fn open(path: &Path) -> Self {
        let profile = Directory::new();
        let (its_commands, commands) = io::pipe().expect("a pipe");
        let (answers, its_answers) = io::pipe().expect("a pipe");
        let map = |parent_fd: OwnedFd, child_fd| FdMapping {
            parent_fd,
            child_fd,
        };
        let mappings = vec![map(its_commands.into(), 3), map(its_answers.into(), 4)];
        let mut command = Command::new(path);
        command
            .fd_mappings(mappings)
            .expect("two descriptors")
            // It shows nothing but pages of these tests; its sandbox does not start for root.
            .args(["--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        Self {
            _process: command.spawn().expect("a started browser"),
            _profile: profile,
            commands: Sender::from_owned_fd(commands.into()).expect("a pipe"),
            answers: BufReader::new(Receiver::from_owned_fd(answers.into()).expect("a pipe")),
            session: None,
            number: 0,
            events: Vec::new(),
        }
    }

    /// Sends a command and returns its result.
    pub(super) async fn command(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut command = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        let message = format!("{command}\0");
        self.commands
            .write_all(message.as_bytes())
            .await
            .expect("a browser that reads");
        loop {
            let mut message = self.read(method).await;
            if message["id"] == self.number {
                let result = message["result"].take();
                assert!(!result.is_null(), "{method}: {message}");
                return result;
            }
            self.events.push(message);
        }
    }

    async fn read(&mut self, what: &str) -> Value {
        let mut message = Vec::new();
        let reading = self.answers.read_until(0, &mut message);
        soon(what, reading).await.expect("a pipe");
        assert_eq!(message.pop(), Some(0), "{what}: the browser has ended");
        serde_json::from_slice(&message).expect("JSON")
    }

    /// Loads a page.
    pub(super) async fn visit(&mut self, url: &str) -> Visit {
        self.events.clear();
        self.command("Page.navigate", json!({ "url": url })).await;
        while !self
            .events
            .iter()
            .any(|event| event["method"] == "Page.loadEventFired")
        {
            let event = self.read("the page").await;
            self.events.push(event);
        }
        // What the page has caused is told before the answer to a later command.
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
            .await;
        let mut visit = Visit::default();
        for event in &self.events {
            let about = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Network.requestWillBeSent" => {
                    let url = about["request"]["url"].as_str().expect("a URL");
                    visit.requests.push(url.to_owned());
                }
                "Page.frameScheduledNavigation" => visit.renewal = about["delay"].as_f64(),
                "Log.entryAdded"
                | "Runtime.consoleAPICalled"
                | "Runtime.exceptionThrown"
                | "Audits.issueAdded" => visit.complaints.push(about.to_string()),
                _ => {}
            }
        }
        visit
    }

    /// Shows the page to a person who prefers these colours, in a window of this width.
    pub(super) async fn look(&mut self, colours: &str, width: u32) {
        let colours = json!({ "name": "prefers-color-scheme", "value": colours });
        let media = json!({ "features": [colours] });
        self.command("Emulation.setEmulatedMedia", media).await;
        let screen =
            json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.command("Emulation.setDeviceMetricsOverride", screen)
            .await;
    }

    /// Returns the value of an expression of JavaScript. The browser runs it, and no policy of the
    /// page forbids that.
    pub(super) async fn evaluate(&mut self, expression: &str) -> Value {
        let ask = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.command("Runtime.evaluate", ask).await;
        assert!(answer["exceptionDetails"].is_null(), "{answer}");
        answer["result"]["value"].take()
    }
}
