//! The image: its size, how it boots in QEMU and what it needs, and whether it is built the same elsewhere.
//!
//! QEMU emulates the processor, so times say that the boot is quick, not how quick it is on hardware.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use cloister_client::{AttestedConnection, Policy};
use cloister_e2e::{
    hostile::BUNDLE,
    image::{PROGRAM, accepting, program_from_elsewhere},
    iris::{Agreement, Iris},
    qemu::{Machine, Options, Pieces, address},
    world::{endpoint, proxy},
};
use cloister_image::{Image, Settings};
use cloister_simulated_enclave::Authority;

use crate::{Figure, median, milliseconds};

const BOOTS: usize = 9;
/// Too little, and enough; between them is looked for the least.
const MEMORY_MIB: (u32, u32) = (16, 128);
/// A machine with too little memory may neither serve nor end.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    let identical = u8::from(program_from_elsewhere()? == *PROGRAM).into();
    let mut figures = vec![Figure { id: "image/build/identical".into(), value: identical, unit: "of 1" }];
    match Pieces::find()? {
        Ok(pieces) => figures.extend(booted(&pieces)?),
        Err(reason) => eprintln!("NOT MEASURED: what needs a virtual machine: {reason}"),
    }
    Ok(figures)
}

fn booted(pieces: &Pieces) -> anyhow::Result<Vec<Figure>> {
    let (folder, authority) = (tempfile::tempdir()?, Authority::ephemeral());
    let image = Image::assemble(&fs::read(pieces.kernel())?, &PROGRAM, &Settings::default(), &[&BUNDLE]);
    let eif = folder.path().join("cloister.eif");
    fs::write(&eif, &image.eif)?;
    let bench = Bench { pieces, eif: &eif, policy: accepting(&authority, image.measurements), authority: &authority };

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let visits = (0..BOOTS).map(|_| runtime.block_on(bench.visit(MEMORY_MIB.1)));
    let visits = visits.collect::<anyhow::Result<Vec<Visit>>>()?;
    let agreement = visits[0].agreement;

    let (mut too_little, mut enough) = MEMORY_MIB;
    while enough - too_little > 1 {
        let memory = (too_little + enough) / 2;
        match runtime.block_on(bench.visit(memory)) {
            Ok(visit) if visit.agreement.violations == 0 => enough = memory,
            _ => too_little = memory,
        }
    }

    let figure = |id: &str, value, unit| Figure { id: id.into(), value, unit };
    Ok(vec![
        figure("image/eif/bytes", image.eif.len() as f64, "bytes"),
        figure(
            "image/qemu/boot_to_attestation_ms",
            median(visits.iter().map(|visit| visit.attested_ms).collect()),
            "ms",
        ),
        figure("image/qemu/least_memory_mib", enough.into(), "MiB"),
        figure("image/qemu/bound_violations", agreement.violations as f64, "of 450"),
        figure("image/qemu/max_logit_error", agreement.max_logit_error, "logit"),
    ])
}

struct Bench<'a> {
    pieces: &'a Pieces,
    eif: &'a Path,
    policy: Policy,
    authority: &'a Authority,
}

struct Visit {
    /// From the start of QEMU to a client that has verified the enclave, through the proxy.
    attested_ms: f64,
    agreement: Agreement,
}

impl Bench<'_> {
    /// Boots the image with so much memory, verifies the enclave and has it answer all of Iris.
    async fn visit(&self, memory_mib: u32) -> anyhow::Result<Visit> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("vm");
        let proxy = proxy(&[&address(&socket)])?;
        let endpoint = endpoint(&proxy)?;
        let options =
            Options { memory_mib, socket: Some(socket), patience: PATIENCE, ..Options::signed_by(self.authority) };
        let machine = Machine::boot(self.pieces, self.eif, &options)?;
        let started = Instant::now();
        let mut connection = AttestedConnection::open(&endpoint, self.policy.clone()).await?;
        let attested_ms = milliseconds(machine.boot + started.elapsed());
        let data = Iris::load()?;
        let mut model = connection.model(BUNDLE.name()).await?;
        let answer = model.infer(&data.rows).await?;
        let agreement = Agreement::of(&answer.predictions, &data, model.description().bound());
        Ok(Visit { attested_ms, agreement })
    }
}
