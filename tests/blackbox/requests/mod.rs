//! What the backend is asked: each value of a request where the configuration puts it.

mod bodies;
mod headers;
mod keys;
mod urls;
