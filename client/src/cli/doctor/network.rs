//! What the network says before anybody is asked for a document.

use std::{
    env, io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use cloister_client::{Endpoint, Error, Intermediary};
use cloister_wire::paths;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{
    super::failure::{Failure, UNREACHABLE},
    Report, Route, ms,
};

/// Nobody waits longer for a name or a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether there is somebody at the other end.
pub(super) async fn reach(route: &Route, report: &mut Report<'_>) -> bool {
    if route.is_relayed() && PROXIES.iter().any(|variable| env::var_os(variable).is_some()) {
        for name in ["name", "connection"] {
            report.passed_over(name, "that is up to the HTTP proxy which the environment names");
        }
        return true;
    }
    let (host, port) = place(route);
    let resolved = resolve(&host, port).await.map(|addresses| {
        let told: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
        (addresses, format!("{host} is {}", told.join(", ")))
    });
    let Some(addresses) = report.check("name", resolved) else {
        report.not_reached(&["connection"]);
        return false;
    };
    let connected = connect(&addresses, &format!("{host}:{port}")).await;
    report.check("connection", connected.map(|(address, took)| ((), format!("to {address} in {}", ms(took))))).is_some()
}

/// As curl and others name them, and so does what gateways are asked with.
const PROXIES: [&str; 6] = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The host and port that are connected to.
fn place(route: &Route) -> (String, u16) {
    let url = match route {
        Route::Channel { endpoint, .. } => return (endpoint.host().to_owned(), endpoint.port()),
        Route::Relayed(Intermediary::Gateway { url, .. }) => url,
        Route::Relayed(Intermediary::SageMaker { endpoint, .. }) => &endpoint.url,
    };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    (host.to_owned(), url.port_or_known_default().unwrap_or_default())
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let found = match timeout(PATIENCE, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    found.map_err(|reason| {
        Failure::new(
            UNREACHABLE,
            "name_not_resolved",
            format!("{host} has no address: {reason}"),
            "Check how the host is written, and that this machine can ask its name server.",
        )
    })
}

async fn connect(addresses: &[SocketAddr], name: &str) -> Result<(SocketAddr, Duration), Failure> {
    let started = Instant::now();
    let reached = timeout(PATIENCE, TcpStream::connect(addresses)).await;
    let reached = reached.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).and_then(|tcp| tcp.peer_addr());
    let unreachable = |error: io::Error| Error::Unreachable { endpoint: name.to_owned(), reason: error.to_string() };
    Ok((reached.map_err(unreachable)?, started.elapsed()))
}

/// Who answers at an endpoint where no TLS of an enclave's is.
pub(super) async fn explain(endpoint: &Endpoint, error: &Error) -> Failure {
    let answer = timeout(PATIENCE, ask_plainly(endpoint)).await.ok().and_then(Result::ok).unwrap_or_default();
    let message = error.to_string();
    let authority = endpoint.authority();
    // A server that waits for TLS answers a request without it in TLS, or, as nginx does, with 400.
    if answer.starts_with(b"HTTP/") && !answer.ends_with(b" 400") {
        return Failure::new(
            UNREACHABLE,
            "plain_http",
            format!("{message}\nhttp://{authority} answers in plain HTTP"),
            format!(
                "This is a proxy's HTTP port: use --gateway http://{authority}, if the policy allows it (channel = \"optional\"); \
                 or the port of the proxy where TLS passes through, by default 8443."
            ),
        );
    }
    if !answer.is_empty() {
        return Failure::new(
            UNREACHABLE,
            "foreign_tls",
            format!("{message}\nTLS of somebody else's is there"),
            format!(
                "Somebody ends TLS with a certificate of theirs, such as a load balancer: have it pass TCP on, or, if the policy \
                 allows it (channel = \"optional\"), use --gateway https://{authority}."
            ),
        );
    }
    Failure::new(UNREACHABLE, error.code(), message, error.remedy())
}

/// The first bytes of the answer to a request without TLS: as many as `HTTP/1.1 400` has.
async fn ask_plainly(endpoint: &Endpoint) -> io::Result<Vec<u8>> {
    let mut tcp = TcpStream::connect((endpoint.host(), endpoint.port())).await?;
    let (path, host) = (paths::LIVE, endpoint.authority());
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    tcp.take("HTTP/1.1 400".len() as u64).read_to_end(&mut answer).await?;
    Ok(answer)
}
