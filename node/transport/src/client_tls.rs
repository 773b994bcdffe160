//! TLS on clients' connections: the port's side, which may demand certificates, and the side of our own client.
//!
//! TLS 1.2 and 1.3. No session is resumed, so that a certificate is verified at each connection, with its expiry.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::auth::linger;
use crate::certificate_names::certificate_names;
use crate::identity::{IdentityError, certificates, in_file, unusable};
use crate::refusal::{Refusal, Refusals};

/// What clients meet at a port with TLS. Cheap to clone.
#[derive(Clone)]
pub struct TlsDoor {
    acceptor: TlsAcceptor,
    refusals: Arc<Refusals>,
}

impl TlsDoor {
    /// Shows `certificate`, and with `clients` asks for theirs: signed by the authority in that file, and required or
    /// not.
    ///
    /// # Errors
    /// Where a file cannot be read or certificate and key do not belong together.
    pub fn from_pem(certificate: &Path, key: &Path, clients: Option<(&Path, bool)>) -> Result<Self, IdentityError> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unusable)?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some((authorities, required)) => {
                let roots = Arc::new(roots(authorities)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = if required {
                    verifier
                } else {
                    verifier.allow_unauthenticated()
                };
                builder.with_client_cert_verifier(verifier.build().map_err(unusable)?)
            }
        };
        let chain = certificates(certificate)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(key, error))?;
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            refusals: Arc::new(Refusals::new()),
        })
    }

    /// Performs the handshake. Answers the connection and the names in the client's certificate: its common names, and
    /// its alternative names that are DNS names, addresses of mail or URIs. None where it failed or took longer than
    /// `deadline`, which is counted and logged.
    pub async fn accept(
        &self,
        tcp: TcpStream,
        from: SocketAddr,
        deadline: Duration,
    ) -> Option<(TlsClientStream, Vec<String>)> {
        match timeout(deadline, self.handshake(tcp)).await {
            Ok(Ok(accepted)) => Some(accepted),
            Ok(Err(error)) => {
                self.refusals.note(Refusal::Untrusted, from, "stomp_tls", &error);
                None
            }
            Err(_) => {
                self.refusals
                    .note(Refusal::Unfinished, from, "stomp_tls", &"no handshake in time");
                None
            }
        }
    }

    async fn handshake(&self, tcp: TcpStream) -> io::Result<(TlsClientStream, Vec<String>)> {
        match self.acceptor.accept(tcp).into_fallible().await {
            Ok(stream) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let names = shown.map(certificate_names).unwrap_or_default();
                Ok((TlsClientStream(Box::new(TlsStream::Server(stream))), names))
            }
            Err((error, mut tcp)) => {
                // The alert that says why is written already and must not be lost.
                let _ = linger(&mut tcp).await;
                Err(error)
            }
        }
    }

    /// Connections refused here.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }
}

impl fmt::Debug for TlsDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsDoor").finish_non_exhaustive()
    }
}

/// Connects to such a port. Cheap to clone.
#[derive(Clone)]
pub struct TlsDialer {
    connector: TlsConnector,
}

impl TlsDialer {
    /// Trusts servers with a certificate signed by an authority in the file `authorities`, and shows `own` (certificate
    /// and key) where it is asked.
    ///
    /// # Errors
    /// Where a file cannot be read, or certificate and key do not belong together.
    pub fn from_pem(authorities: &Path, own: Option<(&Path, &Path)>) -> Result<Self, IdentityError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unusable)?
            .with_root_certificates(roots(authorities)?);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(key, error))?;
                builder.with_client_auth_cert(chain, key).map_err(unusable)?
            }
        };
        config.resumption = Resumption::disabled();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Performs the handshake; the server's certificate must carry `host`, a name or an address.
    ///
    /// # Errors
    /// Where the connection fails or the certificate is not trusted; the text says which.
    pub async fn connect(&self, host: &str, tcp: TcpStream) -> io::Result<TlsClientStream> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is no name for TLS")))?;
        let stream = self.connector.connect(name, tcp).await?;
        Ok(TlsClientStream(Box::new(TlsStream::Client(stream))))
    }
}

impl fmt::Debug for TlsDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsDialer").finish_non_exhaustive()
    }
}

/// A client's connection with TLS, either side.
#[derive(Debug)]
pub struct TlsClientStream(Box<TlsStream<TcpStream>>);

impl AsyncRead for TlsClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(file: &Path) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(file)? {
        let authority: CertificateDer<'static> = authority;
        roots.add(authority).map_err(|error| in_file(file, error))?;
    }
    Ok(roots)
}
