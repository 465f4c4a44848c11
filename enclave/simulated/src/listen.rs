//! Listeners that never leave this machine.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
};

use cloister_enclave::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

/// `tcp:` on loopback, or `unix:`. A simulated enclave is not to be found on any network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAddress {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl FromStr for LocalAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => match address.parse::<SocketAddr>() {
                Ok(address) if address.ip().is_loopback() => Ok(Self::Tcp(address)),
                Ok(_) => Err(AddressError::NotLoopback),
                Err(_) => Err(AddressError::Unreadable),
            },
            _ => Err(AddressError::Unreadable),
        }
    }
}

impl LocalAddress {
    /// Connects to whoever listens there.
    pub async fn connect(&self) -> io::Result<LocalStream> {
        match self {
            Self::Tcp(address) => TcpStream::connect(address).await.map(LocalStream::Tcp),
            Self::Unix(path) => UnixStream::connect(path).await.map(LocalStream::Unix),
        }
    }
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Not an address that a simulated enclave listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another form.
    #[error("write tcp:127.0.0.1:PORT, tcp:[::1]:PORT or unix:PATH")]
    Unreadable,
    /// An address that others can reach.
    #[error("a simulated enclave listens on loopback only: tcp:127.0.0.1:PORT, tcp:[::1]:PORT or unix:PATH")]
    NotLoopback,
}

/// A bound [`LocalAddress`].
#[derive(Debug)]
pub enum LocalListener {
    /// On loopback.
    Tcp(TcpListener),
    /// On a unix socket, removed when dropped.
    Unix(UnixListener, PathBuf),
}

impl LocalListener {
    /// Listens. A socket file that a dead process left behind is replaced; one that somebody listens on is not.
    pub async fn bind(address: &LocalAddress) -> io::Result<Self> {
        match address {
            LocalAddress::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            LocalAddress::Unix(path) => {
                remove_stale(path).await?;
                UnixListener::bind(path).map(|listener| Self::Unix(listener, path.clone()))
            }
        }
    }

    /// Where it listens, with the port that was given to it.
    pub fn address(&self) -> io::Result<LocalAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(LocalAddress::Tcp),
            Self::Unix(_, path) => Ok(LocalAddress::Unix(path.clone())),
        }
    }
}

async fn remove_stale(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(_) => Ok(()),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Listener for LocalListener {
    type Io = LocalStream;

    async fn accept(&mut self) -> io::Result<LocalStream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(LocalStream::Tcp(stream))
            }
            Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| LocalStream::Unix(stream)),
        }
    }
}

/// A connection on this machine.
#[derive(Debug)]
pub enum LocalStream {
    /// On loopback.
    Tcp(TcpStream),
    /// On a unix socket.
    Unix(UnixStream),
}

/// Calls `$method` of whichever stream it is.
macro_rules! either {
    ($stream:expr, $method:ident($($argument:expr),*)) => {
        match $stream.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Self::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for LocalStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_read(cx, buffer))
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_listened_on() {
        assert_eq!("tcp:127.0.0.1:0".parse::<LocalAddress>().unwrap().to_string(), "tcp:127.0.0.1:0");
        assert_eq!("unix:/run/e.sock".parse::<LocalAddress>().unwrap().to_string(), "unix:/run/e.sock");
        assert_eq!("tcp:0.0.0.0:8443".parse::<LocalAddress>(), Err(AddressError::NotLoopback));
        assert_eq!("tcp:192.0.2.1:8443".parse::<LocalAddress>(), Err(AddressError::NotLoopback));
        for bad in ["", "unix:", "tcp:localhost:1", "vsock:3:5000", "127.0.0.1:1"] {
            assert_eq!(bad.parse::<LocalAddress>(), Err(AddressError::Unreadable), "{bad}");
        }
    }
}
