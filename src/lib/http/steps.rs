//! The step that a call has come to, so that a message can name what it waited for, and where.
//!
//! reqwest reports neither. On its way it calls code of ours: the resolver, the verifier of
//! certificates, and the body, even an empty one, as soon as it has a connection for it. A task-local
//! leads from the first two to the call, because reqwest passes nothing through. (A layer around its
//! connector would see more, and makes each request copy three boxes: 5 % of its cost.)

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio::time::Instant;

use crate::config::{Proxy, Transport};
use crate::sync::Mutex;

tokio::task_local! {
    static CURRENT: Steps;
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The addresses of a host.
    Lookup,
    /// A connection, from the first look for one.
    Connection,
    /// The TLS handshake.
    Handshake,
    /// The head of the answer.
    Answer,
    /// The rest of the answer.
    Body,
}

/// The steps of one call. They outlive it, since its deadline may cut it off.
#[derive(Clone, Debug)]
pub struct Steps(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    step: Step,
    /// When the call was sent first.
    first_began: Option<Instant>,
    /// When it was sent last: again, or to where a redirect leads.
    began: Instant,
    /// The addresses of the host that was looked up.
    addresses: Vec<IpAddr>,
}

impl Steps {
    /// Makes the steps of a call that begins at this moment.
    pub fn new(began: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            step: Step::Connection,
            first_began: None,
            began,
            addresses: Vec::new(),
        })))
    }

    /// Runs a call that is sent at this moment, and notes its steps until the head of its answer has
    /// come.
    pub async fn follow<T, E>(
        &self,
        now: Instant,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        {
            let mut state = self.0.lock();
            state.step = Step::Connection;
            state.first_began.get_or_insert(now);
            state.began = now;
            state.addresses.clear();
        }
        let answer = CURRENT.scope(self.clone(), call).await;
        if answer.is_ok() {
            self.enter(Step::Body);
        }
        answer
    }

    /// Notes that the request is being sent: from then on the backend may act on it.
    pub fn note_sending(&self) {
        self.enter(Step::Answer);
    }

    /// Returns whether any of the request may have been sent.
    pub fn has_sent(&self) -> bool {
        matches!(self.0.lock().step, Step::Answer | Step::Body)
    }

    /// Returns how long ago the call was sent first.
    fn elapsed(&self) -> Duration {
        let state = self.0.lock();
        state.first_began.unwrap_or(state.began).elapsed()
    }

    /// Returns how long ago the call was sent last.
    fn elapsed_of_last(&self) -> Duration {
        self.0.lock().began.elapsed()
    }

    fn enter(&self, step: Step) {
        self.0.lock().step = step;
    }
}

/// Notes a step of the call that this task makes, if it makes one.
pub fn note(step: Step) {
    // A connection may also be opened in the background.
    let _ = CURRENT.try_with(|steps| steps.enter(step));
}

/// Notes the addresses of a host, with which a connection is opened next.
pub fn note_addresses(addresses: &[SocketAddr]) {
    let _ = CURRENT.try_with(|steps| {
        let mut state = steps.0.lock();
        state.step = Step::Connection;
        state.addresses = addresses.iter().map(SocketAddr::ip).collect();
    });
}

impl State {
    /// Returns a host, the addresses to which a connection to it is opened, or its name and port.
    fn place(&self, url: &Url) -> String {
        /// A host behind which many servers are has more.
        const SHOWN: usize = 3;
        match self.step {
            Step::Lookup => url.host_str().unwrap_or_default().to_owned(),
            Step::Connection | Step::Handshake if !self.addresses.is_empty() => {
                let port = url.port_or_known_default().unwrap_or_default();
                let addresses = self.addresses.iter().take(SHOWN);
                let addresses = addresses.map(|ip| SocketAddr::new(*ip, port).to_string());
                addresses.collect::<Vec<_>>().join(", ")
            }
            _ => host_and_port(url),
        }
    }
}

fn host_and_port(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

/// Where a call goes, and its steps.
#[derive(Clone, Copy, Debug)]
pub struct Way<'c> {
    /// The steps.
    pub steps: &'c Steps,
    /// The URL that is called.
    pub url: &'c Url,
    /// How connections are made.
    pub transport: &'c Transport,
    /// Whether anything has ever answered there.
    pub is_known: bool,
    /// Whether it is sent once only where it may have arrived.
    pub is_sent_once: bool,
}

impl Way<'_> {
    /// Returns what a call had waited for when its time was over, and how long it took with all that
    /// was sent again.
    pub fn late(&self) -> String {
        self.waited(self.steps.elapsed())
    }

    /// Returns what a call had waited for when the time of its connection was over, and how long.
    pub fn late_connection(&self) -> String {
        self.waited(self.steps.elapsed_of_last())
    }

    fn waited(&self, time: Duration) -> String {
        let step = self.steps.0.lock().step;
        let place = self.place();
        let what = match step {
            Step::Lookup => format!("no address of {place}"),
            Step::Connection => format!("no connection to {place}"),
            Step::Handshake => format!("no TLS handshake with {place}"),
            Step::Answer => format!("no answer from {place}"),
            Step::Body => format!("no end of the answer from {place}"),
        };
        let after = time.as_secs_f32();
        let hint = match step {
            Step::Lookup => "; does the name server answer?",
            _ => "",
        };
        format!("{what} after {after:.1} s{hint}")
    }

    /// Returns the place where the call is: a host whose addresses are not known, the addresses to
    /// which a connection is opened, or the target; and the proxy before it.
    pub fn place(&self) -> String {
        if let Some(path) = &self.transport.unix_socket {
            return path.display().to_string();
        }
        let state = self.steps.0.lock();
        let is_connecting = matches!(state.step, Step::Lookup | Step::Connection);
        let proxy = match &self.transport.proxy {
            Proxy::None => return state.place(self.url),
            Proxy::Environment if is_connecting => {
                return format!("{}, or the proxy of the environment", state.place(self.url));
            }
            Proxy::Environment => return state.place(self.url),
            Proxy::Url(proxy) => proxy,
        };
        let is_plain = self.url.scheme() == "http";
        match state.step {
            Step::Lookup => format!("the proxy {}", state.place(proxy)),
            Step::Connection | Step::Handshake if is_plain => {
                format!("the proxy {}", state.place(proxy))
            }
            _ => format!(
                "{} through the proxy {}",
                host_and_port(self.url),
                state.place(proxy)
            ),
        }
    }

    /// Returns the proxy, to which there is no connection.
    pub fn proxy(&self) -> String {
        match &self.transport.proxy {
            Proxy::Url(proxy) => format!("the proxy {}", self.steps.0.lock().place(proxy)),
            _ => "the proxy of the environment".to_owned(),
        }
    }

    /// Returns whether the call has come to the TLS handshake.
    pub fn is_in_handshake(&self) -> bool {
        self.steps.0.lock().step == Step::Handshake
    }

    /// Returns whether the call is over TLS.
    pub fn has_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Returns whether the call is without TLS to a target that has never answered, and that may want
    /// TLS.
    pub fn may_want_tls(&self) -> bool {
        let is_direct = self.transport.unix_socket.is_none() && self.transport.proxy == Proxy::None;
        is_direct && !self.is_known && self.url.scheme() == "http"
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{advance, sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_sent_again_has_waited_since_the_first_time() {
        let steps = Steps::new(Instant::now());
        // For a token.
        advance(Duration::from_secs(1)).await;
        let lost = async {
            sleep(Duration::from_secs(3)).await;
            Err::<(), _>(())
        };
        assert!(steps.follow(Instant::now(), lost).await.is_err());
        let again = steps.follow(Instant::now(), pending::<Result<(), ()>>());
        assert!(timeout(Duration::from_secs(2), again).await.is_err());
        assert_eq!(steps.elapsed(), Duration::from_secs(5));
        assert_eq!(steps.elapsed_of_last(), Duration::from_secs(2));
    }
}
