//! A sample HTTP backend: everything that an API has to do for Postgate.
//!
//! | request | answer |
//! |---|---|
//! | `GET /TABLE?key=KEY` or `GET /TABLE/KEY` | 200 with a JSON string or an array of strings; 404: no such entry |
//! | `POST /policy`, the attributes of the mail as a form | 200 with one line of text, the action for Postfix |
//! | any of them without the right `X-Auth-Token` | 401 |
//! | anything else | 400 |
//!
//! The tables are in `directory.toml`. To try it, start
//! `cargo run --example directory -- --listen 127.0.0.1:8080`, and send a request:
//! `curl -H 'X-Auth-Token: demo' 'http://127.0.0.1:8080/aliases?key=sales@example.org'`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpListener;

/// Far more than the attributes of one mail, and small enough for memory.
const LONGEST_FORM: usize = 128 * 1024;

#[derive(Deserialize)]
struct Directory {
    token: String,
    tables: HashMap<String, HashMap<String, Value>>,
    policy: Policy,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Policy {
    blocked_senders: Vec<String>,
    greylisted_clients: Vec<String>,
    open_recipients: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => "127.0.0.1:8080",
        ["--listen", address] => address,
        _ => {
            eprintln!("usage: directory [--listen 127.0.0.1:8080]");
            return ExitCode::from(64);
        }
    };
    match serve(address).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("directory: {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(address: &str) -> Result<(), Box<dyn Error>> {
    let directory: Arc<Directory> = Arc::new(toml::from_str(include_str!("directory.toml"))?);
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let directory = Arc::clone(&directory);
        let service = service_fn(move |request| {
            let directory = Arc::clone(&directory);
            async move { Ok::<_, Infallible>(answer(request, &directory).await) }
        });
        tokio::spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                eprintln!("directory: {error}");
            }
        });
    }
}

async fn answer(request: Request<Incoming>, directory: &Directory) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let token = head.headers.get("x-auth-token");
    if token.is_none_or(|token| token != directory.token.as_str()) {
        return text(StatusCode::UNAUTHORIZED, "X-Auth-Token is missing or wrong");
    }
    match (head.method, head.uri.path()) {
        (Method::POST, "/policy") => match Limited::new(body, LONGEST_FORM).collect().await {
            Ok(form) => decide(&form.to_bytes(), &directory.policy),
            Err(_) => text(
                StatusCode::BAD_REQUEST,
                "the form is too long or incomplete",
            ),
        },
        (Method::GET, path) => {
            let path = path.trim_start_matches('/');
            let (table, key) = match path.split_once('/') {
                Some((table, key)) => (table, Some(key.to_owned())),
                None => (path, field(head.uri.query().unwrap_or_default(), "key")),
            };
            look_up(directory.tables.get(table), key)
        }
        // Not 404, which means "no such entry": a mistyped URL would bounce mail.
        _ => text(StatusCode::BAD_REQUEST, "no such route"),
    }
}

fn look_up(table: Option<&HashMap<String, Value>>, key: Option<String>) -> Response<Full<Bytes>> {
    let (Some(table), Some(key)) = (table, key) else {
        return text(StatusCode::BAD_REQUEST, "no such table, or no key");
    };
    let spellings = decoded(&key).map(|key| spellings(&key));
    match spellings.iter().flatten().find_map(|key| table.get(key)) {
        Some(value) => reply(StatusCode::OK, "application/json", value.to_string()),
        None => text(StatusCode::NOT_FOUND, "no such entry"),
    }
}

/// Returns the keys to search for, the best first. Postfix sends only the address as it is in the
/// mail, so the API handles capitals, `user+extension` and whole domains itself.
fn spellings(key: &str) -> Vec<String> {
    let key = key.to_lowercase();
    let Some((local, domain)) = key.rsplit_once('@') else {
        return vec![key];
    };
    let mut spellings = vec![key.clone()];
    if let Some((user, _extension)) = local.split_once('+') {
        spellings.push(format!("{user}@{domain}"));
    }
    spellings.push(format!("@{domain}"));
    spellings
}

/// Returns the action for Postfix. `DUNNO` lets its other rules decide; `OK` would skip them.
fn decide(form: &[u8], policy: &Policy) -> Response<Full<Bytes>> {
    let Ok(form) = str::from_utf8(form) else {
        return text(StatusCode::BAD_REQUEST, "the form is not UTF-8");
    };
    let is_listed = |attribute, list: &[String]| {
        field(form, attribute)
            .and_then(|value| decoded(&value))
            .is_some_and(|value| list.contains(&value.to_lowercase()))
    };
    let action = if is_listed("recipient", &policy.open_recipients) {
        "DUNNO"
    } else if is_listed("sender", &policy.blocked_senders) {
        "REJECT 5.7.1 Mail from this sender is not accepted"
    } else if is_listed("client_address", &policy.greylisted_clients) {
        "DEFER_IF_PERMIT 4.7.1 Greylisted, please try again later"
    } else {
        "DUNNO"
    };
    text(StatusCode::OK, action)
}

/// Returns a field of a query or form, still percent-encoded.
fn field(form: &str, name: &str) -> Option<String> {
    form.split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(field, _)| *field == name)
        .map(|(_, value)| value.replace('+', " "))
}

/// Decodes `%XX`. No table here has keys that are not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    Some(text.into_owned())
}

fn text(status: StatusCode, line: &'static str) -> Response<Full<Bytes>> {
    reply(status, "text/plain", line.to_owned())
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, content_type.parse().expect("a media type"));
    response
}
