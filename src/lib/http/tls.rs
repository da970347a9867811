//! TLS to backends: which certificates are trusted, and which client certificate is sent.
//!
//! Each certificate of `tls.ca` is pinned: a server with exactly this certificate is trusted within
//! its dates and for its names, even if no authority has signed it. A certificate with CA:TRUE is
//! also an authority, and certificates that it has signed are trusted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::steps::{Step, note};
use crate::config::{HttpVersion, Tls, TlsVersion, crypto_provider};

/// Makes the configuration that all connections with these settings share, with their TLS sessions.
///
/// The system's authorities are read only if the settings name no others.
pub fn client_config(
    tls: &Tls,
    version: HttpVersion,
    system: &mut Authorities,
) -> Result<ClientConfig, String> {
    let text = |error: Error| error.to_string();
    let provider = crypto_provider();
    let verifier: Arc<dyn ServerCertVerifier> = match &tls.ca {
        _ if !tls.verify => Arc::new(Unverified::new(&provider)),
        None => Arc::new(PinningVerifier::signed_by(system.read()?, &provider)),
        Some(ca) => Arc::new(PinningVerifier::of(ca.chain.clone(), &provider)),
    };
    let versions: &[_] = match tls.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(text)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let certified = identity.certified.clone();
            let certified = certified.ok_or("tls.client-key cannot be read")?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    };
    config.alpn_protocols = protocols(version);
    Ok(config)
}

/// Returns the protocols that ALPN offers (RFC 7301).
fn protocols(version: HttpVersion) -> Vec<Vec<u8>> {
    match version {
        HttpVersion::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        HttpVersion::Http1 => vec![b"http/1.1".to_vec()],
        HttpVersion::Http2 => vec![b"h2".to_vec()],
    }
}

/// The system's authorities, read once, and only if a table needs them.
#[derive(Debug, Default)]
pub struct Authorities(Option<Result<Arc<RootCertStore>, String>>);

impl Authorities {
    /// Returns the authorities, or the reason why there are none.
    pub fn read(&mut self) -> Result<Arc<RootCertStore>, String> {
        let read = || system_authorities().map(Arc::new);
        self.0.get_or_insert_with(read).clone()
    }
}

/// Reads the system's authorities, from SSL_CERT_FILE and SSL_CERT_DIR if they are set.
fn system_authorities() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let cause = found.errors.first().map(|error| format!(": {error}"));
        return Err(format!(
            "no system certificate authorities for https: install ca-certificates, or set tls.ca{}",
            cause.unwrap_or_default()
        ));
    }
    Ok(roots)
}

/// Trusts certificates that an authority has signed, and those that are pinned.
#[derive(Debug)]
struct PinningVerifier {
    roots: Arc<RootCertStore>,
    pinned: Vec<Pinned>,
    /// Whether any pinned certificate is not an authority's.
    has_leaves: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

/// A certificate that is trusted by itself, within its dates.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    not_before: UnixTime,
    not_after: UnixTime,
}

impl PinningVerifier {
    /// Trusts the certificates that these authorities have signed.
    fn signed_by(roots: Arc<RootCertStore>, provider: &CryptoProvider) -> Self {
        Self {
            roots,
            pinned: Vec::new(),
            has_leaves: false,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    /// Trusts these certificates themselves, and those that the authorities among them have signed.
    fn of(certificates: Vec<CertificateDer<'static>>, provider: &CryptoProvider) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        let mut roots = RootCertStore::empty();
        let mut pinned = Vec::new();
        let mut has_leaves = false;
        for certificate in certificates {
            if may_sign(&certificate, algorithms.all) {
                roots.add_parsable_certificates([certificate.clone()]);
            } else {
                has_leaves = true;
            }
            pinned.extend(Pinned::new(certificate, algorithms.all));
        }
        Self {
            roots: Arc::new(roots),
            pinned,
            has_leaves,
            algorithms,
        }
    }

    /// Explains why a certificate is not trusted: webpki's own text names a rule, not a remedy.
    fn explained(&self, error: Error) -> Error {
        let because = |cause| CertificateError::Other(OtherError(Arc::new(cause))).into();
        match error {
            Error::InvalidCertificate(CertificateError::Other(other))
                if is_for_authority(&other) =>
            {
                because(UntrustedCause::SelfSigned)
            }
            Error::InvalidCertificate(CertificateError::UnknownIssuer) if self.has_leaves => {
                because(UntrustedCause::NotPinned)
            }
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                because(UntrustedCause::Unknown)
            }
            error => error,
        }
    }
}

/// Returns whether a certificate of `tls.ca` is an authority's (RFC 5280, 4.2.1.9).
///
/// webpki does not ask this of its trust anchors: with a server's certificate among them, the owner
/// of that server's key could sign certificates for any name.
fn may_sign(
    certificate: &CertificateDer<'_>,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> bool {
    // webpki refuses a certificate of version 1, which has no extensions, except as a root.
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else {
        return true;
    };
    // Within its dates, since webpki reports those before it looks at the extension.
    let time = start(&parsed, algorithms);
    matches!(
        probe(&parsed, time, algorithms),
        Some(CertificateError::Other(other)) if is_for_authority(&other)
    )
}

/// Returns the time from which a certificate is valid.
fn start(
    certificate: &ParsedCertificate<'_>,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> UnixTime {
    let epoch = UnixTime::since_unix_epoch(Duration::ZERO);
    match probe(certificate, epoch, algorithms) {
        Some(CertificateError::NotValidYetContext { not_before, .. }) => not_before,
        _ => epoch,
    }
}

/// Returns the error of webpki for a server with this certificate while no authority is trusted.
fn probe(
    certificate: &ParsedCertificate<'_>,
    time: UnixTime,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> Option<CertificateError> {
    let none = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(certificate, &none, &[], time, algorithms) {
        Err(Error::InvalidCertificate(error)) => Some(error),
        _ => None,
    }
}

/// Returns whether webpki refuses a server's certificate because it has CA:TRUE.
fn is_for_authority(error: &OtherError) -> bool {
    error.to_string() == "CaUsedAsEndEntity"
}

impl Pinned {
    /// Pins a certificate. Its dates are read from the errors that webpki returns at the ends of
    /// time, since it has no function for them.
    fn new(
        certificate: CertificateDer<'static>,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Option<Self> {
        let parsed = ParsedCertificate::try_from(&certificate).ok()?;
        let not_before = start(&parsed, algorithms);
        let end_of_time = UnixTime::since_unix_epoch(Duration::MAX);
        let Some(CertificateError::ExpiredContext { not_after, .. }) =
            probe(&parsed, end_of_time, algorithms)
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

impl ServerCertVerifier for PinningVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(pinned) = self.pinned.iter().find(|p| p.certificate == *certificate) {
            return pinned.verify(name, now);
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        // The same two steps as in WebPkiServerVerifier, which cannot be made without an authority.
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )
        .map_err(|error| self.explained(error))?;
        verify_server_name(&parsed, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    /// rustls asks for these first in each handshake.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        note(Step::Handshake);
        self.algorithms.supported_schemes()
    }
}

/// Why a server's certificate is not trusted.
#[derive(Debug)]
enum UntrustedCause {
    /// The certificate is an authority's.
    SelfSigned,
    /// No authority that is trusted has signed it.
    Unknown,
    /// The certificate is not in `tls.ca`, and no authority there has signed it.
    NotPinned,
}

impl std::error::Error for UntrustedCause {}

impl fmt::Display for UntrustedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SelfSigned => {
                "self-signed, or an authority's own; to trust exactly this one, name it as tls.ca"
            }
            Self::Unknown => {
                "UnknownIssuer; to trust it, name its authority as tls.ca, or itself if self-signed"
            }
            Self::NotPinned => {
                "unknown issuer; a certificate of tls.ca without CA:TRUE is trusted only for itself"
            }
        })
    }
}

/// Trusts any certificate, for `verify = false`.
#[derive(Debug)]
struct Unverified(Vec<SignatureScheme>);

impl Unverified {
    fn new(provider: &CryptoProvider) -> Self {
        let mut schemes = provider
            .signature_verification_algorithms
            .supported_schemes();
        // Old appliances sign with SHA-1, and `verify = false` is mostly for them.
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
        note(Step::Handshake);
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// From `openssl x509 -req -signkey`, which makes version 1.
    const OF_VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBFTCBvQIUQ/zvtzLBicgKPtgazsFQpxVAsqkwCgYIKoZIzj0EAwIwDTELMAkG
A1UEAwwCdjEwIBcNMjYxMTI4MTQxNTUzWhgPMjEyNjExMDQxNDE1NTNaMA0xCzAJ
BgNVBAMMAnYxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEztnvsLgK5u5/Lj2L
OEWYMTweO8dTj3JkVZxRXqanORN77sGh9XA4mcXWSyWpZqGJ8gXLOQ9zxRIfd7Ha
mYHzHTAKBggqhkjOPQQDAgNHADBEAiBmS0SyXT4t/KCq9EFl+S95iQnfR+LVUvgK
UDOAP9l41gIgf9rWfH8o+Axy6nKVJaI9aipBdK3NucZKXap8vm8X/d8=
-----END CERTIFICATE-----";

    /// From `openssl ca -selfsign`: CA:FALSE, and valid since 1970-01-01T00:00:00Z.
    const OF_ALL_TIME: &str = "\
-----BEGIN CERTIFICATE-----
MIIBXTCCAQSgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNNzAwMTAxMDAwMDAwWhgPMjA5OTEyMzEyMzU5NTlaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABM7Z77C4Cubufy49
izhFmDE8HjvHU49yZFWcUV6mpzkTe+7BofVwOJnF1kslqWahifIFyzkPc8USH3ex
2pmB8x2jRTBDMAwGA1UdEwEB/wQCMAAwFAYDVR0RBA0wC4IJbG9jYWxob3N0MB0G
A1UdDgQWBBSr9aSlkKdQc3bleFtCShx3dzn+GjAKBggqhkjOPQQDAgNHADBEAiAZ
GbayArIw1WBmSF2uGDeboKOjwuSaD6R0LL0Fia5yTgIgAYSPNTNEXR6ClrxWdo1E
fTwELzDRDG8EAGn+U6aftjA=
-----END CERTIFICATE-----";

    #[test]
    fn a_certificate_that_was_always_valid_is_pinned() {
        let certificate = CertificateDer::from_pem_slice(OF_ALL_TIME.as_bytes()).unwrap();
        let pinning = PinningVerifier::of(vec![certificate], &crypto_provider());
        assert_eq!((pinning.pinned.len(), pinning.has_leaves), (1, true));
    }

    #[test]
    fn a_root_of_version_1_is_an_authority() {
        let certificate = CertificateDer::from_pem_slice(OF_VERSION_1.as_bytes()).unwrap();
        let pinning = PinningVerifier::of(vec![certificate], &crypto_provider());
        assert_eq!((pinning.roots.len(), pinning.has_leaves), (1, false));
    }
}
