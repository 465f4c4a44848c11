//! Where clients come in.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    select,
    time::{sleep, timeout},
};
use tower_service::Service;

use super::super::failure::Failure;

/// Where to listen.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Who can connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The user of this process.
    User,
    /// Everybody on this machine, web pages in a browser among them.
    Machine,
    Network,
}

impl Address {
    pub(super) fn reach(&self) -> Reach {
        match self {
            Self::Unix(_) => Reach::User,
            Self::Tcp(address) if address.ip().is_loopback() => Reach::Machine,
            Self::Tcp(_) => Reach::Network,
        }
    }

    pub(super) fn failure(&self, error: &io::Error) -> Failure {
        Failure::bad_input(
            "listen",
            format!("{self}: {error}"),
            "Choose another address with --listen: ADDRESS:PORT of loopback, or unix:PATH.",
        )
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("unix: needs a path".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "write ADDRESS:PORT, as in 127.0.0.1:8000, or unix:PATH".to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// From the first byte of a request's head to its last; also how long a kept connection may idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// For requests under way once the end is asked for.
const DRAIN: Duration = Duration::from_secs(30);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Listener {
    pub(super) async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            Address::Unix(path) => Ok(Self::Unix(private(path)?, path.clone())),
        }
    }

    /// Where clients find it.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("http://{address}"),
                Err(error) => format!("an address that is not known: {error}"),
            },
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// Serves until `end`, and then what is under way.
    pub(super) async fn serve(self, app: Router, end: impl Future<Output = ()>) {
        let graceful = GracefulShutdown::new();
        tokio::pin!(end);
        loop {
            let stream = select! {
                () = &mut end => break,
                stream = self.accept() => stream,
            };
            let app = app.clone();
            let service = service_fn(move |request: Request<Incoming>| app.clone().call(request.map(Body::new)));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(graceful.watch(connection));
        }
        drop(self);
        let _ = timeout(DRAIN, graceful.shutdown()).await;
    }

    /// However often that fails: out of file descriptors is a reason to wait.
    async fn accept(&self) -> Box<dyn Stream> {
        loop {
            let accepted: io::Result<Box<dyn Stream>> = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    // Where this fails the connection has ended, as the next read will say.
                    let _ = stream.set_nodelay(true);
                    Box::new(stream) as Box<dyn Stream>
                }),
                Self::Unix(listener, _) => {
                    listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>)
                }
            };
            match accepted {
                Ok(stream) => return stream,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

/// A unix socket that only its user may open: until that is so it lies in a folder of theirs. One that nobody listens to any more
/// makes room.
fn private(path: &Path) -> io::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    if path.exists() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let mut folder = path.as_os_str().to_owned();
    folder.push(format!(".{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let named = name(path, &Path::new(&folder).join("s"));
    let _ = fs::remove_dir_all(&folder);
    named
}

fn name(path: &Path, draft: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(draft)?;
    fs::set_permissions(draft, fs::Permissions::from_mode(0o600))?;
    fs::rename(draft, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_sockets_are_private() {
        for (text, reach) in [
            ("127.0.0.1:8000", Reach::Machine),
            ("127.9.9.9:1", Reach::Machine),
            ("[::1]:8000", Reach::Machine),
            ("unix:/run/cloister.sock", Reach::User),
            ("0.0.0.0:8000", Reach::Network),
            ("[::]:8000", Reach::Network),
            ("192.168.0.1:8000", Reach::Network),
            ("[::ffff:127.0.0.1]:8000", Reach::Network),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().reach(), reach, "{text}");
        }
        for bad in ["", "unix:", "localhost:8000", "8000", "127.0.0.1", "http://127.0.0.1:8000"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn sockets_are_for_their_user_and_are_taken_only_from_the_dead() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let address = Address::Unix(path.clone());
        let first = Listener::bind(&address).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Listener::bind(&address).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(Listener::bind(&address).await.unwrap());
        fs::write(&path, "a file").unwrap();
        assert_eq!(Listener::bind(&address).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
