//! What a node shows and demands inside its group, and the two sides of the proof: `greet` the caller's, `answer` the
//! callee's. handshake.rs gives the bytes, peer.rs the connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::handshake::{self, GREETING_BYTES, Greeting, GreetingBytes, HEAD_BYTES, PROOF_BYTES, Status, VERDICT_BYTES};
use crate::identity::{DIALLED_NAME, Identity, IdentityError, carries_name};
use crate::name::{PeerName, Purpose};
use crate::peer_error::PeerError;
use crate::refusal::Refusals;
use crate::secret::MeshSecret;
use crate::stream::PeerStream;

/// What a node shows to the others of its group, and demands of them. Cheap to clone.
#[derive(Clone)]
pub struct PeerAuth {
    name: PeerName,
    key: Option<hmac::Key>,
    tls: Option<Tls>,
    refusals: Arc<Refusals>,
}

#[derive(Clone)]
struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl PeerAuth {
    /// An identity without secret or TLS: connects within this machine only.
    pub fn new(name: PeerName) -> Self {
        Self {
            name,
            key: None,
            tls: None,
            refusals: Arc::new(Refusals::new()),
        }
    }

    /// Proves and demands the mesh secret.
    #[must_use]
    pub fn with_secret(mut self, secret: &MeshSecret) -> Self {
        self.key = Some(secret.peer_key());
        self
    }

    /// Encrypts, shows this certificate and demands one. May be combined with a secret. The name to be shown becomes
    /// the identity's.
    ///
    /// # Errors
    /// If certificate and key cannot be used for TLS.
    pub fn with_tls(mut self, identity: &Identity) -> Result<Self, IdentityError> {
        self.name = identity.name().clone();
        self.tls = Some(Tls {
            acceptor: TlsAcceptor::from(Arc::new(identity.server_config(ALPN)?)),
            connector: TlsConnector::from(Arc::new(identity.client_config(ALPN)?)),
        });
        Ok(self)
    }

    /// This node's own name.
    pub fn name(&self) -> &PeerName {
        &self.name
    }

    /// Connections refused by listeners with this identity.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// Without any proof only this machine is trusted.
    pub(crate) fn check_address(&self, remote_addr: SocketAddr) -> Result<(), PeerError> {
        let open = self.key.is_none() && self.tls.is_none();
        if open && !remote_addr.ip().to_canonical().is_loopback() {
            return Err(PeerError::NeedsSecret(remote_addr));
        }
        Ok(())
    }

    fn greeting(&self, purpose: Purpose, expected: u64) -> Result<Greeting, PeerError> {
        let mut nonce = [0; 32];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| io::Error::other("no randomness from the system"))?;
        Ok(Greeting {
            name: self.name.clone(),
            purpose,
            expected,
            has_secret: self.key.is_some(),
            nonce,
        })
    }
}

impl std::fmt::Debug for PeerAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (secret, tls) = (self.key.is_some(), self.tls.is_some());
        f.debug_struct("PeerAuth")
            .field("name", &self.name)
            .field("secret", &secret)
            .field("tls", &tls)
            .finish()
    }
}

/// The caller's side. `expected_node` is 0 for any.
pub(crate) async fn greet(
    tcp: TcpStream,
    auth: &PeerAuth,
    purpose: Purpose,
    expected_node: u64,
) -> Result<(PeerName, PeerStream), PeerError> {
    let mut stream = match &auth.tls {
        None => PeerStream::plain(tcp),
        Some(tls) => {
            let server_name = ServerName::try_from(DIALLED_NAME).expect("a fixed and valid DNS name");
            PeerStream::tls(TlsStream::Client(tls.connector.connect(server_name, tcp).await?))
        }
    };
    let hello = auth.greeting(purpose, expected_node)?.encode();
    send(&mut stream, &hello).await?;
    let challenge = read_greeting(&mut stream).await?;
    let callee = Greeting::decode(&challenge)?;
    let proof = match &auth.key {
        // A callee without a secret has no use for the proof, so it gets none.
        Some(key) if callee.has_secret => handshake::caller_proof(key, &hello, &challenge),
        _ => [0; PROOF_BYTES],
    };
    send(&mut stream, &proof).await?;
    let mut verdict = [0; VERDICT_BYTES];
    stream.read_exact(&mut verdict).await?;
    let [byte, found @ ..] = verdict;
    let status = Status::from_byte(byte).ok_or(PeerError::NotAPeer)?;
    let proven = match &auth.key {
        Some(key) => handshake::same(&handshake::callee_proof(key, byte, &hello, &challenge), &found),
        None => !callee.has_secret,
    };
    if status == Status::BadSecret || !proven {
        return Err(PeerError::BadSecret);
    }
    check_certificate(&stream, &callee.name)?;
    check_verdict(status, auth, expected_node, &callee.name)?;
    Ok((callee.name, stream))
}

fn check_verdict(status: Status, auth: &PeerAuth, expected_node: u64, callee: &PeerName) -> Result<(), PeerError> {
    if status == Status::WrongName {
        return Err(PeerError::WrongName(auth.name.to_string()));
    }
    if status == Status::WrongGroup || callee.group() != auth.name.group() {
        return Err(PeerError::WrongGroup {
            expected: auth.name.group().to_owned(),
            found: callee.group().to_owned(),
        });
    }
    if status == Status::WrongNode || (expected_node != 0 && callee.node() != expected_node) {
        return Err(PeerError::WrongNode {
            expected: expected_node,
            found: callee.node(),
        });
    }
    Ok(())
}

/// The callee's side.
pub(crate) async fn answer(tcp: TcpStream, auth: &PeerAuth) -> Result<(Purpose, PeerName, PeerStream), PeerError> {
    let mut stream = match &auth.tls {
        None => PeerStream::plain(tcp),
        Some(tls) => match tls.acceptor.accept(tcp).into_fallible().await {
            Ok(stream) => PeerStream::tls(TlsStream::Server(stream)),
            Err((error, mut tcp)) => {
                // The alert that says why is written already and must not be lost. The caller's error counts.
                let _ = linger(&mut tcp).await;
                return Err(PeerError::Untrusted(error.to_string()));
            }
        },
    };
    let hello = match read_greeting(&mut stream).await {
        Err(error @ PeerError::Version { .. }) => {
            stream.write_all(&handshake::head()).await?;
            linger(&mut stream).await?;
            return Err(error);
        }
        other => other?,
    };
    let caller = Greeting::decode(&hello)?;
    let challenge = auth.greeting(Purpose(0), 0)?.encode();
    send(&mut stream, &challenge).await?;
    let mut proof = [0; PROOF_BYTES];
    stream.read_exact(&mut proof).await?;

    let verdict = judge(auth, &caller, &hello, &challenge, &proof)
        .and_then(|()| check_certificate(&stream, &caller.name))
        .and_then(|()| check_wanted(auth, &caller));
    let status = match &verdict {
        Ok(()) => Status::Welcome,
        Err(PeerError::WrongGroup { .. }) => Status::WrongGroup,
        Err(PeerError::WrongNode { .. }) => Status::WrongNode,
        Err(PeerError::WrongName(_)) => Status::WrongName,
        Err(_) => Status::BadSecret,
    };
    let mut bytes = [0; VERDICT_BYTES];
    bytes[0] = status as u8;
    // Whoever did not prove the secret gets nothing made from it.
    if let (Some(key), true) = (&auth.key, status != Status::BadSecret) {
        bytes[1..].copy_from_slice(&handshake::callee_proof(key, status as u8, &hello, &challenge));
    }
    send(&mut stream, &bytes).await?;
    verdict.map(|()| (caller.purpose, caller.name, stream))
}

/// Secret first, so that only those who know it learn whether group and node are right.
fn judge(
    auth: &PeerAuth,
    caller: &Greeting,
    hello: &GreetingBytes,
    challenge: &GreetingBytes,
    proof: &[u8; PROOF_BYTES],
) -> Result<(), PeerError> {
    let proven = match &auth.key {
        Some(key) => handshake::same(&handshake::caller_proof(key, hello, challenge), proof),
        None => !caller.has_secret,
    };
    if proven { Ok(()) } else { Err(PeerError::BadSecret) }
}

fn check_wanted(auth: &PeerAuth, caller: &Greeting) -> Result<(), PeerError> {
    if caller.name.group() != auth.name.group() {
        return Err(PeerError::WrongGroup {
            expected: auth.name.group().to_owned(),
            found: caller.name.group().to_owned(),
        });
    }
    if caller.expected != 0 && caller.expected != auth.name.node() {
        return Err(PeerError::WrongNode {
            expected: caller.expected,
            found: auth.name.node(),
        });
    }
    Ok(())
}

/// Over TLS, the certificate must carry the name that was claimed.
fn check_certificate(stream: &PeerStream, claimed: &PeerName) -> Result<(), PeerError> {
    match stream.certificate() {
        Some(certificate) if carries_name(certificate, claimed) => Ok(()),
        None if !stream.is_encrypted() => Ok(()),
        _ => Err(PeerError::WrongName(claimed.to_string())),
    }
}

async fn send(stream: &mut PeerStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Reads a greeting, but no further than its head if that is not ours.
async fn read_greeting(stream: &mut PeerStream) -> Result<GreetingBytes, PeerError> {
    let mut bytes = [0; GREETING_BYTES];
    let (head, rest) = bytes
        .split_first_chunk_mut::<HEAD_BYTES>()
        .expect("a greeting is longer than its head");
    stream.read_exact(head).await?;
    handshake::check_head(head)?;
    stream.read_exact(rest).await?;
    Ok(bytes)
}

/// Closes after reading what the other side still sends: closing with unread bytes would reset the connection and
/// could take our last words with it. The handshake's deadline bounds the time.
pub(crate) async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.shutdown().await?;
    let mut unread = [0; 256];
    for _ in 0..UNREAD_ROUNDS_MAX {
        if stream.read(&mut unread).await? == 0 {
            break;
        }
    }
    Ok(())
}

const ALPN: &[u8] = b"ferrymq-peer/1";
const UNREAD_ROUNDS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::refusal::Refusal;

    #[test]
    fn without_any_proof_only_this_machine_is_trusted() {
        let open = PeerAuth::new(PeerName::new("north", 1).unwrap());
        for (addr, trusted) in [
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
        ] {
            assert_eq!(open.check_address(addr.parse().unwrap()).is_ok(), trusted, "{addr}");
        }
        let proven = open.with_secret(&MeshSecret::new("a secret of the mesh").unwrap());
        assert!(proven.check_address("10.0.0.1:1".parse().unwrap()).is_ok());
    }

    #[tokio::test]
    async fn a_certificate_for_another_name_is_refused_whichever_side_shows_it() {
        let secret = MeshSecret::new("a secret of the mesh").unwrap();
        let honest = |node| {
            let name = PeerName::new("north", node).unwrap();
            PeerAuth::new(name.clone())
                .with_tls(&Identity::from_secret(name, &secret).unwrap())
                .unwrap()
        };
        let mut liar = honest(2);
        liar.name = PeerName::new("north", 3).unwrap();
        for (callee, caller) in [(honest(1), liar.clone()), (liar, honest(1))] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let called = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let (answered, greeted) = tokio::join!(answer(accepted, &callee), greet(called, &caller, Purpose(1), 0));
            assert!(matches!(greeted, Err(PeerError::WrongName(name)) if name == "north/3"));
            if caller.name.node() == 3 {
                assert_eq!(answered.unwrap_err().refusal(), Refusal::WrongName);
            }
        }
    }
}
