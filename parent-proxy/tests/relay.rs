//! The proxy between real sockets.
//!
//! A test waits for what must happen, for as long as [`PATIENCE`]; none depends on how fast the machine is.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{
    io::{self, Write},
    net::SocketAddr,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use cloister_parent_proxy::{Address, Limits, Metrics, Shutdown, Summary, run};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink, split},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener},
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_vsock::{VMADDR_CID_LOCAL, VsockAddr, VsockListener};

/// The longest that a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// A limit that no test reaches.
const NEVER: Duration = Duration::from_secs(3600);
/// More than a client, a proxy, an enclave and the sockets between them hold together.
const MUCH: usize = 256 << 20;

// Bytes

#[tokio::test]
async fn large_messages_arrive_both_ways_at_once() {
    let proxy = Proxy::to([echo().await]).await;
    assert_echoes(proxy.client().await, 32 << 20).await;
    assert_eq!(proxy.drained().await, Summary { served: 1, refused: 0, cut: 0 });
}

#[tokio::test]
async fn an_enclave_may_be_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enclave.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move { echo_to(listener.accept().await.unwrap().0).await });
    let proxy = Proxy::to([Address::Unix(path)]).await;
    assert_echoes(proxy.client().await, 1 << 20).await;
}

#[tokio::test]
async fn an_enclave_may_be_on_a_vsock() {
    const ANY_PORT: u32 = u32::MAX;
    let listener = match VsockListener::bind(VsockAddr::new(VMADDR_CID_LOCAL, ANY_PORT)) {
        Ok(listener) => listener,
        Err(error) => {
            // Not `eprintln!`, which the test runner keeps to itself.
            writeln!(io::stderr(), "SKIPPED: relay over vsock: no loopback on this machine ({error})").unwrap();
            return;
        }
    };
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { echo_to(listener.accept().await.unwrap().0).await });
    let proxy = Proxy::to([Address::Vsock { cid: VMADDR_CID_LOCAL, port }]).await;
    assert_echoes(proxy.client().await, 1 << 20).await;
}

#[tokio::test]
async fn a_slow_reader_slows_its_writer() {
    let (read_now, reading) = oneshot::channel();
    let (enclave, received) = enclave(async |mut stream| {
        reading.await.unwrap();
        copy(&mut stream, &mut sink()).await.unwrap()
    })
    .await;
    let proxy = Proxy::to([enclave]).await;
    let mut client = proxy.client().await;
    let mut writing = tokio::spawn(async move {
        client.write_all(&vec![0; MUCH]).await.unwrap();
        client.shutdown().await.unwrap();
        client
    });
    assert!(timeout(Duration::from_millis(300), &mut writing).await.is_err(), "somebody keeps all this in memory");
    read_now.send(()).unwrap();
    let _client = soon(writing).await.unwrap();
    assert_eq!(soon(received).await.unwrap(), MUCH as u64);
}

// Ends

#[tokio::test]
async fn a_client_may_end_its_request_and_wait_for_the_answer() {
    let (enclave, _) = enclave(async |mut stream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).await.unwrap();
        request.reverse();
        stream.write_all(&request).await.unwrap();
    })
    .await;
    let proxy = Proxy::to([enclave]).await;
    let mut client = proxy.client().await;
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await.unwrap(), b"tseuqer");
    assert_eq!(proxy.drained().await.cut, 0);
}

#[tokio::test]
async fn an_enclave_may_end_its_answer_and_go_on_reading() {
    let (enclave, received) = enclave(async |mut stream| {
        stream.write_all(b"answer").await.unwrap();
        stream.shutdown().await.unwrap();
        rest(&mut stream).await.unwrap()
    })
    .await;
    let proxy = Proxy::to([enclave]).await;
    let mut client = proxy.client().await;
    assert_eq!(rest(&mut client).await.unwrap(), b"answer");
    client.write_all(b"afterwards").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(soon(received).await.unwrap(), b"afterwards");
}

#[tokio::test]
async fn an_answer_arrives_though_the_enclave_stopped_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enclave.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let stream = listener.accept().await.unwrap().0.into_std().unwrap();
        stream.shutdown(std::net::Shutdown::Read).unwrap();
        let mut stream = tokio::net::UnixStream::from_std(stream).unwrap();
        stream.write_all(&pattern(1 << 20)).await.unwrap();
    });
    let proxy = Proxy::to([Address::Unix(path)]).await;
    let (mut from_proxy, mut to_proxy) = proxy.client().await.into_split();
    let writing = tokio::spawn(async move {
        to_proxy.write_all(&vec![0; MUCH]).await.unwrap();
    });
    assert_eq!(rest(&mut from_proxy).await.unwrap(), pattern(1 << 20));
    soon(writing).await.unwrap();
}

#[tokio::test]
async fn an_enclave_that_dies_in_its_answer_resets_the_client() {
    let (enclave, _) = enclave(async |mut stream| {
        stream.write_all(b"half an ans").await.unwrap();
        // The client has these bytes and says so before the rest fails to come.
        stream.read_u8().await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let proxy = Proxy::to([enclave]).await;
    let mut client = proxy.client().await;
    soon(client.read_exact(&mut [0; 11])).await.unwrap();
    client.write_u8(0).await.unwrap();
    assert_eq!(rest(&mut client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_client_that_dies_frees_its_enclave() {
    let (enclave, received) = enclave(async |mut stream| {
        stream.write_all(b"hello").await.unwrap();
        rest(&mut stream).await
    })
    .await;
    let proxy = Proxy::to([enclave]).await;
    let mut client = proxy.client().await;
    soon(client.read_exact(&mut [0; 5])).await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    // The connection ends, in whichever way the enclave's kind of socket says so.
    let _ = soon(received).await.unwrap();
    assert_eq!(proxy.drained().await.cut, 0);
}

// Limits

#[tokio::test]
async fn one_connection_over_the_cap_is_closed_and_makes_no_queue() {
    let connections = NonZeroUsize::new(2).unwrap();
    let proxy = Proxy::with(Limits { connections, ..unlimited() }, [echo().await]).await;
    let (mut first, mut second) = (proxy.client().await, proxy.client().await);
    assert_alive(&mut first).await;
    assert_alive(&mut second).await;
    assert_closed(&mut proxy.client().await).await;
    assert_alive(&mut first).await;

    drop(second);
    let refused = refusals_until_served(&proxy).await;
    drop(first);
    assert_eq!(proxy.drained().await, Summary { served: 3, refused: 1 + refused, cut: 0 });
}

#[tokio::test]
async fn an_address_has_its_share_of_connections() {
    let limits = Limits { connections_per_address: NonZeroUsize::MIN, ..unlimited() };
    let proxy = Proxy::with(limits, [echo().await]).await;
    let mut first = proxy.client().await;
    assert_alive(&mut first).await;
    assert_closed(&mut proxy.client().await).await;
    let neighbour = TcpSocket::new_v4().unwrap();
    neighbour.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    assert_alive(&mut neighbour.connect(proxy.address).await.unwrap()).await;
    assert_alive(&mut first).await;
}

/// The place of a connection that has just ended is free a moment later.
async fn refusals_until_served(proxy: &Proxy) -> u64 {
    let served = async {
        let mut refused = 0;
        while try_alive(&mut proxy.client().await).await.is_err() {
            refused += 1;
            sleep(Duration::from_millis(1)).await;
        }
        refused
    };
    soon(served).await
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_closed() {
    let proxy = Proxy::with(Limits { idle: Duration::from_millis(50), ..unlimited() }, [mute().await]).await;
    assert_closed(&mut proxy.client().await).await;
    assert_eq!(proxy.drained().await, Summary { served: 1, refused: 0, cut: 0 });
}

// Enclaves

#[tokio::test]
async fn enclaves_serve_in_turn() {
    let proxy = Proxy::to([named("a").await, named("b").await, named("c").await]).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.extend(rest(&mut proxy.client().await).await.unwrap());
    }
    assert_eq!(answers, b"abcabc");
}

#[tokio::test]
async fn another_enclave_serves_when_one_refuses() {
    let proxy = Proxy::to([closed().await, named("b").await]).await;
    for _ in 0..3 {
        assert_eq!(rest(&mut proxy.client().await).await.unwrap(), b"b");
    }
}

#[tokio::test]
async fn another_enclave_serves_when_one_does_not_answer() {
    let (silent, _full) = silent().await;
    // Half of the time is the silent one's share, the other half is ample for the other one.
    let connect = Duration::from_secs(4);
    let proxy = Proxy::with(Limits { connect, ..unlimited() }, [silent, named("b").await]).await;
    let began = Instant::now();
    assert_eq!(rest(&mut proxy.client().await).await.unwrap(), b"b");
    assert!(began.elapsed() < connect, "the silent one used up all the time");
}

#[tokio::test]
async fn a_client_is_not_kept_waiting_for_an_enclave_that_does_not_answer() {
    let (silent, _full) = silent().await;
    let proxy = Proxy::with(Limits { connect: Duration::from_millis(50), ..unlimited() }, [silent]).await;
    assert_closed(&mut proxy.client().await).await;
}

#[tokio::test]
async fn a_dead_enclave_is_served_again_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enclave.sock");
    let proxy = Proxy::to([Address::Unix(path.clone())]).await;
    assert_closed(&mut proxy.client().await).await;
    assert_closed(&mut proxy.client().await).await;

    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move { echo_to(listener.accept().await.unwrap().0).await });
    assert_alive(&mut proxy.client().await).await;
}

#[tokio::test]
async fn without_any_enclave_clients_are_closed() {
    let proxy = Proxy::to([]).await;
    assert_closed(&mut proxy.client().await).await;
}

// Shutdown

#[tokio::test]
async fn a_drain_lets_a_transfer_finish_and_accepts_no_other() {
    let proxy = Proxy::to([echo().await]).await;
    let mut client = proxy.client().await;
    assert_alive(&mut client).await;

    proxy.ask(Shutdown::Drain);
    proxy.refuses().await;
    assert_echoes(client, 8 << 20).await;
    assert_eq!(proxy.ended().await, Summary { served: 1, refused: 0, cut: 0 });
}

#[tokio::test]
async fn the_deadline_of_a_drain_cuts() {
    let proxy = Proxy::with(Limits { drain: Duration::from_millis(50), ..unlimited() }, [echo().await]).await;
    let mut client = proxy.client().await;
    assert_alive(&mut client).await;

    proxy.ask(Shutdown::Drain);
    assert_closed(&mut client).await;
    assert_eq!(proxy.ended().await, Summary { served: 1, refused: 0, cut: 1 });
}

#[tokio::test]
async fn asked_again_it_cuts_at_once() {
    let (silent, _full) = silent().await;
    let proxy = Proxy::to([echo().await, silent]).await;
    let (mut relayed, mut connecting) = (proxy.client().await, proxy.client().await);
    assert_alive(&mut relayed).await;

    proxy.ask(Shutdown::Drain);
    proxy.refuses().await;
    proxy.ask(Shutdown::Cut);
    assert_closed(&mut relayed).await;
    assert_closed(&mut connecting).await;
    assert_eq!(proxy.ended().await.cut, 2);
}

#[tokio::test]
async fn it_drains_when_nobody_is_left_to_ask() {
    let Proxy { address, shutdown, running } = Proxy::to([echo().await]).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    assert_alive(&mut client).await;
    drop(shutdown);
    assert_alive(&mut client).await;
    drop(client);
    assert_eq!(soon(running).await.unwrap(), Summary { served: 1, refused: 0, cut: 0 });
}

// What the tests are made of

struct Proxy {
    address: SocketAddr,
    shutdown: watch::Sender<Shutdown>,
    running: JoinHandle<Summary>,
}

impl Proxy {
    async fn to<const N: usize>(enclaves: [Address; N]) -> Self {
        Self::with(unlimited(), enclaves).await
    }

    async fn with<const N: usize>(limits: Limits, enclaves: [Address; N]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, asked) = watch::channel(Shutdown::NotAsked);
        Self {
            address,
            shutdown,
            running: tokio::spawn(run(listener, enclaves.into(), limits, Metrics::default(), asked)),
        }
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn ask(&self, step: Shutdown) {
        self.shutdown.send(step).unwrap();
    }

    /// Waits until the proxy has stopped accepting.
    async fn refuses(&self) {
        let refuses = async {
            while TcpStream::connect(self.address).await.is_ok() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        soon(refuses).await;
    }

    async fn drained(self) -> Summary {
        self.ask(Shutdown::Drain);
        self.ended().await
    }

    async fn ended(self) -> Summary {
        soon(self.running).await.unwrap()
    }
}

fn unlimited() -> Limits {
    Limits { connect: NEVER, idle: NEVER, drain: NEVER, ..Limits::default() }
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("what must happen did not, however long the test waited")
}

/// An enclave that treats its first connection as `behaviour` says.
async fn enclave<T, F>(behaviour: impl FnOnce(TcpStream) -> F + Send + 'static) -> (Address, JoinHandle<T>)
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let (address, listener) = listening().await;
    let running = tokio::spawn(async move { behaviour(listener.accept().await.unwrap().0).await });
    (address, running)
}

/// An enclave that returns every byte.
async fn echo() -> Address {
    let (address, listener) = listening().await;
    tokio::spawn(async move {
        loop {
            tokio::spawn(echo_to(listener.accept().await.unwrap().0));
        }
    });
    address
}

async fn echo_to(stream: impl AsyncRead + AsyncWrite) {
    let (mut from, mut to) = split(stream);
    // A client that is cut takes its enclave's connection with it.
    if copy(&mut from, &mut to).await.is_ok() {
        let _ = to.shutdown().await;
    }
}

/// An enclave that accepts, and says and hears nothing.
async fn mute() -> Address {
    let (address, listener) = listening().await;
    tokio::spawn(async move {
        let _stream = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
    });
    address
}

/// An enclave that says its name and closes.
async fn named(name: &'static str) -> Address {
    let (address, listener) = listening().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(name.as_bytes()).await.unwrap();
        }
    });
    address
}

/// An address at which nothing listens. It stays taken, so that no other test gets it.
async fn closed() -> Address {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    tcp(address)
}

/// An address at which the system leaves a connection unanswered, for as long as the streams are kept.
async fn silent() -> (Address, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    // A queue of no places takes one connection. The next ones are not even refused.
    let first = TcpStream::connect(address).await.unwrap();
    (tcp(address), (listener, first))
}

async fn listening() -> (Address, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (tcp(listener.local_addr().unwrap()), listener)
}

fn tcp(address: SocketAddr) -> Address {
    Address::Tcp { host: address.ip().to_string(), port: address.port() }
}

/// Bytes that show it when a part is lost, repeated or out of order.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32 / 4 + 1).flat_map(|n| n.wrapping_mul(0x9E37_79B1).to_le_bytes()).take(length).collect()
}

async fn assert_echoes(client: TcpStream, length: usize) {
    let (mut from_proxy, mut to_proxy) = client.into_split();
    let writing = tokio::spawn(async move {
        to_proxy.write_all(&pattern(length)).await.unwrap();
        to_proxy.shutdown().await.unwrap();
    });
    assert!(rest(&mut from_proxy).await.unwrap() == pattern(length), "the bytes have changed");
    soon(writing).await.unwrap();
}

async fn assert_alive(client: &mut TcpStream) {
    try_alive(client).await.unwrap();
}

/// A byte there and back through [`echo`].
async fn try_alive(client: &mut TcpStream) -> io::Result<u8> {
    client.write_u8(7).await?;
    soon(client.read_u8()).await
}

/// The connection ends, orderly or not, without another byte.
async fn assert_closed(client: &mut TcpStream) {
    match rest(client).await {
        Ok(bytes) => assert!(bytes.is_empty()),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await.map(|_| bytes)
}
