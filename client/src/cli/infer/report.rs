//! The page that tells others of a run.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use cloister_attestation::{ManifestModel, Timestamp};
use cloister_client::{AttestedConnection, Description, Report, Verified};

use super::{Failure, Output, evidence::EvidenceFiles, tally::Tally};

/// A page that is begun when the first evaluator is verified, and written when all is done.
#[derive(Debug)]
pub(super) struct Page {
    path: PathBuf,
    verified: Verified,
    connect: Duration,
}

impl Page {
    pub(super) fn begin(path: &Path, connection: &AttestedConnection, connect: Duration) -> Self {
        Self { path: path.to_owned(), verified: Verified::of(connection), connect }
    }

    pub(super) fn write(
        self,
        model: ManifestModel,
        description: Description,
        tally: Tally,
        evidence: &EvidenceFiles,
        output: &Output,
    ) -> Result<(), Failure> {
        let Self { path, verified, connect } = self;
        let report = Report {
            verified,
            connect,
            attestations: evidence.pieces,
            model,
            description,
            rows: tally.rows,
            resumed: tally.resumed,
            certain: tally.rows - tally.uncertain,
            right: tally.right(),
            exchanges: tally.exchanges,
            evidence: evidence.written.iter().filter_map(|path| name(path)).collect(),
            written: Timestamp::now(),
        };
        std::fs::write(&path, report.to_html()).map_err(|error| Failure::file(&path, &error))?;
        output.note(format!("report: {}", path.display()));
        Ok(())
    }
}

/// Without the folders, which are nobody else's business.
fn name(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}
