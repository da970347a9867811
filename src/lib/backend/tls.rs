//! TLS toward backends: whose certificate is trusted, and what is shown of ours.
//!
//! A certificate of `tls.ca` is an authority, and it is also pinned: a server that shows exactly this
//! certificate is trusted, though nobody else has signed it, by its dates and its names.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use crate::config::{HttpVersion, Tls, TlsVersion, authorities, client_identity, crypto_provider};

/// Makes what all connections with these settings share, their sessions included.
///
/// The system's authorities are read only where nothing else says who is trusted.
pub fn client_config(
    tls: &Tls,
    version: HttpVersion,
    system: &mut Authorities,
) -> Result<ClientConfig, String> {
    let words = |error: Error| error.to_string();
    let provider = crypto_provider();
    let verifier: Arc<dyn ServerCertVerifier> = match &tls.ca {
        _ if !tls.verify => Arc::new(Unverified::new(&provider)),
        None => Arc::new(Pinning::new(system.read()?, Vec::new(), &provider)?),
        Some(ca) => {
            let (roots, pinned) = authorities(&ca.text).ok_or("tls.ca cannot be read")?;
            Arc::new(Pinning::new(Arc::new(roots), pinned, &provider)?)
        }
    };
    let versions: &[_] = match tls.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(words)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let identity = client_identity(cert, key).ok_or("tls.client-cert cannot be read")?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
    };
    config.alpn_protocols = protocols(version);
    Ok(config)
}

/// Returns what is offered by ALPN (RFC 7301).
fn protocols(version: HttpVersion) -> Vec<Vec<u8>> {
    match version {
        HttpVersion::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        HttpVersion::Http1 => vec![b"http/1.1".to_vec()],
        HttpVersion::Http2 => vec![b"h2".to_vec()],
    }
}

/// The system's authorities, read once, when somebody needs them.
#[derive(Debug, Default)]
pub struct Authorities(Option<Result<Arc<RootCertStore>, String>>);

impl Authorities {
    /// Returns them, or why there are none.
    pub fn read(&mut self) -> Result<Arc<RootCertStore>, String> {
        let read = || system_authorities().map(Arc::new);
        self.0.get_or_insert_with(read).clone()
    }
}

/// Reads the system's authorities: SSL_CERT_FILE and SSL_CERT_DIR say where, if they are set.
fn system_authorities() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let cause = found.errors.first().map(|error| format!(": {error}"));
        return Err(format!(
            "no authorities of the system for https: install ca-certificates, or set tls.ca{}",
            cause.unwrap_or_default()
        ));
    }
    Ok(roots)
}

/// Trusts what authorities have signed, and the certificates that are pinned.
#[derive(Debug)]
struct Pinning {
    chains: Arc<WebPkiServerVerifier>,
    pinned: Vec<Pinned>,
}

/// A certificate that is trusted for itself, from then until then.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    not_before: UnixTime,
    not_after: UnixTime,
}

impl Pinning {
    fn new(
        roots: Arc<RootCertStore>,
        pinned: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let pin = |certificate| Pinned::new(certificate, &roots, provider);
        let pinned = pinned.into_iter().filter_map(pin).collect();
        let chains = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { chains, pinned })
    }
}

impl Pinned {
    /// Pins a certificate, if its dates can be had: what the verification says of it at either end
    /// of time names them.
    fn new(
        certificate: CertificateDer<'static>,
        roots: &RootCertStore,
        provider: &CryptoProvider,
    ) -> Option<Self> {
        let parsed = ParsedCertificate::try_from(&certificate).ok()?;
        let algorithms = provider.signature_verification_algorithms.all;
        let at = |seconds| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, &[], time, algorithms)
        };
        let Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) = at(0)
        else {
            return None;
        };
        let Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) =
            at(u64::MAX)
        else {
            return None;
        };
        Some(Self {
            certificate,
            not_before,
            not_after,
        })
    }

    fn verify(&self, name: &ServerName<'_>, time: UnixTime) -> Result<ServerCertVerified, Error> {
        let (not_before, not_after) = (self.not_before, self.not_after);
        if time < not_before {
            return Err(CertificateError::NotValidYetContext { time, not_before }.into());
        }
        if time > not_after {
            return Err(CertificateError::ExpiredContext { time, not_after }.into());
        }
        verify_server_name(&ParsedCertificate::try_from(&self.certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Pinning {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(pinned) = self.pinned.iter().find(|p| p.certificate == *certificate) {
            return pinned.verify(name, now);
        }
        self.chains
            .verify_server_cert(certificate, intermediates, name, ocsp, now)
            .map_err(explained)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Says more of a self-signed certificate than webpki, which has one word for it.
fn explained(error: Error) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other))
            if other.to_string() == "CaUsedAsEndEntity" =>
        {
            CertificateError::Other(OtherError(Arc::new(SelfSigned))).into()
        }
        error => error,
    }
}

/// A server shows the certificate of an authority.
#[derive(Debug)]
struct SelfSigned;

impl std::error::Error for SelfSigned {}

impl fmt::Display for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "self-signed, or an authority's own; to trust exactly this one, name it as tls.ca",
        )
    }
}

/// Trusts everybody, as `verify = false` says.
#[derive(Debug)]
struct Unverified(Vec<SignatureScheme>);

impl Unverified {
    fn new(provider: &CryptoProvider) -> Self {
        let mut schemes = provider
            .signature_verification_algorithms
            .supported_schemes();
        // Certificates that old appliances make.
        schemes.extend([
            SignatureScheme::RSA_PKCS1_SHA1,
            SignatureScheme::ECDSA_SHA1_Legacy,
        ]);
        Self(schemes)
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
