//! A run under way: chunks go out, answers come back and are written, both in the order of the input.

use std::{collections::VecDeque, future::pending};

use cloister_client::{Answer, Pool, Prediction, Reply};
use tokio::sync::mpsc;

use super::{
    super::{failure::INTERRUPTED, output::Delivery, progress::Progress},
    Failure, Infer, Output,
    evidence::EvidenceFiles,
    resume::Earlier,
    rows::Chunk,
    sink::Sink,
    tally::Tally,
};

/// A run under way.
pub(super) struct Transfer<'a> {
    pub(super) infer: &'a Infer,
    pub(super) pool: Pool,
    pub(super) sink: Sink,
    pub(super) tally: Tally,
    pub(super) evidence: EvidenceFiles,
}

impl Transfer<'_> {
    /// Sends chunks and writes answers, in the order of the chunks, until all is done, something fails, or nobody reads any more.
    pub(super) async fn run(
        &mut self,
        mut chunks: mpsc::Receiver<Result<Chunk, Failure>>,
        rows: Option<u64>,
        done: u64,
        output: &Output,
    ) -> Result<(), Failure> {
        self.pass_over(&mut chunks, done).await?;
        let mut progress = Progress::new("answered", rows, done);
        let mut waiting: VecDeque<(Chunk, Reply)> = VecDeque::new();
        let (mut taken, mut end) = (done, None);
        let interrupt = interrupt();
        tokio::pin!(interrupt);
        while end.is_none() || !waiting.is_empty() {
            tokio::select! {
                failure = &mut interrupt => return Err(failure),
                answer = first(&mut waiting) => {
                    let (chunk, _) = waiting.pop_front().expect("the first has its answer");
                    if matches!(self.take(&chunk, answer?, output)?, Delivery::ReaderGone) {
                        return Ok(());
                    }
                    progress.reach(self.tally.rows, output);
                }
                chunk = chunks.recv(), if end.is_none() && waiting.len() < self.pool.window() => {
                    match chunk.map(|chunk| self.send(chunk?, &mut taken, output)) {
                        Some(Ok(sent)) => waiting.push_back(sent),
                        // What was sent before is answered first.
                        Some(Err(failure)) => end = Some(Err(failure)),
                        None => end = Some(Ok(())),
                    }
                }
            }
        }
        end.unwrap_or(Ok(()))
    }

    /// Counts the rows that an earlier run has answered.
    async fn pass_over(
        &mut self,
        chunks: &mut mpsc::Receiver<Result<Chunk, Failure>>,
        done: u64,
    ) -> Result<(), Failure> {
        if done == 0 {
            return Ok(());
        }
        let mut earlier = Earlier::open(&self.infer.out)?;
        while self.tally.rows < done {
            let Some(chunk) = chunks.recv().await else { break };
            let Chunk { rows: _, moved, truth } = chunk?;
            for (index, moved) in moved.into_iter().enumerate() {
                let (label, certain) = earlier.next(&self.sink.shape)?;
                self.tally.row(label, certain, moved, truth.get(index).map(String::as_str));
            }
        }
        self.tally.resumed = self.tally.rows;
        Ok(())
    }

    fn send(&self, mut chunk: Chunk, taken: &mut u64, output: &Output) -> Result<(Chunk, Reply), Failure> {
        *taken += chunk.rows.len() as u64;
        self.infer.check_object(*taken, output)?;
        let reply = self.pool.send(std::mem::take(&mut chunk.rows));
        Ok((chunk, reply))
    }

    /// Writes and counts the predictions for one chunk.
    fn take(&mut self, chunk: &Chunk, answer: Answer, output: &Output) -> Result<Delivery, Failure> {
        self.tally.answer(&answer);
        let mut predictions = answer.predictions;
        // The label of what was sent says nothing certain about what was in the file.
        for (prediction, moved) in predictions.iter_mut().zip(&chunk.moved) {
            prediction.certain &= !moved;
        }
        let delivery = self.sink.write(&predictions)?;
        for (index, (prediction, moved)) in predictions.iter().zip(&chunk.moved).enumerate() {
            let Prediction { certain, .. } = prediction;
            let truth = chunk.truth.get(index).map(String::as_str);
            self.tally.row(&prediction.label_text(), *certain, *moved, truth);
        }
        for piece in self.pool.take_evidence() {
            self.evidence.write(&piece, output)?;
        }
        Ok(delivery)
    }
}

/// The answer to the chunk that is next in order.
async fn first(waiting: &mut VecDeque<(Chunk, Reply)>) -> Result<Answer, Failure> {
    match waiting.front_mut() {
        Some((_, reply)) => Ok(reply.await?),
        None => pending().await,
    }
}

/// Waits for the user to interrupt.
async fn interrupt() -> Failure {
    if tokio::signal::ctrl_c().await.is_err() {
        pending().await
    }
    Failure::new(INTERRUPTED, "interrupted", "interrupted", "Run again, with --resume if a note above says so.")
}
