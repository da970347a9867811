//! Client credentials of OAuth 2.

use std::fmt;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Url;

use super::file::{Entry, Section, entries, table};
use super::keys::OAUTH2;
use super::reader::Reader;
use super::secret::{Secret, Source, any_secret};
use super::tls::{self, Tls};
use super::values;

/// The parameters that the program sets itself (RFC 6749, section 4.4; RFC 7523, section 2.2).
const TOKEN_PARAMETERS: [&str; 5] = [
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "grant_type",
];

/// Client credentials of OAuth 2 (RFC 6749, section 4.4).
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth {
    /// The token server.
    pub server: TokenServer,
    /// The client's identifier at the token server.
    pub client_id: String,
    /// How the client authenticates.
    pub client_auth: ClientAuth,
    /// The scopes, with blanks between them.
    pub scope: Option<String>,
    /// Further parameters of the request for a token.
    pub parameters: Vec<(String, Secret)>,
    /// The settings of TLS for the token server.
    pub tls: Tls,
}

/// The token server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenServer {
    /// The token endpoint itself.
    Token(Url),
    /// An issuer, which publishes its token endpoint (OpenID Connect Discovery).
    Issuer(Url),
}

/// How a client authenticates to the token server.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientAuth {
    /// The secret in `Authorization`.
    Basic(Secret),
    /// The secret in the form.
    Post(Secret),
    /// A signed assertion (RFC 7523, section 2.2).
    PrivateKeyJwt(SigningKey),
}

/// A private key that signs assertions.
#[derive(Clone)]
pub struct SigningKey {
    /// Where the key comes from.
    pub source: Source,
    /// The algorithm and the key; absent where the key could not be read.
    pub key: Option<(Algorithm, EncodingKey)>,
}

impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        fn bytes(signing: &SigningKey) -> Option<(Algorithm, &[u8])> {
            let (algorithm, key) = signing.key.as_ref()?;
            Some((*algorithm, key.as_bytes()))
        }
        self.source == other.source && bytes(self) == bytes(other)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

pub(super) fn read<'t>(reader: &mut Reader<'_, 't>, entry: &Entry<'t>, tls: &Tls) -> Option<OAuth> {
    let table = table(entry, reader.report)?;
    let mut section = Section::new(&entry.path, entry.key_span.clone(), table, OAUTH2);
    let token_url = section.take("token-url");
    let issuer = section.take("issuer");
    let client_id = section.take("client-id");
    let secret = section.take("client-secret");
    let key = section.take("private-key");
    let scope = section.take("scope");
    let method = section.take("auth-method");
    let parameters = section.take("parameters");
    let tls = if section.is_off("tls") {
        section.take("tls");
        Tls::default()
    } else {
        match section.take_members("tls", reader.report) {
            Some(own) => tls::read_over(reader, tls.for_tokens(), own),
            None => tls.for_tokens(),
        }
    };
    section.finish(reader.report);
    let server = match (token_url, issuer) {
        (Some(url), None) => server_url(reader, &url).map(TokenServer::Token),
        (None, Some(url)) => server_url(reader, &url).map(TokenServer::Issuer),
        _ => {
            let text = "must have exactly one of the keys token-url and issuer";
            reader.error(entry.value.span(), &entry.path, text);
            None
        }
    };
    let client_id = match client_id {
        Some(id) => values::string(&id, reader.report).map(str::to_owned),
        None => {
            reader.error(
                entry.value.span(),
                &entry.path,
                "must have the key client-id",
            );
            None
        }
    };
    let scope = scope.and_then(|scope| {
        let text = values::string(&scope, reader.report)?;
        (!text.trim().is_empty()).then(|| text.trim().to_owned())
    });
    let parameters = parameters.map_or_else(Vec::new, |entry| token_parameters(reader, &entry));
    let client_auth = client_auth(reader, entry, secret, key, method);
    Some(OAuth {
        server: server?,
        client_id: client_id?,
        client_auth: client_auth?,
        scope,
        parameters,
        tls,
    })
}

/// Reads the further parameters of the request for a token; each may be a secret.
fn token_parameters<'t>(reader: &mut Reader<'_, 't>, entry: &Entry<'t>) -> Vec<(String, Secret)> {
    let Some(table) = table(entry, reader.report) else {
        return Vec::new();
    };
    let mut parameters = Vec::new();
    for entry in entries(&entry.path, table) {
        if entry.key == "scope" {
            let text = "is a key of oauth2 itself; write it there";
            reader.error(entry.key_span, &entry.path, text);
        } else if entry.key.is_empty() || TOKEN_PARAMETERS.contains(&entry.key) {
            let text = "is set by the program itself; remove it";
            reader.error(entry.key_span, &entry.path, text);
        } else {
            let value = any_secret(&entry, reader.secret_policy, reader.report);
            parameters.extend(value.map(|value| (entry.key.to_owned(), value)));
        }
    }
    parameters
}

fn server_url(reader: &mut Reader<'_, '_>, entry: &Entry<'_>) -> Option<Url> {
    let text = values::private_string(entry, reader.report)?;
    let url = Url::parse(text).ok().filter(|url| {
        let is_http = ["http", "https"].contains(&url.scheme());
        let is_plain = url.username().is_empty() && url.password().is_none();
        is_http && is_plain && url.has_host() && url.fragment().is_none()
    });
    if url.is_none() {
        let text = "must be an http or https URL without a user or a fragment";
        reader.error(entry.value.span(), &entry.path, text);
    } else {
        reader.report.layout().harmless.push(entry.value.span());
    }
    url
}

fn client_auth<'t>(
    reader: &mut Reader<'_, 't>,
    oauth: &Entry<'t>,
    secret: Option<Entry<'t>>,
    key: Option<Entry<'t>>,
    method: Option<Entry<'t>>,
) -> Option<ClientAuth> {
    let chosen = match &method {
        Some(entry) => Some(values::word(entry, &AuthMethod::WORDS, reader.report)?),
        None => None,
    };
    let default = match key {
        Some(_) => AuthMethod::PrivateKeyJwt,
        None => AuthMethod::Basic,
    };
    let method = chosen.unwrap_or(default);
    let (wanted, unused, names) = match method {
        AuthMethod::PrivateKeyJwt => (key, secret, ["private-key", "client-secret"]),
        AuthMethod::Basic | AuthMethod::Post => (secret, key, ["client-secret", "private-key"]),
    };
    let (Some(entry), None) = (wanted, unused) else {
        let text = match chosen {
            Some(_) => format!(
                "must have the key {} for its auth-method, and not {}",
                names[0], names[1]
            ),
            None => "must have exactly one of the keys client-secret and private-key".to_owned(),
        };
        reader.error(oauth.value.span(), &oauth.path, text);
        return None;
    };
    let value = any_secret(&entry, reader.secret_policy, reader.report)?;
    match method {
        AuthMethod::Basic => Some(ClientAuth::Basic(value)),
        AuthMethod::Post => Some(ClientAuth::Post(value)),
        AuthMethod::PrivateKeyJwt => {
            signing_key(reader, &entry, &value).map(ClientAuth::PrivateKeyJwt)
        }
    }
}

/// The value of `auth-method`.
#[derive(Clone, Copy)]
enum AuthMethod {
    Basic,
    Post,
    PrivateKeyJwt,
}

impl AuthMethod {
    const WORDS: [(&'static str, Self); 3] = [
        ("basic", Self::Basic),
        ("post", Self::Post),
        ("private-key-jwt", Self::PrivateKeyJwt),
    ];
}

fn signing_key(reader: &mut Reader<'_, '_>, entry: &Entry<'_>, pem: &Secret) -> Option<SigningKey> {
    let key = parse_key(pem.expose());
    if key.is_none() && !pem.is_absent() {
        let text = if pem.expose().contains("-----BEGIN EC PRIVATE KEY-----") {
            "is an EC key in SEC1 form; convert it to PKCS #8: openssl pkcs8 -topk8 -nocrypt \
             -in OLD.pem -out NEW.pem"
        } else {
            "is not a private key in PEM form: RSA, or in PKCS #8 form EC (P-256, P-384) or Ed25519"
        };
        reader.error(entry.value.span(), &entry.path, text);
        return None;
    }
    Some(SigningKey {
        source: pem.source().clone(),
        key,
    })
}

/// Returns the key in a PEM text, and the algorithm that it signs with.
fn parse_key(pem: &str) -> Option<(Algorithm, EncodingKey)> {
    type Read = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;
    const KINDS: [(Algorithm, Read); 4] = [
        (Algorithm::RS256, EncodingKey::from_rsa_pem),
        (Algorithm::ES256, EncodingKey::from_ec_pem),
        (Algorithm::ES384, EncodingKey::from_ec_pem),
        (Algorithm::EdDSA, EncodingKey::from_ed_pem),
    ];
    KINDS.into_iter().find_map(|(algorithm, read)| {
        let key = read(pem.as_bytes()).ok()?;
        // A key is read without a look at its curve; signing fails if that is another one.
        jsonwebtoken::encode(&Header::new(algorithm), &(), &key).ok()?;
        Some((algorithm, key))
    })
}
