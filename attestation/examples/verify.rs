//! Verifies an attestation document and says what was found in each step.
//!
//! With the raw document in a file: as of the time it was made, under AWS's root. Without: a document that a simulated
//! enclave makes on the spot, under the root of its simulated authority.

use std::{env, error::Error, fs, process::ExitCode};

use cloister_attestation::{Archival, At, Root, StepReport, UnverifiedDocument};
use cloister_simulated_enclave::{Authority, Identity};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let (bytes, root) = match env::args_os().nth(1) {
        Some(file) => (fs::read(file)?, Root::aws_nitro_g1()),
        None => simulated()?,
    };
    let (passed, exit) =
        match UnverifiedDocument::parse(&bytes).and_then(|it| it.authenticate(&root, At::<Archival>::document())) {
            Ok(document) => (document.steps().to_vec(), ExitCode::SUCCESS),
            Err(refusal) => {
                eprintln!("refused at step {}: {refusal}\n{}\n", refusal.step(), refusal.remedy());
                (refusal.passed, ExitCode::FAILURE)
            }
        };
    for StepReport { step, expected, found } in passed {
        println!("{step}\n   expected {expected}\n   found    {found}");
    }
    Ok(exit)
}

fn simulated() -> Result<(Vec<u8>, Root), Box<dyn Error>> {
    println!("no file was given: SIMULATED, this proves nothing about any hardware");
    let authority = Authority::ephemeral();
    let document = authority.enclave(Identity::random()).document(Some(b"nonce"), None, None)?;
    Ok((document, authority.root()))
}
