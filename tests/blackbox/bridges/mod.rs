//! Postgate in the place of five other bridges: the tables that stand ready on the pages
//! `docs/coming-from-….md`, run by the real programs against backends that behave as the
//! backends of those bridges do.

pub(crate) mod page;
mod pfxhttp;
pub(crate) mod place;
mod podop;
mod podop_dicts;
mod postfix_rest_api_connector;
mod postfix_rest_connector;
mod userli_postfix_adapter;
