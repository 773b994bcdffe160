//! The certificate with which a node shows who it is over TLS and QUIC, and the authorities that it trusts.
//!
//! With a mesh secret every node derives the same authority and signs its own certificate, anew at each start. Whoever
//! has the secret can therefore take any name in the mesh; certificates made by the operator remove that.
//!
//! A certificate names a node by one DNS name (see [`certificate_name`]). TLS proves that the certificate is trusted;
//! the name is claimed in the first message and compared with the certificate after that, because
//! one who dials a static address does not know beforehand who is there.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::name::PeerName;
use crate::secret::MeshSecret;

/// A node's certificate, its key, and whom it trusts. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    name: PeerName,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

/// The operator's own certificate, as files in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemFiles {
    /// The node's certificate, followed by intermediate ones if there are any.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
    /// The authorities whose certificates are trusted.
    pub authorities: PathBuf,
}

/// An identity that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or holds no PEM of the wanted kind.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate does not carry this node's name.
    #[error("{path}: the certificate must carry the DNS name '{name}' (subjectAltName)")]
    WrongName {
        /// The certificate's file.
        path: PathBuf,
        /// What it should carry.
        name: String,
    },
    /// Certificate, key and authorities do not go together.
    #[error("certificate: {0}")]
    Unusable(String),
}

impl Identity {
    /// Makes a certificate for this node, signed by the authority that the secret gives.
    ///
    /// # Errors
    /// [`IdentityError::Unusable`], which no valid name leads to.
    pub fn from_secret(name: PeerName, secret: &MeshSecret) -> Result<Self, IdentityError> {
        let authority_key = ed25519_key(&secret.authority_seed())?;
        let authority = authority_params();
        let root = authority.self_signed(&authority_key).map_err(unusable)?;
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(unusable)?;
        let mut params = CertificateParams::new([certificate_name(&name)]).map_err(unusable)?;
        params.distinguished_name = common_name(&name.to_string());
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params
            .signed_by(&key, &Issuer::new(authority, authority_key))
            .map_err(unusable)?;
        let mut roots = RootCertStore::empty();
        roots.add(root.into()).map_err(unusable)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok(Self::assemble(name, vec![certificate.into()], key.into(), roots))
    }

    /// Loads the operator's certificate, which must carry the node's [`certificate_name`] and allow both server and
    /// client authentication.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn from_pem(name: PeerName, files: &PemFiles) -> Result<Self, IdentityError> {
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| in_file(&files.key, error))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.authorities)? {
            roots
                .add(authority)
                .map_err(|error| in_file(&files.authorities, error))?;
        }
        if !carries_name(&chain[0], &name) {
            return Err(IdentityError::WrongName {
                path: files.certificate.clone(),
                name: certificate_name(&name),
            });
        }
        let identity = Self::assemble(name, chain, key, roots);
        // Now rather than at the first connection: does the key belong to the certificate?
        identity.server_config(b"check")?;
        identity.client_config(b"check")?;
        Ok(identity)
    }

    /// The node's name, as its certificate carries it.
    pub fn name(&self) -> &PeerName {
        &self.name
    }

    fn assemble(
        name: PeerName,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: RootCertStore,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self {
            name,
            chain,
            key: Arc::new(key),
            roots: Arc::new(roots),
            provider,
        }
    }

    /// TLS 1.3 for the accepting side, demanding a certificate from the other.
    pub(crate) fn server_config(&self, alpn: &[u8]) -> Result<ServerConfig, IdentityError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .build()
            .map_err(unusable)?;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(unusable)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        // Connections last for days, so resuming saves nothing, and each one shall prove itself anew.
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// TLS 1.3 for the dialling side. The other's name is left to [`carries_name`].
    pub(crate) fn client_config(&self, alpn: &[u8]) -> Result<ClientConfig, IdentityError> {
        let verifier = ChainVerifier {
            roots: self.roots.clone(),
            provider: self.provider.clone(),
        };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(unusable)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The DNS name that a node's certificate carries: `n‹node›.‹group›.ferrymq`.
///
/// DNS names know neither case nor every character of a group's name; a group that does not fit stands as `x--` and
/// the first half of its SHA-256 in hexadecimal, so that no two groups share a name.
pub fn certificate_name(name: &PeerName) -> String {
    let group = name.group();
    let plain = group.len() <= LABEL_BYTES_MAX
        && group
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !group.starts_with('-')
        && !group.ends_with('-')
        && !group.starts_with(HASHED);
    if plain {
        return format!("n{}.{group}.ferrymq", name.node());
    }
    let hash = digest::digest(&digest::SHA256, group.as_bytes());
    let hex: String = hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("n{}.{HASHED}{hex}.ferrymq", name.node())
}

/// Whether a certificate, trusted already, carries this name.
pub(crate) fn carries_name(certificate: &CertificateDer<'_>, name: &PeerName) -> bool {
    let Ok(server_name) = ServerName::try_from(certificate_name(name)) else {
        return false;
    };
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, &server_name).is_ok())
}

/// What a dialling node puts where TLS wants a server's name; the same for all, so that it tells listeners nothing.
pub(crate) const DIALLED_NAME: &str = "mesh.ferrymq";

/// Verifies that a certificate chains up to a trusted authority, and leaves the name to [`carries_name`].
#[derive(Debug)]
struct ChainVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The authority's certificate but for its key: the same on every node, as trust goes by subject and key.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("FerryMQ mesh");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params
}

fn common_name(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished = rcgen::DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Wraps a seed in PKCS#8 (RFC 8410 section 7, version 1: without the public key).
fn ed25519_key(seed: &[u8; 32]) -> Result<KeyPair, IdentityError> {
    let mut pkcs8 = Vec::from(ED25519_PKCS8_PREFIX);
    pkcs8.extend_from_slice(seed);
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &rcgen::PKCS_ED25519).map_err(unusable)
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| in_file(path, error))?;
    if found.is_empty() {
        return Err(in_file(path, "holds no certificate in PEM form"));
    }
    Ok(found)
}

pub(crate) fn in_file(path: &Path, reason: impl fmt::Display) -> IdentityError {
    IdentityError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

pub(crate) fn unusable(error: impl fmt::Display) -> IdentityError {
    IdentityError::Unusable(error.to_string())
}

impl From<IdentityError> for io::Error {
    fn from(error: IdentityError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

const HASHED: &str = "x--";
/// Longest label of a DNS name (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;
/// SEQUENCE { INTEGER 0, SEQUENCE { OID 1.3.101.112 }, OCTET STRING { OCTET STRING of 32 bytes } }.
const ED25519_PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn name(group: &str, node: u64) -> PeerName {
        PeerName::new(group, node).unwrap()
    }

    #[test]
    fn a_certificate_carries_its_own_name_and_no_other() {
        let secret = MeshSecret::new("a secret of the mesh").unwrap();
        for own in [
            name("north", 1),
            name("North", 1),
            name("a.b_c", 1),
            name(&"g".repeat(64), u64::MAX),
        ] {
            let identity = Identity::from_secret(own.clone(), &secret).unwrap();
            for other in [
                &own,
                &name("north", 1),
                &name("north", 2),
                &name("NORTH", 1),
                &name("n1.north", 1),
            ] {
                assert_eq!(carries_name(&identity.chain[0], other), *other == own, "{own} {other}");
            }
        }
    }

    #[test]
    fn names_that_dns_cannot_tell_apart_are_hashed() {
        assert_eq!(certificate_name(&name("north-2", 3)), "n3.north-2.ferrymq");
        let hashed = ["North-2", "a.b", "a_b", "-a", "x--a", &"g".repeat(64)].map(|g| certificate_name(&name(g, 3)));
        assert!(
            hashed
                .iter()
                .all(|n| n.starts_with("n3.x--") && n.len() == "n3.x--.ferrymq".len() + 32),
            "{hashed:?}"
        );
    }

    #[test]
    fn every_node_derives_the_same_authority() {
        let secret = MeshSecret::new("a secret of the mesh").unwrap();
        let [a, b] = [1, 2].map(|node| Identity::from_secret(name("north", node), &secret).unwrap());
        assert_eq!(a.roots.roots, b.roots.roots);
        let other = MeshSecret::new("another secret of it").unwrap();
        assert_ne!(
            a.roots.roots,
            Identity::from_secret(name("north", 1), &other).unwrap().roots.roots
        );
    }
}
