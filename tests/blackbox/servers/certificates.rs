//! Certificates: an authority of a test, and the certificates that it signs.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use crate::support::Directory;

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// When a certificate is valid.
#[derive(Clone, Copy)]
pub(crate) enum Validity {
    Now,
    Over,
    NotYet,
}

/// A certificate and its key.
pub(crate) struct Identity {
    params: CertificateParams,
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority of the tests");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A server on 127.0.0.1.
    pub(crate) fn server(&self) -> Identity {
        self.server_named("127.0.0.1", Validity::Now)
    }

    /// A server with this name or address.
    pub(crate) fn server_named(&self, name: &str, validity: Validity) -> Identity {
        self.sign(name, ExtendedKeyUsagePurpose::ServerAuth, validity)
    }

    /// A client.
    pub(crate) fn client(&self) -> Identity {
        self.sign(
            "a-client.example",
            ExtendedKeyUsagePurpose::ClientAuth,
            Validity::Now,
        )
    }

    fn sign(&self, name: &str, purpose: ExtendedKeyUsagePurpose, validity: Validity) -> Identity {
        let mut params = named(name, validity);
        params.extended_key_usages = vec![purpose];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer);
        Identity {
            params,
            certificate: certificate.expect("a certificate"),
            key,
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Writes the certificate to a file for `tls.ca`.
    pub(crate) fn file(&self, directory: &Path, name: &str) -> PathBuf {
        write(directory, name, &self.pem())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let der = self.certificate.der().clone();
        roots.add(der).expect("a root certificate");
        Arc::new(roots)
    }
}

/// The name or address of a certificate, and its lifetime.
fn named(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![match name.parse::<Ipv4Addr>() {
        Ok(address) => SanType::IpAddress(IpAddr::V4(address)),
        Err(_) => SanType::DnsName(name.try_into().expect("a name")),
    }];
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = match validity {
        Validity::Now => (date_time_ymd(2000, 1, 1), date_time_ymd(3000, 1, 1)),
        Validity::Over => (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1)),
        Validity::NotYet => (date_time_ymd(2900, 1, 1), date_time_ymd(3000, 1, 1)),
    };
    params
}

impl Identity {
    /// A certificate as `openssl req -x509` makes it: signed by its own key, and marked as an
    /// authority's.
    pub(crate) fn self_signed(name: &str, validity: Validity) -> Self {
        Self::alone(name, validity, IsCa::Ca(BasicConstraints::Unconstrained))
    }

    /// The same, marked as nobody's authority.
    pub(crate) fn self_signed_leaf(name: &str, validity: Validity) -> Self {
        Self::alone(name, validity, IsCa::ExplicitNoCa)
    }

    /// The same, without basicConstraints.
    pub(crate) fn self_signed_unmarked(name: &str) -> Self {
        Self::alone(name, Validity::Now, IsCa::NoCa)
    }

    fn alone(name: &str, validity: Validity, is_ca: IsCa) -> Self {
        let mut params = named(name, validity);
        params.is_ca = is_ca;
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            params,
            certificate,
            key,
        }
    }

    /// A server's certificate that this one has signed.
    pub(crate) fn signs(&self, name: &str) -> Self {
        let issuer = Issuer::from_params(&self.params, &self.key);
        let key = KeyPair::generate().expect("a key");
        let params = named(name, Validity::Now);
        let certificate = params.signed_by(&key, &issuer);
        Self {
            params,
            certificate: certificate.expect("a certificate"),
            key,
        }
    }

    /// The same certificate in the hands of somebody with another key.
    pub(crate) fn stolen(&self) -> Self {
        Self {
            params: self.params.clone(),
            certificate: self.certificate.clone(),
            key: KeyPair::generate().expect("a key"),
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    /// Writes certificate and key to `NAME.pem` and `NAME.key`.
    pub(crate) fn files(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        (
            write(directory, &format!("{name}.pem"), &self.pem()),
            write(directory, &format!("{name}.key"), &self.key_pem()),
        )
    }

    /// How a server speaks TLS with this identity.
    pub(crate) fn tls(&self) -> Tls<'_> {
        Tls {
            identity: self,
            clients: None,
            versions: vec![&TLS12, &TLS13],
            protocols: Vec::new(),
        }
    }
}

/// How a server speaks TLS.
pub(crate) struct Tls<'i> {
    identity: &'i Identity,
    clients: Option<Arc<RootCertStore>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    protocols: Vec<Vec<u8>>,
}

impl Tls<'_> {
    /// Demands a client certificate of this authority.
    pub(crate) fn demanding(mut self, authority: &Authority) -> Self {
        self.clients = Some(authority.roots());
        self
    }

    /// Knows TLS 1.2 only.
    pub(crate) fn old(mut self) -> Self {
        self.versions = vec![&TLS12];
        self
    }

    /// Knows TLS 1.3 only.
    pub(crate) fn new_only(mut self) -> Self {
        self.versions = vec![&TLS13];
        self
    }

    /// Offers these protocols by ALPN.
    pub(crate) fn offering(mut self, protocols: &[&str]) -> Self {
        self.protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    pub(crate) fn config(self) -> Arc<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)
            .expect("known versions");
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(roots) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .expect("a verifier"),
            ),
        };
        let chain = vec![self.identity.der().clone()];
        let key = PrivateKeyDer::try_from(self.identity.key.serialize_der()).expect("a key");
        // Whether they fit is for the clients to find out.
        let key = aws_lc_rs::sign::any_supported_type(&key).expect("a key");
        let shown = SingleCertAndKey::from(CertifiedKey::new(chain, key));
        let mut config = builder.with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = self.protocols;
        Arc::new(config)
    }
}

/// Writes a file and tells its path.
pub(crate) fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("a written file");
    path
}

/// A directory with the file of an authority, for the length of a test.
pub(crate) fn authority() -> (Authority, Directory, String) {
    let authority = Authority::new();
    let directory = Directory::new();
    let file = authority.file(directory.path(), "ca.pem");
    let key = format!("tls.ca = \"{}\"\n", file.display());
    (authority, directory, key)
}
