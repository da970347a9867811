//! A sample API: all that an API has to do for Postgate.
//!
//! `docs/api/openapi.yaml` describes every request and answer, `directory.json` has the data. To try
//! it, start `cargo run --example directory -- --listen 127.0.0.1:8080`, and send a request:
//! `curl -H 'X-Auth-Token: demo' 'http://127.0.0.1:8080/aliases?key=sales@example.org'`.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// Far more than the attributes of one mail, and small enough for memory.
const LONGEST_BODY: usize = 128 * 1024;

#[derive(Deserialize)]
struct Directory {
    token: String,
    tables: HashMap<String, HashMap<String, Value>>,
    policy: Policy,
    quotas: HashMap<String, Value>,
    dicts: HashMap<String, Dict>,
    passwords: HashMap<String, String>,
}

/// In the order of the names.
type Dict = BTreeMap<String, Value>;

#[derive(Deserialize)]
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
    let directory: Arc<Directory> = Arc::new(serde_json::from_str(include_str!("directory.json"))?);
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
        return failure(StatusCode::UNAUTHORIZED, "X-Auth-Token is missing or wrong");
    }
    // Split before it is decoded: a key may hold a slash.
    let path: Vec<_> = head.uri.path().split('/').skip(1).map(decoded).collect();
    let path: Vec<_> = path.iter().map(String::as_str).collect();
    let query = head.uri.query().unwrap_or_default();
    let Ok(body) = Limited::new(body, LONGEST_BODY).collect().await else {
        return failure(
            StatusCode::BAD_REQUEST,
            "the body is too long or incomplete",
        );
    };
    let body = body.to_bytes();
    match (&head.method, &path[..]) {
        (&Method::POST, ["policy"]) => decide(&String::from_utf8_lossy(&body), &directory.policy),
        (&Method::POST, ["login"]) => log_in(&body, &directory.passwords),
        (&Method::GET, ["dict"]) => look_up_in_dict(&directory.dicts, query),
        (&Method::GET, ["dict", "list"]) => list_dict(&directory.dicts, query),
        (&Method::GET, [table]) => {
            let key = field(query, "key");
            look_up(directory.tables.get(*table), &key.unwrap_or_default())
        }
        (&Method::GET, ["quota", account]) => quota(directory.quotas.get(*account)),
        (&Method::GET, [table, key]) => look_up(directory.tables.get(*table), key),
        // Not 404, which means "no such entry": a mistyped URL would bounce mail.
        _ => failure(StatusCode::BAD_REQUEST, "no such route"),
    }
}

/// Answers a lookup: a string or a list of strings, or 404.
fn look_up(table: Option<&HashMap<String, Value>>, key: &str) -> Response<Full<Bytes>> {
    let Some(table) = table.filter(|_| !key.is_empty()) else {
        return failure(StatusCode::BAD_REQUEST, "no such table, or no key");
    };
    match spellings(key).iter().find_map(|key| table.get(key)) {
        Some(value) => reply(StatusCode::OK, value),
        None => failure(StatusCode::NOT_FOUND, "no such entry"),
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

/// Answers how much an account may send: the numbers that the rates of a limit point to. 0 and `null`
/// are "no limit".
fn quota(quota: Option<&Value>) -> Response<Full<Bytes>> {
    match quota {
        Some(quota) => reply(StatusCode::OK, quota),
        None => failure(StatusCode::NOT_FOUND, "no such account"),
    }
}

/// Returns the action for Postfix. `DUNNO` lets its other rules decide; `OK` would skip them. A
/// bounce has an empty sender.
fn decide(form: &str, policy: &Policy) -> Response<Full<Bytes>> {
    let is_listed = |attribute, list: &[String]| {
        field(form, attribute).is_some_and(|value| list.contains(&value.to_lowercase()))
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
    reply(StatusCode::OK, &json!({ "action": action }))
}

/// Answers about a key of one of Dovecot's dicts: any JSON, or 404.
fn look_up_in_dict(dicts: &HashMap<String, Dict>, query: &str) -> Response<Full<Bytes>> {
    let dict = field(query, "name").and_then(|name| dicts.get(&name));
    match dict.and_then(|dict| dict.get(&dict_key(query))) {
        Some(value) => reply(StatusCode::OK, value),
        None => failure(StatusCode::NOT_FOUND, "no such key"),
    }
}

/// Answers with the keys below a path: an object of names and values. Names begin behind the path and
/// a slash.
fn list_dict(dicts: &HashMap<String, Dict>, query: &str) -> Response<Full<Bytes>> {
    let dict = field(query, "name").and_then(|name| dicts.get(&name));
    let path = format!("{}/", dict_key(query).trim_end_matches('/'));
    let found: Map<_, _> = dict
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.strip_prefix(&path)?.to_owned(), value.clone())))
        .collect();
    if found.is_empty() {
        return failure(StatusCode::NOT_FOUND, "no such path");
    }
    reply(StatusCode::OK, &found.into())
}

/// Returns the key in the data. Keys of "priv" belong to a user, those of "shared" to all.
fn dict_key(query: &str) -> String {
    let field = |name| field(query, name).unwrap_or_default();
    let (scope, key) = (field("scope"), field("key"));
    match scope.as_str() {
        "priv" => format!("priv/{}/{key}", field("user")),
        _ => format!("{scope}/{key}"),
    }
}

/// Answers whether a login is good, and whose it is. A real API has digests, and compares in the
/// same time whether there is such a user or not. A refusal costs the user the stored password, so
/// that a body that is no login is 400.
fn log_in(body: &[u8], passwords: &HashMap<String, String>) -> Response<Full<Bytes>> {
    let login: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| login[name].as_str();
    let (Some(user), Some(password)) = (text("username"), text("password")) else {
        let why = "no JSON object with a username and a password";
        return failure(StatusCode::BAD_REQUEST, why);
    };
    let user = user.to_lowercase();
    let answer = if passwords.get(&user).is_some_and(|right| right == password) {
        json!({ "accepted": true, "user": user })
    } else {
        json!({ "accepted": false })
    };
    reply(StatusCode::OK, &answer)
}

/// Returns a field of a query or form.
fn field(form: &str, name: &str) -> Option<String> {
    form.split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(field, _)| *field == name)
        .map(|(_, value)| decoded(&value.replace('+', " ")))
}

/// Decodes `%XX`. No table here has keys that are not UTF-8.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn failure(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    reply(status, &json!({ "error": why }))
}

fn reply(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // For `require-header`: an answer without it comes from somebody else, such as a proxy.
    headers.insert("x-directory", HeaderValue::from_static("1"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
