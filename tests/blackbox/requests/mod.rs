//! The requests to the backend: each value from Postfix in the place that the configuration names.

mod bodies;
mod headers;
mod keys;
mod urls;
