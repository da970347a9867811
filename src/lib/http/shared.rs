//! What the tables of one program share while they are made: clients, tokens, limits.

use std::sync::Arc;

use reqwest::header::HeaderValue;
use tokio::sync::Semaphore;

use super::client::Clients;
use super::oauth::{Tokens, token_transport};
use crate::config::{self, Credential, Transport};
use crate::observe::metrics::Metrics;

/// What the tables of one program share while they are made.
#[derive(Debug)]
pub struct Shared {
    /// Where all of them count.
    pub metrics: Arc<Metrics>,
    /// The clients of all of them.
    pub clients: Clients,
    pub(super) calls: Arc<Semaphore>,
    tokens: Vec<(Box<config::OAuth>, Transport, HeaderValue, Arc<Tokens>)>,
}

impl Shared {
    /// Makes the shared state before the first table.
    pub fn new(metrics: Arc<Metrics>, calls: Arc<Semaphore>, clients: Clients) -> Self {
        Self {
            metrics,
            clients,
            calls,
            tokens: Vec::new(),
        }
    }

    /// Returns the tokens of an endpoint. Endpoints with the same settings share them, so that each
    /// token is fetched once.
    pub(super) fn tokens(
        &mut self,
        endpoint: &config::Endpoint,
    ) -> Result<Option<Arc<Tokens>>, String> {
        let Some(Credential::OAuth(settings)) = &endpoint.credential else {
            return Ok(None);
        };
        let (transport, is_https) = token_transport(settings, &endpoint.transport);
        let agent = &endpoint.user_agent;
        let found = self
            .tokens
            .iter()
            .find(|(s, t, a, _)| s == settings && *t == transport && a == agent);
        if let Some((_, _, _, tokens)) = found {
            return Ok(Some(Arc::clone(tokens)));
        }
        let clients = self.clients.pool(&transport, is_https)?.clients.clone();
        // The call itself still needs half of its deadline.
        let fetch_timeout = endpoint.request_timeout / 2;
        let tokens = Arc::new(Tokens::new(
            settings.clone(),
            (clients, transport.clone()),
            fetch_timeout,
            agent.clone(),
        ));
        let made = Arc::clone(&tokens);
        self.tokens
            .push((settings.clone(), transport, agent.clone(), made));
        Ok(Some(tokens))
    }
}
