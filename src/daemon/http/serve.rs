//! Connections of HTTP clients: how many, how long, how much.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::Socket;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, sink};
use tokio::select;
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tracing::warn;

use super::host::Arrival;
use super::place::Place;
use super::site::Site;
use crate::daemon::accept::accept_on_all;
use crate::daemon::limits::STATUS_CLIENTS;
use crate::daemon::runtime::shutdown::{Shutdown, Trigger};

/// How long a client may take in all: a connection has one request.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of its request.
const HEAD: Duration = Duration::from_secs(5);
/// The longest head of a request, in bytes, and the most fields in it.
const HEAD_MAX: usize = 1 << 14;
const FIELDS_MAX: usize = 64;
/// For how long, and for how many bytes, what a client still sends is read after its answer:
/// a socket that is closed with unread input may discard the answer.
const GOODBYE: Duration = Duration::from_secs(1);
const GOODBYE_MAX: u64 = 1 << 24;

/// Listens at `place` and serves until `closing` begins; tells when the address is given up.
/// Returns when the last client has its answer.
pub(super) async fn serve(place: Place, site: Arc<Site>, closing: Shutdown, closed: Trigger) {
    let clients = Mutex::new(Clients::default());
    select! {
        () = listen_and_accept(place, &site, &clients) => closing.begun().await,
        () = closing.begun() => {}
    }
    closed.begin();
    clients.into_inner().all_served().await;
}

async fn listen_and_accept(place: Place, site: &Arc<Site>, clients: &Mutex<Clients>) {
    let listeners = place.listen().await;
    let take = async |socket: Socket, _peer| {
        let mut clients = clients.lock().await;
        clients.make_room().await;
        clients.serve(socket, Arc::clone(site));
    };
    if let Err(error) = accept_on_all(&listeners, &take).await {
        warn!("no status over HTTP any more: {error}");
    }
}

/// The clients that are served.
#[derive(Default)]
struct Clients {
    tasks: JoinSet<()>,
    /// The oldest first.
    in_order: VecDeque<Client>,
}

struct Client {
    task: AbortHandle,
    /// Whether it has sent the whole head of a request.
    has_asked: Arc<AtomicBool>,
}

impl Clients {
    /// Where there is no room for another client, the one that has been there longest is
    /// closed: whoever holds connections open keeps nobody else out. Those come first that
    /// have not asked for anything, so that these close nobody who is being answered.
    async fn make_room(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.in_order.retain(|client| !client.task.is_finished());
        while self.tasks.len() >= STATUS_CLIENTS {
            let is_mute = |client: &Client| !client.has_asked.load(Ordering::Relaxed);
            let place = self.in_order.iter().position(is_mute).unwrap_or(0);
            if let Some(client) = self.in_order.remove(place) {
                client.task.abort();
            }
            // Its descriptor is closed then.
            let _ended = self.tasks.join_next().await;
        }
    }

    fn serve(&mut self, socket: Socket, site: Arc<Site>) {
        let has_asked = Arc::<AtomicBool>::default();
        let asked = Arc::clone(&has_asked);
        self.add(has_asked, async move {
            // A client that is gone or too slow gets nothing, and is worth no line in the log.
            let _served = timeout(LIMIT, serve_client(socket, site, asked)).await;
        });
    }

    fn add(
        &mut self,
        has_asked: Arc<AtomicBool>,
        served: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = self.tasks.spawn(served);
        self.in_order.push_back(Client { task, has_asked });
    }

    async fn all_served(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn serve_client(socket: Socket, site: Arc<Site>, asked: Arc<AtomicBool>) -> io::Result<()> {
    let local = socket.local_addr()?;
    if let Some(at) = local.as_socket() {
        let is_loopback = at.ip().to_canonical().is_loopback();
        let arrival = if is_loopback { Arrival::Loopback } else { Arrival::Exposed };
        let stream = tokio::net::TcpStream::from_std(TcpStream::from(socket))?;
        answer(stream, arrival, site, asked).await
    } else {
        let stream = tokio::net::UnixStream::from_std(UnixStream::from(socket))?;
        answer(stream, Arrival::Unix, site, asked).await
    }
}

/// Reads one request and answers it.
async fn answer<S>(
    stream: S,
    arrival: Arrival,
    site: Arc<Site>,
    asked: Arc<AtomicBool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request| {
        asked.store(true, Ordering::Relaxed);
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(&request, arrival).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(HEAD_MAX)
        .max_buf_size(HEAD_MAX)
        .max_headers(FIELDS_MAX)
        // A client may end its direction once it has asked.
        .half_close(true)
        .keep_alive(false);
    let served = http.serve_connection(TokioIo::new(stream), service).without_shutdown().await;
    let mut stream = served.map_err(io::Error::other)?.io.into_inner();
    stream.shutdown().await?;
    let rest = async { tokio::io::copy(&mut stream.take(GOODBYE_MAX), &mut sink()).await };
    let _rest = timeout(GOODBYE, rest).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test]
    async fn clients_that_have_asked_for_nothing_are_closed_first() {
        let mut clients = Clients::default();
        for number in 0..STATUS_CLIENTS {
            // All but two have asked.
            clients.add(Arc::new((![3, 5].contains(&number)).into()), pending());
        }
        // What comes in their place has asked for nothing, either.
        for (round, closed) in [3, 4, 15].into_iter().enumerate() {
            let task = clients.in_order[closed].task.clone();
            clients.make_room().await;
            assert!(task.is_finished(), "{round}");
            assert_eq!(clients.tasks.len(), STATUS_CLIENTS - 1);
            if round > 0 {
                clients.add(Arc::default(), pending());
            } else {
                clients.add(Arc::new(true.into()), pending());
            }
        }
        for client in &clients.in_order {
            client.has_asked.store(true, Ordering::Relaxed);
        }
        let oldest = clients.in_order[0].task.clone();
        clients.make_room().await;
        assert!(oldest.is_finished());
    }
}
