//! Connections between our processes: opened and accepted here, each with who is at its other end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::warn;

use super::client_without_certificate;
use super::role::Role;

/// How long connecting or a handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many handshakes run at once; other callers wait in the kernel's queue.
const HANDSHAKES: usize = 64;
/// How long nobody is accepted after accepting failed, as it does when descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Option<Role>,
}

impl Connection {
    fn new(stream: TlsStream<TcpStream>) -> io::Result<Self> {
        let peer = peer(stream.get_ref().1)?;
        Ok(Self { stream, peer })
    }

    /// Who is at its other end; nobody knows it of one who had to prove nothing.
    pub fn peer(&self) -> Option<&Role> {
        self.peer.as_ref()
    }
}

/// Who is at the other end, after a handshake in which it showed a certificate, if it had to.
fn peer(state: &CommonState) -> io::Result<Option<Role>> {
    let chain = state.peer_certificates().unwrap_or_default();
    let role = chain.first().map(Role::of).transpose();
    role.map_err(io::Error::other)
}

/// Opens a connection to whom the configuration expects at this address.
pub async fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Connection> {
    open(address, address.ip().into(), config).await
}

/// Opens one to a controller by one who has no certificate yet; `authorities` are those by which it is believed, in PEM.
pub async fn connect_to_controller(at: &str, authorities: &[u8]) -> io::Result<Connection> {
    let config = client_without_certificate(authorities).map_err(io::Error::other)?;
    let name = Role::Controller.to_string().try_into();
    open(at, name.map_err(io::Error::other)?, Arc::new(config)).await
}

async fn open(
    address: impl ToSocketAddrs,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> io::Result<Connection> {
    let open = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        Connection::new(stream.into())
    };
    tokio::time::timeout(PATIENCE, open).await?
}

/// Accepts whom the configuration allows, until the stream is dropped; one who is slow does not hold up others.
pub fn listen(
    listener: TcpListener,
    config: ServerConfig,
) -> ReceiverStream<io::Result<Connection>> {
    let (accepted, connections) = mpsc::channel(1);
    tokio::spawn(accept(
        listener,
        TlsAcceptor::from(Arc::new(config)),
        accepted,
    ));
    ReceiverStream::new(connections)
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    let room = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let turn = Arc::clone(&room).acquire_owned().await;
        let caller = tokio::select! {
            caller = listener.accept() => caller,
            () = accepted.closed() => return,
        };
        let (stream, address) = match caller {
            Ok(caller) => caller,
            Err(error) => {
                warn!(%error, "a caller could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
        tokio::spawn(async move {
            let _turn = turn;
            match tokio::time::timeout(PATIENCE, shake(stream, &acceptor)).await {
                Ok(Ok(connection)) => _ = accepted.send(Ok(connection)).await,
                Ok(Err(error)) => warn!(%address, %error, "a caller was refused"),
                Err(_) => warn!(%address, "a caller did not finish the handshake"),
            }
        });
    }
}

async fn shake(stream: TcpStream, acceptor: &TlsAcceptor) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    Connection::new(acceptor.accept(stream).await?.into())
}

impl Connected for Connection {
    /// In the extensions of each request: who sent it.
    type ConnectInfo = Option<Role>;

    fn connect_info(&self) -> Option<Role> {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
