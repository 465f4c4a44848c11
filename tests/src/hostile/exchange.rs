//! Two that leave with what the other brought.

use std::sync::Mutex;

use tokio::sync::oneshot;

use super::locked;

/// A place where two meet: each gives one thing and gets that of the other.
#[derive(Debug)]
pub struct Exchange<T>(Mutex<Option<(T, oneshot::Sender<T>)>>);

impl<T> Default for Exchange<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Exchange<T> {
    pub(super) async fn give(&self, mine: T) -> anyhow::Result<T> {
        let theirs = {
            let mut place = locked(&self.0);
            if let Some((theirs, other)) = place.take() {
                let _ = other.send(mine);
                return Ok(theirs);
            }
            let (to_me, theirs) = oneshot::channel();
            *place = Some((mine, to_me));
            theirs
        };
        Ok(theirs.await?)
    }
}
