//! Where connections come from.

use std::{fmt::Debug, future::Future, io};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockStream};

use crate::parent::SmallWrites;

/// A source of connections: vsock in an enclave, loopback in simulation.
pub trait Listener: Send + 'static {
    /// One connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// Connections from the parent instance.
#[derive(Debug)]
pub struct VsockListener(tokio_vsock::VsockListener);

impl VsockListener {
    /// Listens on `port` of this enclave, whatever CID the hypervisor gave it.
    pub fn bind(port: u32) -> io::Result<Self> {
        tokio_vsock::VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port)).map(Self)
    }
}

impl Listener for VsockListener {
    type Io = SmallWrites<VsockStream>;

    async fn accept(&mut self) -> io::Result<Self::Io> {
        self.0.accept().await.map(|(stream, _parent)| SmallWrites(stream))
    }
}
