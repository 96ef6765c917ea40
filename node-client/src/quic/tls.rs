//! TLS 1.3 with raw Ed25519 public keys on both sides.

use std::{any::Any, sync::Arc};

use flash_proto::{PublicKey, SecretKey};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

use super::ConnectError;

/// TLS wants a name; keys decide, so it is always this one.
pub(super) const SERVER_NAME: &str = "flash";

/// DER of an Ed25519 SubjectPublicKeyInfo before its 32 bytes of key (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// DER of an Ed25519 private key (PKCS #8) before its 32 bytes of seed (RFC 8410).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

pub(super) fn server(key: &SecretKey, alpn: &[&[u8]]) -> Result<Arc<QuicServerConfig>, ConnectError> {
    let provider = Arc::new(provider());
    let verifier = Arc::new(KeyVerifier::new(None, &provider));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(key)?)));
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
    // Resumption would skip the client's proof of its key; it stays off, and 0-RTT with it.
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(unusable)?))
}

pub(super) fn client(
    key: &SecretKey,
    alpn: &[u8],
    expected: PublicKey,
) -> Result<Arc<QuicClientConfig>, ConnectError> {
    let provider = Arc::new(provider());
    let verifier = Arc::new(KeyVerifier::new(Some(expected), &provider));
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .dangerous() // our own verifier: it checks the key itself, and every signature
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(key)?)));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(QuicClientConfig::try_from(config).map_err(unusable)?))
}

/// What rustls offers, the suite with SHA-256 first: for the other's SHA-384 few processors have instructions, so that
/// it takes a twentieth of a handshake. 128 bits are what Ed25519 and X25519 give as well.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

fn unusable(error: impl std::fmt::Display) -> ConnectError {
    ConnectError::Key(error.to_string())
}

fn certified(key: &SecretKey) -> Result<Arc<CertifiedKey>, ConnectError> {
    let mut pkcs8 = zeroize::Zeroizing::new(PKCS8_PREFIX.to_vec());
    pkcs8.extend_from_slice(key.expose_bytes().as_ref());
    let signing = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..])).map_err(unusable)?;
    let spki = [&SPKI_PREFIX[..], key.public().as_bytes()].concat();
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signing)))
}

/// The key in a raw public key "certificate".
fn key_of(spki: &CertificateDer<'_>) -> Option<PublicKey> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?;
    Some(PublicKey::new(key.try_into().ok()?))
}

pub(super) fn key_of_identity(identity: Option<Box<dyn Any>>) -> Option<PublicKey> {
    key_of(identity?.downcast::<Vec<CertificateDer<'static>>>().ok()?.first()?)
}

pub(super) fn alpn_of(handshake: Box<dyn Any>) -> Option<Vec<u8>> {
    handshake.downcast::<HandshakeData>().ok()?.protocol
}

/// Whether the handshake failed because of the other end's key.
pub(super) fn is_wrong_key(error: &quinn::ConnectionError) -> bool {
    match error {
        quinn::ConnectionError::TransportError(error) => error.reason.contains(WRONG_KEY),
        _ => false,
    }
}

/// How rustls prints the refusal of [`KeyVerifier`].
const WRONG_KEY: &str = "ApplicationVerificationFailure";

/// Takes the expected key only, or any Ed25519 key where none is expected, and checks that the other end
/// signed the handshake with it.
#[derive(Debug)]
struct KeyVerifier {
    expected: Option<PublicKey>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KeyVerifier {
    fn new(expected: Option<PublicKey>, provider: &CryptoProvider) -> Self {
        Self { expected, algorithms: provider.signature_verification_algorithms }
    }

    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        let key = key_of(shown);
        if key.is_none() || self.expected.is_some() && key != self.expected {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(())
    }
}

/// What the traits of both ends ask for in the same words.
macro_rules! verify_handshakes {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            shown: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let spki = SubjectPublicKeyInfoDer::from(shown.as_ref());
            verify_tls13_signature_with_raw_key(message, &spki, signed, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    verify_handshakes!();
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    verify_handshakes!();
}
