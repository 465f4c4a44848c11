//! The parent instance, seen from inside: always the virtual machine with the context identifier 3.
//!
//! Source: AWS's `aws-nitro-enclaves-cli`, which listens for the heartbeat of an enclave that it started.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};
use tokio_vsock::{VsockAddr, VsockStream};

/// The parent's context identifier, on every Nitro instance.
const CID: u32 = 3;
/// Where it waits for the heartbeat.
const HEARTBEAT_PORT: u32 = 9000;
/// What an enclave sends and gets back.
const HEARTBEAT: u8 = 0xb7;
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);
/// Recent kernels send a larger write as one packet of several descriptors, at which virtual sockets have been seen to stall.
const MAX_WRITE: usize = 32 * 1024;

/// Connects to a port of the parent.
pub async fn connect(port: u32) -> io::Result<SmallWrites<VsockStream>> {
    VsockStream::connect(VsockAddr::new(CID, port)).await.map(SmallWrites)
}

/// Tells the parent that the enclave has booted: `0xB7` to port 9000, and the same byte back.
///
/// nitro-cli waits for it, and terminates an enclave that does not send it. AWS's own init sends it for its programs.
pub async fn heartbeat() -> io::Result<()> {
    let beat = async {
        let mut stream = connect(HEARTBEAT_PORT).await?;
        stream.write_u8(HEARTBEAT).await?;
        match stream.read_u8().await? {
            HEARTBEAT => Ok(()),
            other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("the parent answered {other:#04x}"))),
        }
    };
    timeout(HEARTBEAT_TIMEOUT, beat).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A stream that writes at most 32 KiB at a time.
#[derive(Debug)]
pub struct SmallWrites<Io>(pub(crate) Io);

impl<Io: AsyncRead + Unpin> AsyncRead for SmallWrites<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

/// Vectored writes are left at their default, which writes the first slice only: several together could be larger.
impl<Io: AsyncWrite + Unpin> AsyncWrite for SmallWrites<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len().min(MAX_WRITE)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;

    /// Accepts everything, and notes how much each time.
    #[derive(Default)]
    struct Sizes(Vec<usize>);

    impl AsyncWrite for Sizes {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn no_write_is_larger_than_32_kib() {
        let mut stream = SmallWrites(Sizes::default());
        stream.write_all(&[0; 100_000]).await.unwrap();
        let slices = [IoSlice::new(&[0; 30_000]), IoSlice::new(&[0; 30_000])];
        assert_eq!(stream.write_vectored(&slices).await.unwrap(), 30_000);
        assert!(!stream.is_write_vectored());
        assert_eq!(stream.0.0, [32_768, 32_768, 32_768, 1_696, 30_000]);
    }
}
