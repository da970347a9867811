//! What the endpoints of a program share, as they are made one after the other.

use std::sync::Arc;

use reqwest::header::HeaderValue;
use tokio::sync::Semaphore;

use super::client::Clients;
use super::oauth::{Tokens, way_to_server};
use crate::config::{self, Credential, Transport};
use crate::observe::metrics::Metrics;
use crate::outcome::Outcome;
use crate::reply::PolicyActions;

/// Turns an outcome into the one that can be said: a value without words is a failure.
pub type Check = fn(Outcome, &PolicyActions) -> Outcome;

/// What endpoints share, as they are made one after the other.
#[derive(Debug)]
pub struct Shared {
    /// What their program can say.
    pub check: Check,
    pub(super) metrics: Arc<Metrics>,
    /// The clients of all of them.
    pub clients: Clients,
    pub(super) calls: Arc<Semaphore>,
    tokens: Vec<(Box<config::OAuth>, Transport, HeaderValue, Arc<Tokens>)>,
}

impl Shared {
    /// Begins with nothing made.
    pub fn new(
        check: Check,
        metrics: Arc<Metrics>,
        calls: Arc<Semaphore>,
        clients: Clients,
    ) -> Self {
        Self {
            check,
            metrics,
            clients,
            calls,
            tokens: Vec::new(),
        }
    }

    /// Returns the tokens that an endpoint is to use, with all who have the same client there.
    pub(super) fn tokens(
        &mut self,
        endpoint: &config::Endpoint,
    ) -> Result<Option<Arc<Tokens>>, String> {
        let Some(Credential::OAuth(settings)) = &endpoint.credential else {
            return Ok(None);
        };
        let (transport, is_https) = way_to_server(settings, &endpoint.transport);
        let agent = &endpoint.user_agent;
        let found = self
            .tokens
            .iter()
            .find(|(s, t, a, _)| s == settings && *t == transport && a == agent);
        if let Some((_, _, _, tokens)) = found {
            return Ok(Some(Arc::clone(tokens)));
        }
        let clients = self.clients.pool(&transport, is_https)?.clients.clone();
        // A call that has to wait for a token needs time of its own afterwards.
        let patience = endpoint.request_timeout / 2;
        let tokens = Arc::new(Tokens::new(
            settings.clone(),
            clients,
            patience,
            agent.clone(),
        ));
        let made = Arc::clone(&tokens);
        self.tokens
            .push((settings.clone(), transport, agent.clone(), made));
        Ok(Some(tokens))
    }
}
