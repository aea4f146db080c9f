//! Strangers, who keep their rate whatever the receiver does.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rand::TryRng;
use rand::rngs::SysRng;
use spiped::protocol::{Initiator, KEY_SECRETS, SharedKey, Suite};
use spiped_dev::process::Result;

use crate::client::{connect, handshake, new_address, socket};
use crate::receiver::Receiver;

/// The threads that connect.
const THREADS: usize = 2;
/// How many messages of each kind there are.
const MESSAGES: usize = 256;
/// How long a connection is held: a reset takes away what the receiver has not read yet.
const HELD: Duration = Duration::from_millis(100);

/// What the strangers send.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes that are none of the protocol.
    NoMessage,
    /// A third each: random bytes, messages made with another key, replays.
    Attack,
}

/// Strangers that are to come.
pub struct Attack<'a> {
    receiver: &'a Receiver,
    messages: Vec<Vec<u8>>,
    rate: f64,
}

/// Strangers that come.
pub struct Running<'s> {
    threads: Vec<ScopedJoinHandle<'s, Result<f64>>>,
}

impl<'a> Attack<'a> {
    /// Strangers who come at this rate, each with the next message.
    pub fn new(receiver: &'a Receiver, kind: Kind, rate: f64) -> Result<Self> {
        let other = SharedKey::from_key_file(
            b"no key of the receiver, for 32 bytes",
            Box::new([0; KEY_SECRETS]),
        )?;
        let mut messages = Vec::new();
        for number in 0..if rate > 0.0 { MESSAGES } else { 0 } {
            let suite = Suite::ALL[number % Suite::ALL.len()];
            let mut random = vec![0; suite.message_1()];
            SysRng.try_fill_bytes(&mut random)?;
            if kind == Kind::NoMessage {
                random[0] = 0;
                messages.push(random);
                continue;
            }
            random[0] = suite.byte();
            messages.push(random);
            messages.push(Initiator::start(suite, &other, &mut SysRng)?.1);
            let mut tunnel = connect(new_address(), receiver.address)?;
            messages.push(handshake(&mut tunnel, receiver, number, suite)?.0);
        }
        Ok(Self { receiver, messages, rate })
    }

    /// Lets them come for this long.
    pub fn start<'s>(&'s self, scope: &'s Scope<'s, '_>, time: Duration) -> Running<'s> {
        let threads = if self.rate > 0.0 { THREADS } else { 0 };
        let start = |thread| scope.spawn(move || self.run(thread, time));
        Running { threads: (0..threads).map(start).collect() }
    }

    /// One thread's strangers; returns how many there were in a second whose message was
    /// sent.
    fn run(&self, thread: usize, time: Duration) -> Result<f64> {
        let begin = Instant::now();
        let rate = self.rate / THREADS as f64;
        let mut held = VecDeque::new();
        let (mut number, mut sent) = (0, 0);
        while begin.elapsed() < time {
            let due = (begin.elapsed().as_secs_f64() * rate) as usize;
            while number < due {
                let all = number * THREADS + thread;
                let message = &self.messages[all % self.messages.len()];
                held.push_back(Stranger::come(self.receiver, address(all), message)?);
                number += 1;
            }
            sent += held.iter_mut().filter_map(Stranger::send).count();
            while held.front().is_some_and(|stranger| stranger.at.elapsed() > HELD) {
                held.pop_front();
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(sent as f64 / begin.elapsed().as_secs_f64())
    }
}

impl Running<'_> {
    /// How many strangers a second have sent their messages.
    pub fn reached(self) -> Result<f64> {
        let rates = self
            .threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a stranger panicked")?);
        rates.sum()
    }
}

/// One half is of four addresses, the other half of 65,536.
fn address(number: usize) -> Ipv4Addr {
    let [.., high, low] = (number / 2).to_be_bytes();
    if number.is_multiple_of(2) {
        Ipv4Addr::new(127, 1, 0, low % 4 + 1)
    } else {
        Ipv4Addr::new(127, 2, high, low)
    }
}

/// A connection; it ends by a reset.
struct Stranger<'m> {
    stream: TcpStream,
    at: Instant,
    /// What is to be sent, until it is.
    message: Option<&'m [u8]>,
}

impl<'m> Stranger<'m> {
    fn come(receiver: &Receiver, from: Ipv4Addr, message: &'m [u8]) -> Result<Self> {
        let socket = socket(from)?;
        socket.set_nonblocking(true)?;
        // Under way, or there already.
        let _under_way = socket.connect(&receiver.address.into());
        Ok(Self { stream: socket.into(), at: Instant::now(), message: Some(message) })
    }

    /// Sends the message, if that was not done before and can be done now.
    fn send(&mut self) -> Option<()> {
        let message = self.message?;
        match self.stream.write(message) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            // Refused before it has said anything.
            Err(_) => self.message = None,
        }
        self.message.take().map(drop)
    }
}
