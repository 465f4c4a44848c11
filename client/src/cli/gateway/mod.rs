//! `cloister gateway`: a scoring client that knows nothing of Cloister speaks plain Open Inference Protocol to this machine.

mod evaluations;
mod listener;
mod refusal;
mod routes;
mod tensors;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};

use self::{
    evaluations::Evaluations,
    listener::{Address, Listener, Reach},
};
use super::{
    evaluator::{PoolArguments, connect},
    failure::Failure,
    files,
    output::Output,
};

/// Serve the plain Open Inference Protocol on this machine, and do the encrypted, attested exchange behind it
///
/// Any client of the protocol works unchanged: features as FP32, FP64, INT32 or INT64 tensors, in JSON or binary, and out come label,
/// probabilities, logits and whether the label is certain. The evaluator is verified before the first request, every minute, and
/// on every new connection; the policy is read anew each minute and on SIGHUP, so that a release that is revoked is used no longer.
/// GET /v1/evidence shows what was verified. SIGINT and SIGTERM end it, once what is under way is answered.
///
/// Features and predictions are in the clear on the way to this process, so it listens on loopback or on a unix socket, which only
/// its user may open. On loopback every user of this machine can ask. Requests that come from web pages are refused.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Gateway {
    #[command(flatten)]
    evaluator: PoolArguments,
    /// Where to listen: ADDRESS:PORT of loopback, or unix:PATH
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    listen: Address,
    /// Listen on an address that others reach, and give up what encryption is for between them and this process: whoever is on
    /// that network reads features and predictions, asks in your name, and spends your budget
    #[arg(long)]
    anyone_on_this_network_may_read_my_features: bool,
    /// Write evidence, as `cloister infer` does: FILE, FILE.2 and so on, one when a connection ends, and the last when this does. What
    /// is there stays
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
    /// The largest request body, MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_body: u16,
}

const EXAMPLES: &str = "\
Examples:
  cloister gateway https://evaluator.example:8443 --policy policy.toml
  cloister gateway https://evaluator.example:8443 --policy policy.toml \\
      --listen unix:/run/user/1000/cloister.sock
  curl http://127.0.0.1:8000/v2/models/iris/infer \\
      -d '{\"inputs\": [{\"name\": \"X\", \"shape\": [1, 4], \"datatype\": \"FP64\", 
           \"data\": [5.1, 3.5, 1.4, 0.2]}]}'
  curl http://127.0.0.1:8000/v1/evidence";

/// From one verification to the next.
const VERIFY_EVERY: Duration = Duration::from_secs(60);

impl Gateway {
    pub(crate) async fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let reach = self.listen.reach();
        if reach == Reach::Network && !self.anyone_on_this_network_may_read_my_features {
            return Err(Failure::usage(format!(
                "others reach {}, and features and predictions would be in the clear on the way: listen on 127.0.0.1 or unix:PATH, or \
                 give all of that up with --anyone-on-this-network-may-read-my-features",
                self.listen
            )));
        }
        self.evidence.as_deref().map(files::check_writable).transpose()?;
        // A policy that accepts nothing here, or an address that is taken, is a reason not to begin.
        let settings = self.evaluator.settings()?;
        settings.show(output);
        let evaluator = settings.evaluator()?;
        let verified = connect(&evaluator, output).await?;
        let listener = Listener::bind(&self.listen).await.map_err(|error| self.listen.failure(&error))?;
        if reach == Reach::Network {
            output.note(IN_THE_CLEAR);
        }
        // From when it says that it listens, signals mean what they should.
        let signals = Signals::heard().map_err(|error| Failure::internal(&error))?;
        let evaluations = Evaluations::new(self, settings, evaluator, &verified);
        drop(verified);
        let url = listener.url();
        output.line(format!("listening on {url}"));
        output.set("listening", url);
        output.write_object();

        let evaluations = Arc::new(evaluations);
        let verifying = tokio::spawn(evaluations.clone().verify_for_ever(VERIFY_EVERY, signals.hangup));
        listener.serve(routes::app(evaluations.clone(), reach), ended(signals.terminate, signals.interrupt)).await;
        verifying.abort();
        evaluations.close().await;
        Ok(())
    }
}

/// What operators ask for.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn heard() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

async fn ended(mut terminate: Signal, mut interrupt: Signal) {
    select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

const IN_THE_CLEAR: &str = "\
FEATURES AND PREDICTIONS ARE IN THE CLEAR between clients and this process: whoever is on that
network reads them, and asks in your name.";
