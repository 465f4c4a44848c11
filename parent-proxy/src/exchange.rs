//! Requests and their answers on one HTTP connection: when they are over, and that they end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

/// What hyper takes of an answer at a time. It asks for more only when it has sent almost all of what it has.
const CHUNK: usize = 64 * 1024;

/// What a connection does, as those see it who may have to end it.
#[derive(Clone)]
pub(crate) struct Exchanges(watch::Sender<State>);

#[derive(Clone, Copy)]
struct State {
    in_work: bool,
    since: Instant,
}

/// An exchange, from the head of the request to the end of the answer.
pub(crate) struct Exchange(watch::Sender<State>);

impl Exchanges {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(State { in_work: false, since: Instant::now() }))
    }

    pub(crate) fn begin(&self) -> Exchange {
        self.0.send_replace(State { in_work: true, since: Instant::now() });
        Exchange(self.0.clone())
    }

    /// Since when nothing is in work, if nothing is.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let State { in_work, since } = *self.0.borrow();
        (!in_work).then_some(since)
    }

    /// Returns when an exchange takes longer than `limit`, however steadily it goes on.
    pub(crate) async fn overdue(&self, limit: Duration) {
        let mut state = self.0.subscribe();
        loop {
            let State { in_work, since } = *state.borrow_and_update();
            // We hold a sender, so there is always one.
            if !in_work {
                let _ = state.changed().await;
            } else if timeout(limit.saturating_sub(since.elapsed()), state.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.send_replace(State { in_work: false, since: Instant::now() });
    }
}

/// An answer that keeps something until it is sent or given up.
pub(crate) fn keep<T: Send + Unpin + 'static>(kept: T, answer: Response) -> Response {
    answer.map(|body| Body::new(Keeping { body, rest: Bytes::new(), _kept: kept }))
}

struct Keeping<T> {
    body: Body,
    /// What the body has given and hyper has not taken: in one piece it would, and forget the body before it has sent any of it.
    rest: Bytes,
    _kept: T,
}

impl<T: Unpin> HttpBody for Keeping<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, rest, _kept } = self.get_mut();
        while rest.is_empty() {
            match ready!(Pin::new(&mut *body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => *rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(rest.split_to(CHUNK.min(rest.len()))))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.saturating_add(body.lower()));
        if let Some(upper) = body.upper().and_then(|upper| upper.checked_add(rest)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::response::IntoResponse;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_keeps_what_it_was_given_until_its_last_piece_is_taken() {
        let kept = Arc::new(());
        let mut body = keep(kept.clone(), vec![7; 2 * CHUNK + 1].into_response()).into_body();
        for (piece, rest) in [(CHUNK, CHUNK as u64 + 1), (CHUNK, 1), (1, 0)] {
            assert_eq!((body.is_end_stream(), Arc::strong_count(&kept)), (false, 2));
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!((frame.len(), body.size_hint().exact()), (piece, Some(rest)));
        }
        assert!(body.is_end_stream());
        drop(body);
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    #[tokio::test]
    async fn an_exchange_that_does_not_end_is_overdue() {
        let exchanges = Exchanges::new();
        let _exchange = exchanges.begin();
        exchanges.overdue(Duration::from_millis(1)).await;
    }

    #[test]
    fn an_exchange_is_in_work_until_it_is_dropped() {
        let exchanges = Exchanges::new();
        assert!(exchanges.idle_since().is_some());
        let exchange = exchanges.begin();
        assert!(exchanges.idle_since().is_none());
        drop(exchange);
        assert!(exchanges.idle_since().is_some());
    }
}
