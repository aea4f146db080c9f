//! A hop between the two ends of a pipe. It sees and records everything that an attacker
//! on the wire sees, and can do everything that such an attacker can.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use socket2::SockRef;
use spiped::protocol::Suite;

/// The direction of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the sender to the receiver.
    ToReceiver,
    /// From the receiver to the sender.
    ToSender,
}

/// A handshake message (number 0 of its direction) or a whole record, with its number in
/// its direction.
pub struct Unit {
    pub way: Way,
    pub number: usize,
    pub bytes: Vec<u8>,
}

/// What the hop does with a unit.
pub enum Act {
    /// Sends bytes on.
    Forward(Vec<u8>),
    /// Sends bytes on, one of them as urgent data.
    Urge(Vec<u8>),
    /// Sends bytes back to the side that sent the unit.
    Reflect(Vec<u8>),
    /// Ends this direction with a plain FIN.
    End,
}

/// Decides about every unit of a connection, in both directions.
pub type Tamper = Box<dyn FnMut(Unit) -> Vec<Act> + Send>;

/// The hop: it listens on a port of loopback and connects to the next address.
pub struct Hop {
    pub address: SocketAddr,
    recorded: Arc<Mutex<(Vec<u8>, Vec<u8>)>>,
}

impl Hop {
    /// A hop that only records.
    pub fn recording(to: SocketAddr) -> Self {
        Self::tampering(to, |_| Box::new(|unit| vec![Act::Forward(unit.bytes)]))
    }

    /// A hop that makes a new `Tamper` for every connection, from its number.
    pub fn tampering(to: SocketAddr, tamper: impl Fn(usize) -> Tamper + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let recorded = Arc::<Mutex<(Vec<u8>, Vec<u8>)>>::default();
        let record = Arc::clone(&recorded);
        thread::spawn(move || {
            for (number, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let Ok(server) = TcpStream::connect(to) else { continue };
                let tamper = Arc::new(Mutex::new(tamper(number)));
                let suite = Arc::default();
                for way in [Way::ToReceiver, Way::ToSender] {
                    let (from, to) = match way {
                        Way::ToReceiver => (&client, &server),
                        Way::ToSender => (&server, &client),
                    };
                    let one = OneWay {
                        way,
                        from: from.try_clone().unwrap(),
                        to: to.try_clone().unwrap(),
                        tamper: Arc::clone(&tamper),
                        recorded: Arc::clone(&record),
                        suite: Arc::clone(&suite),
                    };
                    thread::spawn(move || one.run());
                }
            }
        });
        Self { address, recorded }
    }

    /// All bytes that crossed the wire, to the receiver and to the sender.
    pub fn recorded(&self) -> (Vec<u8>, Vec<u8>) {
        self.recorded.lock().unwrap().clone()
    }
}

struct OneWay {
    way: Way,
    from: TcpStream,
    to: TcpStream,
    tamper: Arc<Mutex<Tamper>>,
    recorded: Arc<Mutex<(Vec<u8>, Vec<u8>)>>,
    /// Which messages there are, known once the first byte has come.
    suite: Arc<OnceLock<Suite>>,
}

impl OneWay {
    fn run(mut self) {
        for number in 0.. {
            let Some(bytes) = self.read_unit(number) else { break };
            let acts = (self.tamper.lock().unwrap())(Unit { way: self.way, number, bytes });
            for act in acts {
                if !self.act(act) {
                    return;
                }
            }
        }
        let _gone = self.to.shutdown(Shutdown::Write);
    }

    /// The next whole handshake message or record.
    fn read_unit(&mut self, number: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; if number == 0 { 1 } else { 2 }];
        self.from.read_exact(&mut bytes).ok()?;
        let head = bytes.len();
        let length = match (number, self.way) {
            (0, Way::ToReceiver) => {
                let suite = Suite::from_byte(bytes[0])?;
                self.suite.set(suite).ok()?;
                suite.message_1()
            }
            // Message 1 has come before its answer.
            (0, Way::ToSender) => self.suite.get()?.message_2(),
            _ => 2 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]])),
        };
        bytes.resize(length, 0);
        self.from.read_exact(&mut bytes[head..]).ok()?;
        let mut recorded = self.recorded.lock().unwrap();
        match self.way {
            Way::ToReceiver => recorded.0.extend_from_slice(&bytes),
            Way::ToSender => recorded.1.extend_from_slice(&bytes),
        }
        Some(bytes)
    }

    /// Whether this direction goes on.
    fn act(&mut self, act: Act) -> bool {
        match act {
            Act::Forward(bytes) => self.to.write_all(&bytes).is_ok(),
            Act::Urge(bytes) => {
                let (urgent, rest) = bytes.split_at(bytes.len() / 2);
                let sent = SockRef::from(&self.to).send_out_of_band(urgent);
                sent.is_ok_and(|count| count == urgent.len()) && self.to.write_all(rest).is_ok()
            }
            Act::Reflect(bytes) => self.from.write_all(&bytes).is_ok(),
            Act::End => {
                let _gone = self.to.shutdown(Shutdown::Write);
                false
            }
        }
    }
}
