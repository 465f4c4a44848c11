//! Parents that tamper with what they forward. What they see are TLS records (RFC 8446 §5.1).

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use cloister_client::Endpoint;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::locked;

/// What a parent does to every connection.
#[derive(Clone, Copy, Debug)]
pub enum Tamper {
    /// Nothing.
    Nothing,
    /// It edits the client's first record, its offer.
    Offer(fn(&mut [u8])),
    /// It plays this trick on one record that the enclave sends.
    Record(Place, Trick),
}

/// A record that the enclave sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// How many requests the client has sent; none during the handshake.
    pub request: usize,
    /// How many records the enclave has sent since.
    pub record: usize,
}

/// What happens to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// A bit in its middle flips.
    Flip,
    /// Its first half arrives, and then the end of the connection.
    Cut,
    /// The connection ends in its place.
    End,
    /// It does not arrive, later ones do.
    Drop,
    /// It arrives twice.
    Repeat,
    /// It arrives after the next one.
    Swap,
}

/// A parent.
#[derive(Debug)]
pub struct Parent {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Parent {
    /// Forwards to the enclave at `to`.
    pub async fn start(to: SocketAddr, tamper: Tamper) -> anyhow::Result<Self> {
        Self::start_for(to, tamper, usize::MAX).await
    }

    /// As [`start`](Self::start), for so many connections: then it is gone.
    pub async fn start_for(to: SocketAddr, tamper: Tamper, connections: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let parent = Self { address: listener.local_addr()?, heard: Arc::default() };
        let heard = parent.heard.clone();
        tokio::spawn(async move {
            for _ in 0..connections {
                let Ok((client, _)) = listener.accept().await else { return };
                let Ok(enclave) = TcpStream::connect(to).await else { return };
                forward(client, enclave, tamper, heard.clone());
            }
        });
        Ok(parent)
    }

    /// The endpoint that clients connect to.
    pub fn endpoint(&self) -> anyhow::Result<Endpoint> {
        Ok(format!("https://{}", self.address).parse()?)
    }

    /// The records that enclaves sent.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        locked(&self.heard).clone()
    }
}

fn forward(client: TcpStream, enclave: TcpStream, tamper: Tamper, heard: Arc<Mutex<Vec<Vec<u8>>>>) {
    let (from_client, to_client) = client.into_split();
    let (from_enclave, to_enclave) = enclave.into_split();
    let sealed = Arc::new(AtomicUsize::new(0));
    tokio::spawn(up(from_client, to_enclave, tamper, sealed.clone()));
    tokio::spawn(down(from_enclave, to_client, tamper, sealed, heard));
}

/// Counts the records that the client encrypts and that end what it has to say: its `Finished`, then one for each request, whose
/// other records are full.
async fn up(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    tamper: Tamper,
    sealed: Arc<AtomicUsize>,
) -> io::Result<()> {
    let mut offer = read(&mut from).await?;
    if let Tamper::Offer(edit) = tamper {
        edit(&mut offer);
    }
    to.write_all(&offer).await?;
    loop {
        let record = read(&mut from).await?;
        if record[0] == APPLICATION_DATA && record.len() < FULL_RECORD {
            sealed.fetch_add(1, Ordering::SeqCst);
        }
        to.write_all(&record).await?;
    }
}

/// A header, 2^14 bytes, their type and the tag of AES-GCM or ChaCha20-Poly1305 (RFC 8446, section 5.2).
const FULL_RECORD: usize = 5 + (1 << 14) + 1 + 16;

async fn down(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    tamper: Tamper,
    sealed: Arc<AtomicUsize>,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
) -> io::Result<()> {
    let mut next = Place { request: 0, record: 0 };
    let mut held = Vec::new();
    loop {
        let record = read(&mut from).await?;
        locked(&heard).push(record.clone());
        let request = sealed.load(Ordering::SeqCst).saturating_sub(1);
        let place = if request == next.request { next } else { Place { request, record: 0 } };
        next = Place { record: place.record + 1, ..place };
        let trick = match tamper {
            Tamper::Record(at, trick) if at == place => Some(trick),
            _ => None,
        };
        let (bytes, last) = play(trick, record, &mut held);
        to.write_all(&bytes).await?;
        if last {
            return Ok(());
        }
    }
}

/// What is sent in place of `record`, and whether it is the last. What is `held` back comes after the next record.
fn play(trick: Option<Trick>, mut record: Vec<u8>, held: &mut Vec<u8>) -> (Vec<u8>, bool) {
    let middle = record.len() / 2;
    match trick {
        None => record.append(held),
        Some(Trick::Flip) => record[middle] ^= 1,
        Some(Trick::Cut) => record.truncate(middle),
        Some(Trick::Drop | Trick::End) => record.clear(),
        Some(Trick::Repeat) => record.extend_from_within(..),
        Some(Trick::Swap) => held.append(&mut record),
    }
    (record, matches!(trick, Some(Trick::Cut | Trick::End)))
}

const APPLICATION_DATA: u8 = 23;

/// One record with its five bytes of head: type, version and length.
async fn read(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut record = vec![0; 5];
    from.read_exact(&mut record).await?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    from.read_exact(&mut record[5..]).await?;
    Ok(record)
}
