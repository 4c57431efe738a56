//! What a target's name stands for: asked at each connection, and remembered for when nobody can say.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::drain;

/// Look-ups of one name at once. One that nobody waits for any more goes on in a thread of its own.
const AT_ONCE: usize = 2;
/// How long an answer is waited for where the last one is known.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long the last answer is good for while nobody can say. By then the address may be another's.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Addresses of one name; further ones are not tried.
const ADDRESSES: usize = 16;

/// What a name stood for, and when that was said.
type Told = (Instant, Vec<SocketAddr>);

/// One name, for all workers.
#[derive(Debug)]
pub struct Names {
    last: Arc<Mutex<Option<Told>>>,
    places: Arc<Semaphore>,
}

impl Default for Names {
    fn default() -> Self {
        Self { last: Arc::default(), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Names {
    /// The addresses of `host`, as the machine resolves it, or as it did before.
    ///
    /// An error only if the name is not known now and was not within the last hour.
    pub async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let name = (host.to_owned(), port);
        self.ask(move || (name.0.as_str(), name.1).to_socket_addrs().map(Iterator::collect)).await
    }

    async fn ask(
        &self,
        resolve: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> io::Result<Vec<SocketAddr>> {
        let Some(last) = self.last() else { return self.resolve(resolve).await };
        match timeout(PATIENCE, self.resolve(resolve)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(_)) | Err(_) => Ok(last),
        }
    }

    async fn resolve(
        &self,
        resolve: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> io::Result<Vec<SocketAddr>> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let last = Arc::clone(&self.last);
        let asked = drain::aside(move || {
            // Given back when the look-up ends, whoever waits for it.
            let _place = place;
            let mut found = resolve()?;
            found.truncate(ADDRESSES);
            if found.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
            }
            // Noted here: it is an answer also where nobody waits for it any more.
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some((Instant::now(), found.clone()));
            Ok(found)
        });
        asked.await.unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
    }

    fn last(&self) -> Option<Vec<SocketAddr>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, found) = last.as_ref()?;
        (at.elapsed() < REMEMBERED).then(|| found.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn address(last: u8) -> SocketAddr {
        ([127, 0, 0, last], 80).into()
    }

    fn gone() -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::other("nobody can say"))
    }

    #[tokio::test]
    async fn what_a_name_stood_for_is_good_while_nobody_can_say() {
        let names = Names::default();
        assert!(names.ask(gone).await.is_err(), "it was never known");
        let found = names.ask(|| Ok(vec![address(1)])).await;
        assert_eq!(found.expect("an address"), [address(1)]);
        assert_eq!(names.ask(gone).await.expect("the last"), [address(1)]);
        assert_eq!(names.ask(|| Ok(Vec::new())).await.expect("the last"), [address(1)]);
        let found = names.ask(|| Ok(vec![address(2)])).await;
        assert_eq!(found.expect("it has moved"), [address(2)]);
        assert_eq!(names.ask(gone).await.expect("the last"), [address(2)]);
    }

    #[tokio::test]
    async fn look_ups_that_hang_are_few_and_hold_up_nobody() {
        let names = Names::default();
        names.ask(|| Ok(vec![address(1)])).await.expect("an address");
        let (asked, (over, hung)) = (Arc::<AtomicUsize>::default(), mpsc::channel::<()>());
        let hung = Arc::new(Mutex::new(hung));
        for _ in 0..4 {
            let (asked, hung) = (Arc::clone(&asked), Arc::clone(&hung));
            let found = names.ask(move || {
                asked.fetch_add(1, Ordering::Relaxed);
                let hung = hung.lock().unwrap_or_else(PoisonError::into_inner);
                let _over = hung.recv();
                gone()
            });
            assert_eq!(found.await.expect("the last"), [address(1)]);
        }
        assert_eq!(asked.load(Ordering::Relaxed), AT_ONCE);
        drop(over);
        let found = names.ask(|| Ok(vec![address(2)])).await;
        assert_eq!(found.expect("a place is free again"), [address(2)]);
    }
}
