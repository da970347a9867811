//! TLS to backends: certificates, the client's key, and the lowest version.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use toml::de::DeValue;

use super::file::{Entry, Section};
use super::problem::Report;
use super::reader::Reader;
use super::secret::{Secret, SecretPolicy, Source, any_secret, fetch};
use super::values;
use super::values::{place, plain};

/// The settings of TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// The authorities that are trusted instead of the system's.
    pub ca: Option<Certificates>,
    /// The certificate that is presented, with its key.
    pub identity: Option<ClientIdentity>,
    /// The lowest version that is accepted.
    pub min_version: TlsVersion,
    /// Whether the server's certificate is checked.
    pub verify: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            ca: None,
            identity: None,
            min_version: TlsVersion::Tls12,
            verify: true,
        }
    }
}

impl Tls {
    /// Returns the settings that a token server inherits: the authorities and the lowest version.
    /// It is another server than the backend, so its certificate is always checked, and the
    /// client's certificate is not for it.
    pub fn for_tokens(&self) -> Self {
        Self {
            ca: self.ca.clone(),
            min_version: self.min_version,
            ..Self::default()
        }
    }
}

/// The certificates of a PEM file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// The path of the file.
    pub path: PathBuf,
    /// The certificates, in the order of the file; there is at least one.
    pub chain: Vec<CertificateDer<'static>>,
}

/// The certificate that we present to a server, with its key.
#[derive(Clone)]
pub struct ClientIdentity {
    /// The certificate, followed by those that lead to its authority.
    pub certificates: Certificates,
    /// The place where the key is kept.
    pub key: Source,
    /// Both together; absent where the key could not be read.
    pub certified: Option<CertifiedKey>,
}

/// A key fits its certificate, so equal certificates have equal keys.
impl PartialEq for ClientIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
            && self.key == other.key
            && self.certified.is_some() == other.certified.is_some()
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity")
            .field("certificates", &self.certificates.path)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TlsVersion {
    pub(super) const WORDS: [(&'static str, Self); 2] =
        [("1.2", Self::Tls12), ("1.3", Self::Tls13)];
}

pub(super) fn read(reader: &mut Reader<'_, '_>) -> Tls {
    match reader.section.take_members("tls", reader.report) {
        Some(section) => read_over(reader, Tls::default(), section),
        None => Tls::default(),
    }
}

/// Reads the keys of a section over inherited settings.
pub(super) fn read_over<'t>(
    reader: &mut Reader<'_, 't>,
    mut tls: Tls,
    mut section: Section<'t>,
) -> Tls {
    if section.is_off("ca") {
        tls.ca = None;
    }
    if let Some(entry) = section.take("ca") {
        tls.ca = ca(reader, &entry);
    }
    let (cert, key) = (section.take("client-cert"), section.take("client-key"));
    tls.identity = identity(reader, &section, cert, key);
    if section.is_off("min-version") {
        tls.min_version = TlsVersion::Tls12;
    }
    if let Some(entry) = section.take("min-version") {
        let version = values::word(&entry, &TlsVersion::WORDS, reader.report);
        tls.min_version = version.unwrap_or(tls.min_version);
    }
    if let Some(entry) = section.take_bool("verify") {
        tls.verify = values::boolean(&entry, reader.report).unwrap_or(true);
        if !tls.verify {
            let text = "the backend's certificate is not checked: anybody on the network path can \
                        take its place and read the secrets sent";
            reader.report.warning(entry.value.span(), &entry.path, text);
        }
    }
    section.finish(reader.report);
    tls
}

fn ca(reader: &mut Reader<'_, '_>, entry: &Entry<'_>) -> Option<Certificates> {
    let (path, pem) = pem(entry, reader.report)?;
    let chain = certificates(&pem).filter(|chain| are_authorities(chain));
    if chain.is_none() {
        let text = format!("{path:?} has no certificates in PEM form");
        reader.error(entry.value.span(), &entry.path, text);
    }
    Some(Certificates {
        path,
        chain: chain?,
    })
}

fn identity<'t>(
    reader: &mut Reader<'_, 't>,
    section: &Section<'_>,
    cert: Option<Entry<'t>>,
    key: Option<Entry<'t>>,
) -> Option<ClientIdentity> {
    let (cert_entry, key) = match (cert, key) {
        (None, None) => return None,
        (Some(cert), Some(key)) => (cert, key),
        _ => {
            let text = "client-cert and client-key must be set together";
            reader.error(section.span.clone(), &section.path, text);
            return None;
        }
    };
    let cert = pem(&cert_entry, reader.report);
    let key_secret = match key.value.get_ref() {
        DeValue::String(_) => secret_pem(&key, reader.secret_policy, reader.report),
        _ => any_secret(&key, reader.secret_policy, reader.report),
    };
    let ((path, pem), key) = (cert?, key_secret?);
    let chain = certificates(&pem);
    let certified = chain.clone().and_then(|chain| certified(chain, &key));
    if chain.is_none() || certified.is_none() && !key.is_absent() {
        let text = "does not match client-key, or one of the two is not in PEM form";
        reader.error(cert_entry.value.span(), &cert_entry.path, text);
        return None;
    }
    Some(ClientIdentity {
        certificates: Certificates {
            path,
            chain: chain?,
        },
        key: key.source().clone(),
        certified,
    })
}

/// Returns a secret from a PEM file.
fn secret_pem(
    entry: &Entry<'_>,
    secret_policy: SecretPolicy,
    report: &mut Report,
) -> Option<Secret> {
    let path = place(entry, NO_PEM_FILE, report)?;
    fetch(Source::File(path.into()), entry, secret_policy, report)
}

/// Returns the path of a PEM file and its text.
fn pem(entry: &Entry<'_>, report: &mut Report) -> Option<(PathBuf, String)> {
    let path = place(entry, NO_PEM_FILE, report)?;
    match std::fs::read_to_string(path) {
        Ok(text) => Some((path.into(), text)),
        Err(error) => {
            let text = format!("{path:?} cannot be read: {}", plain(&error));
            report.error(entry.value.span(), &entry.path, text);
            None
        }
    }
}

const NO_PEM_FILE: &str = "must be the path of a PEM file";

/// Returns whether each certificate can be used as an authority's.
fn are_authorities(certificates: &[CertificateDer<'static>]) -> bool {
    let mut roots = RootCertStore::empty();
    let mut certificates = certificates.iter();
    certificates.all(|certificate| roots.add(certificate.clone()).is_ok())
}

/// Joins a client's certificate and its key, if they fit.
fn certified(chain: Vec<CertificateDer<'static>>, key: &Secret) -> Option<CertifiedKey> {
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).ok()?;
    CertifiedKey::from_der(chain, key, &crypto_provider()).ok()
}

/// Returns the certificates in a PEM text; there is at least one.
fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().ok()?;
    (!certificates.is_empty()).then_some(certificates)
}

/// Returns the implementation of the cryptography of TLS.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}
