//! The baseline: the same server loop, TLS and receipts, but floats in the clear. It exists only here.

use std::{future::pending, sync::Arc};

use anyhow::Context;
use axum::{Router, body::Bytes, extract::State, routing::post};
use cloister_attestation::{Receipt, ReceiptKey, ReceiptPublicKey, Sha384, Timestamp};
use cloister_e2e::{
    hostile::identity,
    process::Process,
    raw::RawClient,
    world::{address, endpoint, proxy},
};
use cloister_enclave_app::server::{Front, Slots, serve as serve_connections};
use cloister_simulated_enclave::{LocalAddress, LocalListener};
use hyper::StatusCode;

const PATH: &str = "/plaintext";
const FEATURES: usize = 4;
const LOGITS: usize = 3;
/// Any weights do: their values cost nothing.
const WEIGHTS: [[f64; FEATURES]; LOGITS] = [[-0.5, 0.9, -2.4, -1.0], [0.6, -0.4, -0.2, -0.9], [-0.1, -0.5, 2.6, 1.9]];

struct Service {
    key: ReceiptKey,
}

/// Serves on a free port of loopback until killed. The first line says where, and the receipt key.
pub(crate) fn serve() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = LocalListener::bind(&LocalAddress::Tcp(([127, 0, 0, 1], 0).into())).await?;
        let service = Service { key: ReceiptKey::generate() };
        println!("listening on {}, {}", listener.address()?, hex(service.key.public_key()));
        let app = Router::new().route(PATH, post(infer)).with_state(Arc::new(service));
        serve_connections(listener, Front::Tls(identity()?), app, Slots::new(256), pending()).await;
        Ok(())
    })
}

async fn infer(State(service): State<Arc<Service>>, request: Bytes) -> Vec<u8> {
    let mut response: Vec<u8> = request
        .chunks_exact(FEATURES * size_of::<f64>())
        .flat_map(|row| {
            let feature = |index: usize| f64::from_le_bytes(row[index * 8..][..8].try_into().expect("eight bytes"));
            WEIGHTS
                .map(|weights| weights.iter().enumerate().map(|(index, weight)| weight * feature(index)).sum::<f64>())
        })
        .flat_map(f64::to_le_bytes)
        .collect();
    let receipt = Receipt {
        request: Sha384::of(&request),
        response: Sha384::of(&response),
        bundle: Sha384([0; 48]),
        parameters: "plaintext".into(),
        module_id: String::new(),
        time: Timestamp::now(),
    };
    response.extend(receipt.sign(&service.key));
    response
}

/// A client of the baseline behind a proxy of its own.
pub(crate) struct Baseline {
    client: RawClient,
    key: ReceiptPublicKey,
    _processes: [Process; 2],
}

impl Baseline {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let service = Process::start(&std::env::current_exe()?, &["--plaintext-service"])?;
        let key = service.first_line.rsplit(", ").next().context("the first line ends with the key")?;
        let key = ReceiptPublicKey::from_spki(&unhex(key)?)?;
        let proxy = proxy(&[&address(&service)?])?;
        let endpoint = endpoint(&proxy)?;
        let client = RawClient::connect(format!("{}:{}", endpoint.host(), endpoint.port()).parse()?).await?;
        Ok(Self { client, key, _processes: [service, proxy] })
    }

    /// One request, its receipt checked.
    pub(crate) async fn infer(&mut self, rows: &[Vec<f64>]) -> anyhow::Result<Vec<f64>> {
        let request: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        let digest = Sha384::of(&request);
        let (status, body) = self.client.post(PATH, &[], request).await?;
        anyhow::ensure!(status == StatusCode::OK, "the baseline answered {status}");
        let (logits, receipt) =
            body.split_at_checked(rows.len() * LOGITS * size_of::<f64>()).context("a short answer")?;
        let receipt = self.key.verify(receipt)?;
        anyhow::ensure!(receipt.request == digest && receipt.response == Sha384::of(logits), "a wrong receipt");
        Ok(logits.chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().expect("eight bytes"))).collect())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| Ok(u8::from_str_radix(text.get(at..at + 2).context("odd")?, 16)?)).collect()
}
