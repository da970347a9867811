//! The headers that all calls of one table have.

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::header::{HeaderMap, HeaderValue, USER_AGENT};

use crate::config::{Body, Compression, Credential, Endpoint, HeaderSecret, HeaderText, Response};

/// The headers that every call of an endpoint has.
pub fn headers(endpoint: &Endpoint) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let accept = match endpoint.response_rules.response {
        Response::Json => "application/json",
        Response::Text => "text/plain",
        Response::Auto => "application/json, text/plain",
    };
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    headers.insert(USER_AGENT, endpoint.user_agent.clone());
    let gzip = HeaderValue::from_static("gzip");
    if endpoint.transport.compression != Compression::None {
        headers.insert(ACCEPT_ENCODING, gzip.clone());
    }
    let content_type = match &endpoint.body {
        Body::None | Body::Value(_) => None,
        Body::Form(_) => Some("application/x-www-form-urlencoded"),
        Body::Json(_) => Some("application/json"),
    };
    headers.extend(content_type.map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind))));
    if endpoint.body != Body::None && endpoint.transport.compression == Compression::Both {
        headers.insert(CONTENT_ENCODING, gzip);
    }
    let token = endpoint.auth_token.as_ref();
    if let Some(value) = token.and_then(|token| token.value.clone()) {
        headers.insert("x-auth-token", value);
    }
    let authorization = match &endpoint.credential {
        // A token of OAuth's, and the password of a login, are put into each call when it is made.
        None | Some(Credential::OAuth(_) | Credential::Login { .. }) => None,
        Some(Credential::Bearer(token)) => token.value.clone(),
        Some(Credential::Basic { value, .. }) => value.clone(),
    };
    headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
    for (name, text) in &endpoint.headers {
        if let HeaderText::Fixed(HeaderSecret {
            value: Some(value), ..
        }) = text
        {
            headers.insert(name, value.clone());
        }
    }
    headers
}

/// Returns what says in a call who makes it, without any value.
pub fn sent_credentials(endpoint: &Endpoint) -> String {
    let authorization = endpoint
        .credential
        .as_ref()
        .map(|credential| match credential {
            Credential::Bearer(_) => "Authorization: Bearer",
            Credential::Basic { .. } | Credential::Login { .. } => "Authorization: Basic",
            Credential::OAuth(_) => "the token of oauth2",
        });
    let token = endpoint.auth_token.as_ref().map(|_| "X-Auth-Token");
    let headers = endpoint.headers.iter().map(|(name, _)| name.as_str());
    let all: Vec<_> = authorization
        .into_iter()
        .chain(token)
        .chain(headers)
        .collect();
    match all.is_empty() {
        true => "no credential".to_owned(),
        false => all.join(", "),
    }
}
