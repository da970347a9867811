//! Postgate in the place of five other bridges: the tables that stand ready on the pages
//! `docs/coming-from-….md`, run by the real programs against backends that behave as the
//! backends of those bridges do.

mod support;

#[path = "bridges/page.rs"]
mod page;
#[path = "bridges/pfxhttp.rs"]
mod pfxhttp;
#[path = "bridges/place.rs"]
mod place;
#[path = "bridges/podop.rs"]
mod podop;
#[path = "bridges/postfix_rest_api_connector.rs"]
mod postfix_rest_api_connector;
#[path = "bridges/postfix_rest_connector.rs"]
mod postfix_rest_connector;
#[path = "bridges/userli_postfix_adapter.rs"]
mod userli_postfix_adapter;
