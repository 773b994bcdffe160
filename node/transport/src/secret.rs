//! The mesh secret and the keys derived from it. Every node with the same secret derives the same keys.

use std::fmt;

use ring::{hkdf, hmac};

/// Shortest mesh secret, in bytes.
pub const MESH_SECRET_BYTES_MIN: usize = 16;

/// What the nodes of a mesh share. Holds the HKDF-SHA256 state (RFC 5869), not the secret itself.
#[derive(Clone)]
pub struct MeshSecret {
    extracted: hkdf::Prk,
}

/// A secret that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Fewer bytes than [`MESH_SECRET_BYTES_MIN`].
    #[error(
        "a mesh secret has at least {MESH_SECRET_BYTES_MIN} bytes, this one has {0}: `openssl rand -base64 24` makes one"
    )]
    TooShort(usize),
}

impl MeshSecret {
    /// Takes the secret as configured.
    ///
    /// # Errors
    /// [`SecretError::TooShort`].
    pub fn new(secret: &str) -> Result<Self, SecretError> {
        if secret.len() < MESH_SECRET_BYTES_MIN {
            return Err(SecretError::TooShort(secret.len()));
        }
        Ok(Self {
            extracted: hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(secret.as_bytes()),
        })
    }

    /// The key under which discovery's announcements are tagged.
    pub fn announcement_key(&self) -> [u8; 32] {
        self.derive(b"announcement tag")
    }

    /// The key that both sides of a connection inside a group prove to have.
    pub(crate) fn peer_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.derive(b"peer handshake"))
    }

    /// The Ed25519 seed of the mesh's certificate authority.
    pub(crate) fn authority_seed(&self) -> [u8; 32] {
        self.derive(b"certificate authority")
    }

    fn derive(&self, label: &[u8]) -> [u8; 32] {
        let mut key = [0; 32];
        self.extracted
            .expand(&[label], hkdf::HKDF_SHA256)
            .and_then(|material| material.fill(&mut key))
            .expect("32 bytes are within what HKDF-SHA256 gives");
        key
    }
}

impl fmt::Debug for MeshSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshSecret(…)")
    }
}

/// Sets these keys apart from whatever else the operator may use the same secret for.
const SALT: &[u8] = b"ferrymq mesh secret, version 1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_secret_gives_the_same_keys_and_each_use_its_own() {
        let a = MeshSecret::new("correct horse battery").unwrap();
        let b = MeshSecret::new("correct horse battery").unwrap();
        let c = MeshSecret::new("correct horse batterz").unwrap();
        assert_eq!(a.announcement_key(), b.announcement_key());
        assert_eq!(a.authority_seed(), b.authority_seed());
        assert_ne!(a.announcement_key(), c.announcement_key());
        assert_ne!(a.announcement_key(), a.authority_seed());
    }

    #[test]
    fn a_short_secret_is_refused_and_never_printed() {
        assert_eq!(
            MeshSecret::new("fifteen bytes !").unwrap_err(),
            SecretError::TooShort(15)
        );
        let secret = MeshSecret::new("sixteen bytes !!").unwrap();
        assert!(!format!("{secret:?}").contains("sixteen"));
    }
}
