//! The callers for what a table can do besides lookups.

use crate::config;
use crate::http::caller::Caller;
use crate::http::shared::Shared;
use crate::request::Change;

/// The callers of a table for lists and writes. They share the limits, the counters and, where they
/// have the same hosts, the breakers of its lookups.
#[derive(Debug)]
pub struct Operations {
    /// For lists.
    pub iterate: Option<Caller>,
    set: Option<Caller>,
    unset: Option<Caller>,
    increment: Option<Caller>,
    /// For whole transactions.
    pub commit: Option<Caller>,
}

impl Operations {
    /// Makes those that are configured for a table.
    pub fn new(lookups: &Caller, shared: &mut Shared) -> Result<Self, String> {
        let configured = &lookups.table().endpoint.operations;
        let mut make = |endpoint: &Option<Box<config::Endpoint>>| {
            let endpoint = endpoint.as_deref();
            let caller = endpoint.map(|endpoint| lookups.beside(endpoint.clone(), shared));
            caller.transpose()
        };
        Ok(Self {
            iterate: make(&configured.iterate)?,
            set: make(&configured.set)?,
            unset: make(&configured.unset)?,
            increment: make(&configured.increment)?,
            commit: make(&configured.commit)?,
        })
    }

    /// Returns the caller for an operation.
    pub fn of(&self, change: Change) -> Option<&Caller> {
        match change {
            Change::Set => self.set.as_ref(),
            Change::Unset => self.unset.as_ref(),
            Change::Increment => self.increment.as_ref(),
        }
    }

    /// Returns all of them.
    pub fn all(&self) -> impl Iterator<Item = &Caller> {
        let all = [
            &self.iterate,
            &self.set,
            &self.unset,
            &self.increment,
            &self.commit,
        ];
        all.into_iter().flatten()
    }
}
