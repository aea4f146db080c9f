//! Clients that have a key, and speak the protocol themselves.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SysRng;
use socket2::{Domain, Socket, Type};
use spiped::protocol::{
    Extensions, HEADER, Initiator, Opener, PREFIX, Record, SUFFIX, Session, Suite,
};
use spiped_dev::process::{PATIENCE, Result};

use crate::receiver::Receiver;

/// How many clients may be under way: so many that the next one need not wait.
const AT_ONCE: usize = 24;
/// The next client's address.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Clients at a steady rate.
pub struct Clients<'a> {
    pub receiver: &'a Receiver,
    pub rate: f64,
}

/// The clients that came.
#[derive(Default)]
pub struct Came {
    /// The times to the first byte.
    pub times: Vec<Duration>,
    /// Why the others got none.
    pub failures: Vec<String>,
}

impl Clients<'_> {
    /// Lets clients come for this long, each at its time.
    pub fn run(&self, time: Duration) -> Came {
        let count = (time.as_secs_f64() * self.rate) as usize;
        let (begin, next) = (Instant::now(), AtomicUsize::new(0));
        let some = || {
            let mut came = Came::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return came;
                }
                let at = begin + Duration::from_secs_f64(number as f64 / self.rate);
                thread::sleep(at.saturating_duration_since(Instant::now()));
                let suite = Suite::ALL[number % Suite::ALL.len()];
                match connection(self.receiver, number * 7, suite) {
                    Ok(time) => came.times.push(time),
                    Err(error) => came.failures.push(error.to_string()),
                }
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(some)).collect();
            let mut all = Came::default();
            for thread in threads {
                match thread.join() {
                    Ok(came) => {
                        all.times.extend(came.times);
                        all.failures.extend(came.failures);
                    }
                    Err(_) => all.failures.push("a client panicked".into()),
                }
            }
            all
        })
    }
}

/// A whole connection, from a new address; returns the time to the first byte from the
/// server.
pub fn connection(receiver: &Receiver, number: usize, suite: Suite) -> Result<Duration> {
    let started = Instant::now();
    let mut tunnel = connect(new_address(), receiver.address)?;
    let (_message_1, mut session) = handshake(&mut tunnel, receiver, number, suite)?;
    let mut message = session.sealer.seal_open(Extensions::default())?;
    let mut data = [&[0; PREFIX], &[b'x'][..], &[0; SUFFIX]].concat();
    session.sealer.seal_data(&mut data)?;
    message.extend(data);
    tunnel.write_all(&message)?;
    let mut time = None;
    loop {
        let mut record = Vec::new();
        match receive(&mut tunnel, &mut session.opener, &mut record)? {
            Record::Data(stream) if record[stream.clone()] == *b"x" => {
                time = Some(started.elapsed());
                tunnel.write_all(&session.sealer.seal_end()?)?;
            }
            Record::Opened(_) => {}
            Record::End => tunnel.write_all(&session.sealer.seal_done()?)?,
            Record::Done => return time.ok_or_else(|| "no byte came".into()),
            Record::Ready
            | Record::Open(_)
            | Record::Data(_)
            | Record::Abort(_)
            | Record::Carry(_)
            | Record::Carried(..)
            | Record::Frames(_)
            | Record::Join(_) => {
                return Err("another record than was expected".into());
            }
        }
    }
}

/// The handshake with one of the receiver's keys; returns message 1, too.
pub fn handshake(
    tunnel: &mut TcpStream,
    receiver: &Receiver,
    number: usize,
    suite: Suite,
) -> Result<(Vec<u8>, Session)> {
    let key = &receiver.keys[number % receiver.keys.len()];
    let (initiator, message_1) = Initiator::start(suite, key, &mut SysRng)?;
    tunnel.write_all(&message_1)?;
    let mut message_2 = vec![0; suite.message_2()];
    tunnel.read_exact(&mut message_2)?;
    Ok((message_1, initiator.finish(&message_2)?))
}

/// An address that no client has come from, of 127.64.0.0/10.
pub fn new_address() -> Ipv4Addr {
    let number = NEXT.fetch_add(1, Ordering::Relaxed) as u32 % (1 << 22);
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 64, 0, 0).to_bits() | number)
}

pub fn connect(from: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let socket = socket(from)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// A socket that leaves no port in `TIME_WAIT`.
pub fn socket(from: Ipv4Addr) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn receive(tunnel: &mut TcpStream, opener: &mut Opener, record: &mut Vec<u8>) -> Result<Record> {
    record.resize(HEADER, 0);
    tunnel.read_exact(record)?;
    let length = opener.record_length(record)?.ok_or("two bytes are a whole header")?;
    record.resize(length, 0);
    tunnel.read_exact(&mut record[HEADER..])?;
    Ok(opener.open(record)?)
}
