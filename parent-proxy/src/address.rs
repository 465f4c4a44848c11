//! Where an enclave listens, as it is written on a command line.

use std::{fmt, io, net::Ipv6Addr, os::unix::net::SocketAddr as UnixSocketAddr, path::PathBuf, str::FromStr};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_vsock::{VsockAddr, VsockStream};

/// A stream socket's address: `vsock:CID:PORT`, `unix:PATH` or `tcp:HOST:PORT`.
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
    /// No port follows the host or the context identifier.
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

const ACCEPTED: &str = "vsock:CID:PORT, unix:PATH and tcp:HOST:PORT";

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once(':').ok_or_else(|| AddressError::NoScheme { given: text.into() })?;
        match scheme {
            "vsock" => {
                let (cid, port) = split_port(rest, "vsock:CID:PORT")?;
                Ok(Self::Vsock { cid: number(cid, "CID", u32::MAX)?, port: number(port, "vsock port", u32::MAX)? })
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
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> AddressError {
        text.parse::<Address>().unwrap_err()
    }

    #[test]
    fn every_kind_is_written_as_it_is_read() {
        for (text, address) in [
            ("vsock:16:5000", Address::Vsock { cid: 16, port: 5000 }),
            ("vsock:4294967295:0", Address::Vsock { cid: u32::MAX, port: 0 }),
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
            "there is no kind of address \"vsok\"; accepted are vsock:CID:PORT, unix:PATH and tcp:HOST:PORT"
        );
        assert_eq!(
            refusal("tcp:host:65536").to_string(),
            "\"65536\" is not a TCP port: accepted are whole numbers from 0 to 65535"
        );
    }
}
