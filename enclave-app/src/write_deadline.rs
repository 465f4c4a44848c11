//! Peers that do not take what they asked for.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// A connection that breaks if its peer takes longer than `limit` for one answer, from the first byte that has to wait to the last.
/// A byte now and then gains nothing: an answer holds memory until it is taken.
#[derive(Debug)]
pub(crate) struct WriteDeadline<Io> {
    io: Io,
    limit: Duration,
    /// Until when, while anything waits.
    end: Option<Pin<Box<Sleep>>>,
}

impl<Io> WriteDeadline<Io> {
    pub(crate) fn new(io: Io, limit: Duration) -> Self {
        Self { io, limit, end: None }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let limit = self.limit;
        let end = self.end.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(end.as_mut().poll(cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for WriteDeadline<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write(cx, bytes) {
            Poll::Pending => self.poll_end(cx).map(Err),
            written => written,
        }
    }

    /// Whoever writes flushes when an answer is written: then nothing of it waits any more.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Pending => self.poll_end(cx).map(Err),
            flushed => {
                self.end = None;
                flushed
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_shutdown(cx) {
            Poll::Pending => self.poll_end(cx).map(Err),
            shut => shut,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_does_not_hold_an_answer_for_ever() {
        let (near, mut far) = duplex(16);
        let began = Instant::now();
        let drip = tokio::spawn(async move {
            while far.read_u8().await.is_ok() {
                sleep(LIMIT / 4).await;
            }
        });
        let mut near = WriteDeadline::new(near, LIMIT);
        let error = near.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, LIMIT.as_secs()));
        drop(near);
        drip.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_has_its_own_time() {
        let (near, mut far) = duplex(16);
        let mut near = WriteDeadline::new(near, LIMIT);
        let reader = tokio::spawn(async move {
            for _ in 0..3 {
                sleep(LIMIT / 2).await;
                far.read_exact(&mut [0; 100]).await.unwrap();
            }
        });
        for _ in 0..3 {
            near.write_all(&[0; 100]).await.unwrap();
            near.flush().await.unwrap();
        }
        reader.await.unwrap();
    }
}
