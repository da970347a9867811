//! The step that a call has come to, so that a message can name what it waited for, and where.
//!
//! reqwest reports neither. On its way it calls code of ours: the resolver, a layer around the
//! connector, and the verifier of certificates. A task-local leads from there to the call, because
//! reqwest passes nothing through.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use reqwest::Url;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

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
    /// A connection.
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
    began: Instant,
    /// The addresses of the host that was looked up.
    addresses: Vec<IpAddr>,
    /// Whether the call has opened a connection of its own.
    is_fresh: bool,
}

impl Default for Steps {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            // A connection that is open already is seen by none of our code.
            step: Step::Answer,
            began: Instant::now(),
            addresses: Vec::new(),
            is_fresh: false,
        })))
    }
}

impl Steps {
    /// Runs a call, and notes its steps until the head of its answer has come.
    pub async fn follow<T, E>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        {
            let mut state = self.0.lock();
            state.step = Step::Answer;
            state.began = Instant::now();
            state.addresses.clear();
            state.is_fresh = false;
        }
        let answer = CURRENT.scope(self.clone(), call).await;
        if answer.is_ok() {
            self.enter(Step::Body);
        }
        answer
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

/// Notes when a connector begins and ends.
#[derive(Clone, Copy, Debug)]
pub struct NoteConnections;

impl<S> Layer<S> for NoteConnections {
    type Service = Noting<S>;

    fn layer(&self, connector: S) -> Noting<S> {
        Noting(connector)
    }
}

/// A connector whose connections are noted.
#[derive(Clone, Debug)]
pub struct Noting<S>(S);

impl<S, R> Service<R> for Noting<S>
where
    S: Service<R>,
    S::Future: Send + Unpin + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let mut steps = CURRENT.try_with(Clone::clone).ok();
        if let Some(steps) = &steps {
            let mut state = steps.0.lock();
            state.step = Step::Connection;
            state.is_fresh = true;
        }
        let mut connecting = self.0.call(request);
        Box::pin(poll_fn(move |cx| {
            // Polled by another task, it is no longer what the call waits for: another connection
            // was idle sooner.
            let is_overtaken = CURRENT.try_with(|_| ()).is_err();
            let polled = Pin::new(&mut connecting).poll(cx);
            let is_made = matches!(polled, Poll::Ready(Ok(_)));
            if (is_overtaken || is_made)
                && let Some(steps) = steps.take()
            {
                let mut state = steps.0.lock();
                state.step = Step::Answer;
                state.is_fresh = !is_overtaken;
            }
            polled
        }))
    }
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
}

impl Way<'_> {
    /// Returns what a call had waited for when its time was over, and how long.
    pub fn late(&self) -> String {
        let (step, began) = {
            let state = self.steps.0.lock();
            (state.step, state.began)
        };
        let place = self.place();
        let what = match step {
            Step::Lookup => format!("no address of {place}"),
            Step::Connection => format!("no connection to {place}"),
            Step::Handshake => format!("no TLS handshake with {place}"),
            Step::Answer => format!("no answer from {place}"),
            Step::Body => format!("no end of the answer from {place}"),
        };
        let after = began.elapsed().as_secs_f32();
        let hint = match step {
            Step::Lookup => "; does the name server answer?",
            _ => "",
        };
        format!("{what} after {after:.1} s{hint}")
    }

    /// Returns the place where the call is: a host whose addresses are not known, the addresses to
    /// which a connection is opened, or the target.
    pub fn place(&self) -> String {
        /// A host behind which many servers are has more.
        const SHOWN: usize = 3;
        if let Some(path) = &self.transport.unix_socket {
            return path.display().to_string();
        }
        let state = self.steps.0.lock();
        let (proxy, url) = match &self.transport.proxy {
            Proxy::Url(proxy) if state.step != Step::Answer => ("the proxy ", proxy),
            _ => ("", self.url),
        };
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        match state.step {
            Step::Lookup => format!("{proxy}{host}"),
            Step::Connection | Step::Handshake if !state.addresses.is_empty() => {
                let addresses = state.addresses.iter().take(SHOWN);
                let addresses = addresses.map(|ip| SocketAddr::new(*ip, port).to_string());
                let addresses = addresses.collect::<Vec<_>>().join(", ");
                format!("{proxy}{addresses}")
            }
            _ => format!("{proxy}{host}:{port}"),
        }
    }

    /// Returns whether the call has opened a connection without TLS to a target that has never
    /// answered, and that may want TLS.
    pub fn may_want_tls(&self) -> bool {
        let is_direct = self.transport.unix_socket.is_none() && self.transport.proxy == Proxy::None;
        is_direct && !self.is_known && self.url.scheme() == "http" && self.steps.0.lock().is_fresh
    }
}
