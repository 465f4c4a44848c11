//! Who works next: evaluations wait by their estimated cost, and no client waits for another one's queue.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng, 1996): each client has a tag that its evaluations move on by what they cost, and
//! whoever's tag is least is next. The queue is bounded in time: what could not be done before its deadline is refused at once.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

/// Whose an evaluation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    /// A known one, over all its connections.
    Known(u64),
    /// Everybody who is not known, where others are.
    Others,
    /// Whoever is at the other end of a connection.
    Connection(u64),
}

/// Admits evaluations to a number of places.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    places: usize,
    /// The most work that may wait.
    capacity: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// What waits, all of it.
    waiting: Duration,
    /// The tag of the evaluation that started last.
    now: Duration,
    clients: BTreeMap<Client, Flow>,
}

/// What one client has waiting.
#[derive(Debug, Default)]
struct Flow {
    /// Where its next evaluation starts.
    tag: Duration,
    cost: Duration,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    cost: Duration,
    go: oneshot::Sender<Place>,
}

/// A place to work at, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Shared>);

/// There is too much to do. The time after which it is worth to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Of this client's own.
    Client(Duration),
    /// Of everybody's.
    Service(Duration),
}

impl Admission {
    /// `places` evaluations at once; as many as take `patience` may wait.
    pub(crate) fn new(places: usize, patience: Duration) -> Self {
        let capacity = patience * places as u32;
        Self(Arc::new(Shared { places, capacity, state: Mutex::default() }))
    }

    /// Waits for a place. Whoever stops to wait gives it up.
    pub(crate) async fn admit(&self, client: Client, cost: Duration) -> Result<Place, Full> {
        let waiting = {
            let mut state = self.0.lock();
            if state.running < self.0.places && state.waiting.is_zero() {
                state.running += 1;
                state.start(client, cost);
                return Ok(Place(self.0.clone()));
            }
            self.0.enqueue(&mut state, client, cost)?
        };
        Ok(waiting.await.expect("a waiter is taken out of the queue by a place only"))
    }

    /// How many evaluations wait.
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().clients.values().map(|flow| flow.waiters.len()).sum()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, state: &mut State, client: Client, cost: Duration) -> Result<oneshot::Receiver<Place>, Full> {
        state.forget_the_gone();
        let own = state.clients.get(&client).map_or(Duration::ZERO, |flow| flow.cost);
        let places = self.places as u32;
        // One evaluation of its own may always wait, however long it takes, as long as others' leave room.
        if own > Duration::ZERO && own + cost > self.capacity / 2 {
            return Err(Full::Client(own / places));
        }
        if state.waiting > Duration::ZERO && state.waiting + cost > self.capacity {
            return Err(Full::Service(state.waiting / places));
        }
        let (go, waiting) = oneshot::channel();
        state.waiting += cost;
        let now = state.now;
        let flow = state.clients.entry(client).or_default();
        if flow.waiters.is_empty() {
            flow.tag = flow.tag.max(now);
        }
        flow.cost += cost;
        flow.waiters.push_back(Waiter { cost, go });
        Ok(waiting)
    }

    /// Hands places that are free to whoever is next.
    fn fill(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                if state.running >= self.places {
                    return;
                }
                let Some(waiter) = state.next() else { return };
                state.running += 1;
                waiter
            };
            // If it is gone after all, its place is dropped, and fills again.
            let _ = next.go.send(Place(self.clone()));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.fill();
    }
}

impl State {
    fn next(&mut self) -> Option<Waiter> {
        self.forget_the_gone();
        let waiting = self.clients.iter().filter(|(_, flow)| !flow.waiters.is_empty());
        let (&client, _) = waiting.min_by_key(|(_, flow)| flow.tag)?;
        let flow = self.clients.get_mut(&client)?;
        let waiter = flow.waiters.pop_front()?;
        flow.cost = flow.cost.saturating_sub(waiter.cost);
        self.waiting = self.waiting.saturating_sub(waiter.cost);
        self.start(client, waiter.cost);
        Some(waiter)
    }

    /// Moves a client's tag on. Of clients that have nothing waiting, only those in debt are remembered.
    fn start(&mut self, client: Client, cost: Duration) {
        let flow = self.clients.entry(client).or_default();
        self.now = flow.tag.max(self.now);
        flow.tag = self.now + cost;
        let now = self.now;
        self.clients.retain(|_, flow| !flow.waiters.is_empty() || flow.tag > now);
    }

    fn forget_the_gone(&mut self) {
        for flow in self.clients.values_mut() {
            let waiting = &mut self.waiting;
            let cost = &mut flow.cost;
            flow.waiters.retain(|waiter| {
                let gone = waiter.go.is_closed();
                if gone {
                    *waiting = waiting.saturating_sub(waiter.cost);
                    *cost = cost.saturating_sub(waiter.cost);
                }
                !gone
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::Pin, task::Poll};

    use futures_util::{FutureExt, poll};

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const A: Client = Client::Known(1);
    const B: Client = Client::Connection(1);

    type Waiting = Pin<Box<dyn Future<Output = Result<Place, Full>>>>;

    /// One that waits already.
    async fn waiting(admission: &Admission, client: Client, cost: Duration) -> Waiting {
        let admission = admission.clone();
        let mut waiting: Waiting = Box::pin(async move { admission.admit(client, cost).await });
        assert!(poll!(&mut waiting).is_pending());
        waiting
    }

    fn is_admitted(waiting: &mut Waiting) -> bool {
        matches!(waiting.now_or_never(), Some(Ok(_)))
    }

    #[tokio::test]
    async fn places_are_taken_and_given_back() {
        let admission = Admission::new(2, 100 * MS);
        let (one, _other) = (admission.admit(A, MS).await.unwrap(), admission.admit(A, MS).await.unwrap());
        let mut third = waiting(&admission, A, MS).await;
        drop(one);
        assert!(matches!(poll!(&mut third), Poll::Ready(Ok(_))));
    }

    #[tokio::test]
    async fn a_client_with_a_long_queue_does_not_hold_up_another() {
        let admission = Admission::new(1, 1000 * MS);
        let place = admission.admit(A, 10 * MS).await.unwrap();
        let mut many = Vec::new();
        for _ in 0..5 {
            many.push(waiting(&admission, A, 10 * MS).await);
        }
        let mut late = waiting(&admission, B, 10 * MS).await;
        drop(place);
        assert!(is_admitted(&mut late), "the other one is before what the first has piled up");
        assert_eq!(many.iter_mut().filter_map(|waiting| waiting.now_or_never()).count(), 5, "and then it is its turn");
    }

    #[tokio::test]
    async fn costs_are_shared_not_numbers() {
        let admission = Admission::new(1, 1000 * MS);
        let mut place = admission.admit(A, MS).await.unwrap();
        let mut queue = Vec::new();
        for (client, cost) in [(A, 40), (A, 40), (B, 10), (B, 10), (B, 10), (B, 10)] {
            queue.push((client, waiting(&admission, client, cost * MS).await));
        }
        let mut order = Vec::new();
        while !queue.is_empty() {
            drop(place);
            let mut next = None;
            for (index, (_, waiting)) in queue.iter_mut().enumerate() {
                if let Some(Ok(admitted)) = waiting.now_or_never() {
                    next = Some((index, admitted));
                    break;
                }
            }
            let (index, admitted) = next.unwrap();
            order.push(queue.remove(index).0);
            place = admitted;
        }
        assert_eq!(order, [B, A, B, B, B, A], "40 ms of one are worth four of 10 ms of the other");
    }

    #[tokio::test]
    async fn what_could_not_be_done_in_time_is_refused_at_once() {
        let admission = Admission::new(1, 100 * MS);
        let _place = admission.admit(A, MS).await.unwrap();
        let _mine = waiting(&admission, A, 40 * MS).await;
        assert_eq!(admission.admit(A, 20 * MS).await.unwrap_err(), Full::Client(40 * MS));
        let _theirs = waiting(&admission, B, 50 * MS).await;
        assert_eq!(admission.admit(Client::Known(2), 20 * MS).await.unwrap_err(), Full::Service(90 * MS));
        assert_eq!(admission.waiting(), 2);
    }

    #[tokio::test]
    async fn who_stops_to_wait_gives_its_place_up() {
        let admission = Admission::new(1, 100 * MS);
        let place = admission.admit(A, MS).await.unwrap();
        drop(waiting(&admission, A, 90 * MS).await);
        let mut next = waiting(&admission, B, 90 * MS).await;
        drop(place);
        assert!(is_admitted(&mut next));
        assert!(admission.admit(A, MS).await.is_ok(), "and no place is lost");
    }
}
