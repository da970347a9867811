//! How a backend is reached: TLS, proxy, compression and their like.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use reqwest::Url;
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use toml::de::DeValue;

use super::credentials::is_absent;
use super::endpoint::Reader;
use super::file::{Entry, Section};
use super::secret::Secret;
use super::{Compression, HttpVersion, Pem, Proxy, Tls, TlsVersion, Transport, values};

impl<'t> Reader<'_, 't> {
    pub(super) fn transport(&mut self) -> Transport {
        const COMPRESSIONS: [(&str, Compression); 2] = [
            ("response", Compression::Response),
            ("both", Compression::Both),
        ];
        const HTTP_VERSIONS: [(&str, HttpVersion); 3] = [
            ("auto", HttpVersion::Auto),
            ("1.1", HttpVersion::Http1),
            ("2", HttpVersion::Http2),
        ];
        Transport {
            connect_timeout: self.duration("connect-timeout", Duration::from_secs(2)),
            pool_idle: self.duration("pool-idle", Duration::from_secs(30)),
            tls: self.tls(),
            proxy: self.proxy(),
            unix_socket: self.unix_socket(),
            compression: self
                .word("compression", &COMPRESSIONS)
                .unwrap_or(Compression::None),
            http_version: self
                .word("http-version", &HTTP_VERSIONS)
                .unwrap_or(HttpVersion::Auto),
        }
    }

    pub(super) fn follows_redirects(&mut self) -> bool {
        self.word("redirects", &[("same-origin", true)])
            .unwrap_or(false)
    }

    fn unix_socket(&mut self) -> Option<PathBuf> {
        let entry = self.section.take("unix-socket")?;
        let path = values::string(&entry, self.report)?;
        if !path.starts_with('/') {
            let text = format!("{path:?} is no absolute path");
            self.error(entry.value.span(), &entry.path, text);
        }
        Some(path.into())
    }

    fn proxy(&mut self) -> Proxy {
        let Some(entry) = self.section.take("proxy") else {
            return Proxy::None;
        };
        let Some(text) = values::private_string(&entry, self.report) else {
            return Proxy::None;
        };
        if text == "environment" {
            self.report.layout().harmless.push(entry.value.span());
            return Proxy::Environment;
        }
        let url = Url::parse(text).ok().filter(|url| {
            let is_plain = url.username().is_empty() && url.password().is_none();
            ["http", "https"].contains(&url.scheme()) && url.has_host() && is_plain
        });
        if url.is_none() {
            let text = "must be \"environment\", or a URL of http or https without a user";
            self.error(entry.value.span(), &entry.path, text);
        } else {
            self.report.layout().harmless.push(entry.value.span());
        }
        url.map_or(Proxy::None, Proxy::Url)
    }

    fn tls(&mut self) -> Tls {
        match self.section.take_members("tls", self.report) {
            Some(section) => self.tls_over(Tls::default(), section),
            None => Tls::default(),
        }
    }

    /// Reads what stands in a section; what does not is taken over.
    pub(super) fn tls_over(&mut self, mut tls: Tls, mut section: Section<'t>) -> Tls {
        const VERSIONS: [(&str, TlsVersion); 2] =
            [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
        if section.is_off("ca") {
            tls.ca = None;
        }
        if let Some(entry) = section.take("ca") {
            tls.ca = self.ca(&entry);
        }
        let (cert, key) = (section.take("client-cert"), section.take("client-key"));
        tls.identity = self.identity(&section, cert, key);
        if section.is_off("min-version") {
            tls.min_version = TlsVersion::Tls12;
        }
        if let Some(entry) = section.take("min-version") {
            let version = values::word(&entry, &VERSIONS, self.report);
            tls.min_version = version.unwrap_or(tls.min_version);
        }
        if let Some(entry) = section.take_bool("verify") {
            tls.verify = values::boolean(&entry, self.report).unwrap_or(true);
            if !tls.verify {
                let text = "anybody on the way can be the backend, and read the secrets sent";
                self.report.warning(entry.value.span(), &entry.path, text);
            }
        }
        section.finish(self.report);
        tls
    }

    fn ca(&mut self, entry: &Entry<'_>) -> Option<Pem> {
        let pem = values::pem(entry, self.report)?;
        if authorities(&pem.text).is_none() {
            let text = format!("{:?} holds no certificates as PEM", pem.path);
            self.error(entry.value.span(), &entry.path, text);
        }
        Some(pem)
    }

    fn identity(
        &mut self,
        section: &Section<'_>,
        cert: Option<Entry<'t>>,
        key: Option<Entry<'t>>,
    ) -> Option<(Pem, Secret)> {
        let (cert_entry, key) = match (cert, key) {
            (None, None) => return None,
            (Some(cert), Some(key)) => (cert, key),
            _ => {
                let text = "client-cert and client-key are of use only together";
                self.error(section.span.clone(), &section.path, text);
                return None;
            }
        };
        let cert = values::pem(&cert_entry, self.report);
        let key_secret = match key.value.get_ref() {
            DeValue::String(_) => values::secret_pem(&key, self.secrecy, self.report),
            _ => values::any_secret(&key, self.secrecy, self.report),
        };
        let (cert, key_secret) = (cert?, key_secret?);
        if !is_absent(&key_secret) && client_identity(&cert, &key_secret).is_none() {
            let text = "does not make a client certificate as PEM with client-key";
            self.error(cert_entry.value.span(), &cert_entry.path, text);
            return None;
        }
        Some((cert, key_secret))
    }
}

/// Returns the certificates of `tls.ca`; there is at least one, and each can be read.
pub fn authorities(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let certificates = certificates(pem)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).ok()?;
    }
    Some(certificates)
}

/// Puts a client's certificate and its key together, if they fit.
pub fn client_identity(cert: &Pem, key: &Secret) -> Option<CertifiedKey> {
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).ok()?;
    CertifiedKey::from_der(certificates(&cert.text)?, key, &crypto_provider()).ok()
}

/// Returns the certificates in a PEM text; there is at least one.
fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().ok()?;
    (!certificates.is_empty()).then_some(certificates)
}

/// Returns what does the cryptography of TLS.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}
