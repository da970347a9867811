//! A digest of what decides the answers of a table, for caches that outlive a configuration.
//!
//! Credentials are not in it: hosts that share answers may have credentials of their own. Constants
//! are, though `show` hides them: another tenant in a parameter means other answers.

use std::fmt::Debug;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use super::body::{Body, Json, Parameters};
use super::endpoint::Endpoint;
use super::headers::{HeaderText, is_credential};
use super::resolve::Table;
use super::response::ResponseRules;
use super::secret::{HeaderSecret, Source};
use super::target::Segment;
use super::template::{Part, Template};
use super::transport::Transport;

/// A digest of what decides the answers of a table.
pub type Fingerprint = [u8; SHA256_OUTPUT_LEN];

/// Returns the digest of a table.
pub fn fingerprint(table: &Table) -> Fingerprint {
    let mut parts = Parts(Context::new(&SHA256));
    // Another version may read the same answer in another way.
    parts.text(env!("CARGO_PKG_VERSION"));
    parts.text(table.protocol.name);
    parts.text(&table.name);
    parts.call(&table.endpoint);
    parts.rules(&table.endpoint.response_rules);
    parts.transport(&table.endpoint.transport);
    parts.debug(&table.endpoint.follows_redirects);
    parts.debug(&table.endpoint.max_response);
    if let Some(cache) = &table.endpoint.cache {
        let lifetimes: [Duration; 2] = [cache.ttl, cache.negative_ttl];
        parts.debug(&(lifetimes, cache.honour_http, &cache.by));
    }
    let mut digest = Fingerprint::default();
    digest.copy_from_slice(parts.0.finish().as_ref());
    digest
}

/// The parts of a digest, each with its length before it, so that no two lists of parts are alike.
struct Parts(Context);

impl Parts {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&bytes.len().to_le_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Adds a value whose `Debug` shows all of it.
    fn debug(&mut self, value: &dyn Debug) {
        self.text(&format!("{value:?}"));
    }

    fn call(&mut self, endpoint: &Endpoint) {
        self.debug(&endpoint.targets.len());
        for target in &endpoint.targets {
            self.text(&target.origin);
            self.text(target.base.as_str());
            self.debug(&target.segments.len());
            for segment in &target.segments {
                match segment {
                    Segment::Text(template) => self.template(template),
                    Segment::Expansion(name, _) => self.text(name),
                }
            }
            target.query.iter().for_each(|query| self.template(query));
        }
        self.text(endpoint.method.as_str());
        self.parameters(&endpoint.query);
        match &endpoint.body {
            Body::None => self.text("none"),
            Body::Form(form) => self.parameters(form),
            Body::Json(json) => self.json(json),
            Body::Value(name) => self.text(name),
        }
        let headers = endpoint.headers.iter();
        let headers: Vec<_> = headers
            .filter(|(name, _)| !is_credential(name.as_str()))
            .collect();
        self.debug(&headers.len());
        for (name, value) in headers {
            self.text(name.as_str());
            match value {
                HeaderText::Fixed(value) => self.fixed(value),
                HeaderText::Filled(value) => self.template(value),
            }
        }
    }

    /// Adds the value of a header; only its place, where it is a secret in a place of its own.
    fn fixed(&mut self, header: &HeaderSecret) {
        match (&header.source, &header.value) {
            (Source::Text, Some(value)) => self.bytes(value.as_bytes()),
            (source, _) => self.debug(source),
        }
    }

    fn template(&mut self, template: &Template) {
        self.debug(&template.parts.len());
        for part in &template.parts {
            match part {
                Part::Literal(text) => self.text(text),
                Part::Placeholder(placeholder) => self.debug(placeholder),
            }
        }
    }

    fn parameters(&mut self, parameters: &Parameters) {
        match parameters {
            Parameters::None => self.text("none"),
            Parameters::All => self.text("all"),
            Parameters::Each(pairs) => {
                self.debug(&pairs.len());
                for (name, value) in pairs {
                    self.text(name);
                    self.template(value);
                }
            }
        }
    }

    fn json(&mut self, value: &Json) {
        match value {
            Json::Flag(flag) => self.debug(flag),
            Json::Number(number) => self.text(&number.to_string()),
            Json::Text(text) => self.template(text),
            Json::All => self.text("all"),
            Json::List(list) => {
                self.debug(&("list", list.len()));
                list.iter().for_each(|value| self.json(value));
            }
            Json::Object(members) => {
                self.debug(&("object", members.len()));
                for (name, value) in members {
                    self.text(name);
                    self.json(value);
                }
            }
        }
    }

    fn rules(&mut self, rules: &ResponseRules) {
        self.text(rules.protocol.name);
        self.debug(&(rules.response, &rules.value, rules.missing));
        self.debug(&(&rules.error, &rules.no_error));
        self.debug(&(&rules.list_separator, &rules.true_value, &rules.status));
        self.debug(&rules.require_header.len());
        for (name, value) in &rules.require_header {
            self.text(name.as_str());
            self.bytes(value.as_bytes());
        }
    }

    fn transport(&mut self, transport: &Transport) {
        let ca = transport.tls.ca.as_ref().map(|ca| &ca.path);
        self.debug(&(&transport.unix_socket, ca, transport.tls.verify));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::problem::Report;
    use super::super::resolve::{Mode, resolve};
    use super::*;

    /// The digest of the table, written with these keys.
    fn of(keys: &str) -> Fingerprint {
        let text = format!("[socketmap.a]\n{keys}");
        let mut report = Report::new("test".as_ref());
        let config = resolve(&text, Mode::Check, &mut report).unwrap();
        report.render(&text);
        let problems: Vec<_> = report.problems().iter().map(|p| &p.line).collect();
        assert!(!report.has_errors(), "{problems:?}");
        fingerprint(&config.tables[0])
    }

    const TARGET: &str = "target = \"http://h/{key}\"\n";

    #[test]
    fn what_decides_the_answers_changes_the_digest() {
        let with = |keys: &str| of(&format!("{TARGET}{keys}"));
        let digests = [
            with(""),
            of("target = \"http://h/a/{key}\""),
            of("target = \"http://i/{key}\""),
            of("target = [\"http://h/{key}\", \"http://i/{key}\"]"),
            of("target = \"http://h/?key={key}\""),
            of("target = \"http://h/?key={key}&tenant=1\""),
            with("method = \"PUT\""),
            with("query = { tenant = \"1\" }"),
            with("query = { tenant = \"2\" }"),
            with("method = \"POST\"\nform = { tenant = \"1\" }"),
            with("method = \"POST\"\njson = { tenant = \"1\" }"),
            with("method = \"POST\"\njson = { tenant = 1 }"),
            with("method = \"POST\"\njson = { tenant = 2 }"),
            with("method = \"POST\"\njson = { tenant = [2] }"),
            with("headers = { X-Tenant = \"1\" }"),
            with("headers = { X-Tenant = \"2\" }"),
            with("headers = { X-Tenant = \"{name}\" }"),
            with("value = \"/a\""),
            with("missing = \"not-found\""),
            with("error = \"/e\""),
            with("list-separator = \";\""),
            with("true-value = \"yes\""),
            with("status = { 404 = \"temporary\" }"),
            with("require-header = { X-A = \"1\" }"),
            with("redirects = \"same-origin\""),
            with("max-response = 5"),
            with("unix-socket = \"/s\""),
            with("tls = { verify = false }"),
            with("cache = { ttl = \"1m\" }"),
            with("cache = { ttl = \"2m\" }"),
            with("cache = { ttl = \"1m\", honour-http = true }"),
        ];
        let different: BTreeSet<_> = digests.iter().collect();
        assert_eq!(different.len(), digests.len());
    }

    #[test]
    fn credentials_and_what_does_not_matter_leave_it_as_it_is() {
        let plain = of(TARGET);
        for keys in [
            "bearer-token = \"x\"",
            "auth-token = \"x\"",
            "basic-auth = { user = \"x\", password = \"y\" }",
            "headers = { Authorization = \"x\" }",
            "request-timeout = \"1s\"",
            "retries = 0",
            "breaker = false",
            "normalise = { lowercase = true }",
        ] {
            assert_eq!(of(&format!("{TARGET}{keys}")), plain, "{keys}");
        }
        // A secret counts by its place only.
        let key = |name: &str| {
            of(&format!(
                "{TARGET}headers = {{ X-Key = {{ env = \"{name}\" }} }}"
            ))
        };
        assert_ne!(key("PATH"), key("HOME"));
    }
}
