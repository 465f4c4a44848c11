//! Where an enclave listens, as it is written on a command line.

use std::{fmt, io, net::Ipv6Addr, os::unix::net::SocketAddr as UnixSocketAddr, path::PathBuf, str::FromStr};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_vsock::{VsockAddr, VsockStream};

/// A stream socket's address: `vsock:CID:PORT`, `hybrid:PATH:PORT`, `unix:PATH` or `tcp:HOST:PORT`.
///
/// [`FromStr`] and [`Display`](fmt::Display) are each other's inverse.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A virtual socket, the only kind that a Nitro enclave has.
    Vsock {
        /// Context identifier: which virtual machine.
        cid: u32,
        /// The port in it; 32 bits wide, unlike TCP's.
        port: u32,
    },
    /// A virtual socket whose host end is a Unix domain socket, as with QEMU's and Firecracker's vsock devices.
    ///
    /// `CONNECT port\n` on it, answered with `OK` and a number that says nothing to us, is a connection to that port of the
    /// guest (Firecracker's `docs/vsock.md`, "Host-Initiated Connections").
    Hybrid {
        /// The Unix domain socket.
        path: PathBuf,
        /// The port in the virtual machine behind it.
        port: u32,
    },
    /// A Unix domain socket, for an enclave that is simulated on this machine.
    Unix(PathBuf),
    /// A TCP socket.
    Tcp {
        /// A name or an IP address, IPv6 without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

/// Why a text is not an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing before a first colon says which kind of address it is.
    #[error("{given:?} does not say what kind of address it is; accepted are {ACCEPTED}")]
    NoScheme {
        /// The whole text.
        given: String,
    },
    /// The kind of address is none that we know.
    #[error("there is no kind of address {scheme:?}; accepted are {ACCEPTED}")]
    UnknownScheme {
        /// What stands before the first colon.
        scheme: String,
    },
    /// No port follows the host, the context identifier or the path.
    #[error("{given:?} has no port; accepted is {form}")]
    NoPort {
        /// What follows the scheme.
        given: String,
        /// How an address of this kind is written.
        form: &'static str,
    },
    /// A context identifier or a port is not a number, or too large.
    #[error("{given:?} is not a {what}: accepted are whole numbers from 0 to {max}")]
    NotANumber {
        /// What stands in the number's place.
        given: String,
        /// Which number it is.
        what: &'static str,
        /// The largest one accepted.
        max: u32,
    },
    /// The host is empty, or an IPv6 address outside brackets or with a fault in them.
    #[error("{given:?} is not a host: accepted are a name, an IPv4 address, and an IPv6 address in brackets")]
    Host {
        /// What stands in the host's place.
        given: String,
    },
    /// The operating system cannot name a socket so.
    #[error("{given:?} cannot be the path of a socket: accepted are 1 to 107 bytes, none of them zero")]
    Path {
        /// What follows the scheme.
        given: String,
    },
}

const ACCEPTED: &str = "vsock:CID:PORT, hybrid:PATH:PORT, unix:PATH and tcp:HOST:PORT";

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once(':').ok_or_else(|| AddressError::NoScheme { given: text.into() })?;
        match scheme {
            "vsock" => {
                let (cid, port) = split_port(rest, "vsock:CID:PORT")?;
                Ok(Self::Vsock { cid: number(cid, "CID", u32::MAX)?, port: number(port, "vsock port", u32::MAX)? })
            }
            "hybrid" => {
                let (path, port) = split_port(rest, "hybrid:PATH:PORT")?;
                Ok(Self::Hybrid { path: socket_path(path)?, port: number(port, "vsock port", u32::MAX)? })
            }
            "unix" => Ok(Self::Unix(socket_path(rest)?)),
            "tcp" => {
                let (host, port) = split_port(rest, "tcp:HOST:PORT")?;
                Ok(Self::Tcp { host: bare_host(host)?, port: number(port, "TCP port", u16::MAX.into())? })
            }
            _ => Err(AddressError::UnknownScheme { scheme: scheme.into() }),
        }
    }
}

fn split_port<'a>(given: &'a str, form: &'static str) -> Result<(&'a str, &'a str), AddressError> {
    given.rsplit_once(':').ok_or_else(|| AddressError::NoPort { given: given.into(), form })
}

fn number<N: FromStr>(given: &str, what: &'static str, max: u32) -> Result<N, AddressError> {
    given.parse().map_err(|_| AddressError::NotANumber { given: given.into(), what, max })
}

fn bare_host(given: &str) -> Result<String, AddressError> {
    let host = match given.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok().then_some(inner),
        None => (!given.is_empty() && !given.contains([':', '[', ']'])).then_some(given),
    };
    host.map(Into::into).ok_or_else(|| AddressError::Host { given: given.into() })
}

fn socket_path(given: &str) -> Result<PathBuf, AddressError> {
    match UnixSocketAddr::from_pathname(given) {
        Ok(address) if !address.is_unnamed() => Ok(given.into()),
        _ => Err(AddressError::Path { given: given.into() }),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Hybrid { path, port } => write!(f, "hybrid:{}:{port}", path.display()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

/// A connected stream, whatever the kind of its socket.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Address {
    pub(crate) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Vsock { cid, port } => Ok(Box::new(VsockStream::connect(VsockAddr::new(*cid, *port)).await?)),
            Self::Hybrid { path, port } => Ok(Box::new(connect_hybrid(UnixStream::connect(path).await?, *port).await?)),
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// The longest answer: `OK `, ten digits and the end of the line.
const MAX_ANSWER: usize = "OK 4294967295\n".len();

/// Asks a vsock device for a connection to `port`. The device ends the connection if nobody listens there.
async fn connect_hybrid<S: Stream>(mut stream: S, port: u32) -> io::Result<S> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut answer = Vec::with_capacity(MAX_ANSWER);
    // Byte by byte: what follows the line is the enclave's.
    while !answer.ends_with(b"\n") && answer.len() < MAX_ANSWER {
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let reason = format!("nobody listens on port {port} of the virtual machine");
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, reason));
            }
            Err(error) => return Err(error),
        }
    }
    match answer.strip_prefix(b"OK ").and_then(|rest| rest.strip_suffix(b"\n")) {
        Some(digits) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => Ok(stream),
        _ => {
            let reason = format!("the vsock device answered {:?}, not OK", String::from_utf8_lossy(&answer));
            Err(io::Error::new(io::ErrorKind::InvalidData, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What becomes of a connection to port 5000 when the device answers this, and what the device was asked.
    async fn asked(answer: &[u8]) -> (io::Result<impl Stream + use<>>, String) {
        let (near, mut device) = duplex(64);
        device.write_all(answer).await.unwrap();
        let answering = async {
            let mut request = vec![0; "CONNECT 5000\n".len()];
            device.read_exact(&mut request).await.unwrap();
            device.shutdown().await.unwrap();
            String::from_utf8(request).unwrap()
        };
        tokio::join!(connect_hybrid(near, 5000), answering)
    }

    #[tokio::test]
    async fn a_hybrid_connection_begins_after_the_answer_of_the_device() {
        let (stream, request) = asked(b"OK 1073741824\n\x16\x03").await;
        assert_eq!(request, "CONNECT 5000\n");
        let mut rest = Vec::new();
        stream.unwrap().read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [0x16, 0x03], "no byte of the enclave's is taken for the device's");
    }

    #[tokio::test]
    async fn a_hybrid_connection_that_is_refused_says_why() {
        for (answer, kind) in [
            (&b""[..], io::ErrorKind::ConnectionRefused),
            (b"OK 5", io::ErrorKind::ConnectionRefused),
            (b"NO\n", io::ErrorKind::InvalidData),
            (b"OK five\n", io::ErrorKind::InvalidData),
            (b"OK \n", io::ErrorKind::InvalidData),
            (b"OK 42949672950\n", io::ErrorKind::InvalidData),
            (&[b'x'; 60], io::ErrorKind::InvalidData),
        ] {
            let error = asked(answer).await.0.err().unwrap();
            assert_eq!(error.kind(), kind, "{error}");
        }
        assert_eq!(asked(b"").await.0.err().unwrap().to_string(), "nobody listens on port 5000 of the virtual machine");
    }

    fn refusal(text: &str) -> AddressError {
        text.parse::<Address>().unwrap_err()
    }

    #[test]
    fn every_kind_is_written_as_it_is_read() {
        for (text, address) in [
            ("vsock:16:5000", Address::Vsock { cid: 16, port: 5000 }),
            ("vsock:4294967295:0", Address::Vsock { cid: u32::MAX, port: 0 }),
            ("hybrid:/run/enclave.sock:5000", Address::Hybrid { path: "/run/enclave.sock".into(), port: 5000 }),
            ("hybrid:odd:name:1", Address::Hybrid { path: "odd:name".into(), port: 1 }),
            ("unix:/run/enclave.sock", Address::Unix("/run/enclave.sock".into())),
            ("unix:odd:name", Address::Unix("odd:name".into())),
            ("tcp:127.0.0.1:8443", Address::Tcp { host: "127.0.0.1".into(), port: 8443 }),
            ("tcp:localhost:0", Address::Tcp { host: "localhost".into(), port: 0 }),
            ("tcp:[::1]:65535", Address::Tcp { host: "::1".into(), port: 65535 }),
        ] {
            assert_eq!(text.parse(), Ok(address.clone()));
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn a_refusal_names_the_fault() {
        assert_eq!(refusal("enclave"), AddressError::NoScheme { given: "enclave".into() });
        assert_eq!(refusal(""), AddressError::NoScheme { given: "".into() });
        assert_eq!(refusal("vsok:16:5000"), AddressError::UnknownScheme { scheme: "vsok".into() });
        assert_eq!(refusal("Tcp:h:1"), AddressError::UnknownScheme { scheme: "Tcp".into() });
        assert_eq!(refusal("vsock:16"), AddressError::NoPort { given: "16".into(), form: "vsock:CID:PORT" });
        assert_eq!(refusal("tcp:host"), AddressError::NoPort { given: "host".into(), form: "tcp:HOST:PORT" });
        assert_eq!(refusal("hybrid:/v"), AddressError::NoPort { given: "/v".into(), form: "hybrid:PATH:PORT" });
        assert_eq!(refusal("hybrid::5000"), AddressError::Path { given: "".into() });
        for (text, given, what, max) in [
            ("vsock:any:5000", "any", "CID", u32::MAX),
            ("vsock:-1:5000", "-1", "CID", u32::MAX),
            ("vsock:16:4294967296", "4294967296", "vsock port", u32::MAX),
            ("tcp:host:65536", "65536", "TCP port", 65535),
            ("tcp:host:", "", "TCP port", 65535),
        ] {
            assert_eq!(refusal(text), AddressError::NotANumber { given: given.into(), what, max });
        }
        for given in ["", "::1", "[::1", "[]", "[name]", "a:b"] {
            assert_eq!(refusal(&format!("tcp:{given}:1")), AddressError::Host { given: given.into() });
        }
        for given in ["", "nul\0", &"x".repeat(108)] {
            assert_eq!(refusal(&format!("unix:{given}")), AddressError::Path { given: given.into() });
        }
    }

    #[test]
    fn a_refusal_says_what_is_accepted() {
        assert_eq!(
            refusal("vsok:16:5000").to_string(),
            "there is no kind of address \"vsok\"; accepted are vsock:CID:PORT, hybrid:PATH:PORT, unix:PATH and tcp:HOST:PORT"
        );
        assert_eq!(
            refusal("tcp:host:65536").to_string(),
            "\"65536\" is not a TCP port: accepted are whole numbers from 0 to 65535"
        );
    }
}
