//! An example of the protocol as a library: a client that talks to a receiver directly.
//!
//! ```sh
//! echo PING | cargo run --example client -- 192.0.2.1:6379 redis.key
//! ```
//!
//! The client sends standard input as one record and prints the answer of the server
//! behind the receiver. [`spiped::protocol`] describes the steps I1 to I4 and B3. The
//! client reads any key file; `spiped` itself also refuses files that others can read.
#![allow(clippy::print_stderr, reason = "errors are shown")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::{env, fs, io};

use rand::rngs::SysRng;
use spiped::protocol::{
    Cipher, Extensions, HEADER, Initiator, KEY_SECRETS, Kex, Opener, PREFIX, Record, SUFFIX,
    SharedKey, Suite,
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let usage = "usage: client ADDRESS KEYFILE";
    let mut tunnel = TcpStream::connect(arguments.next().ok_or(usage)?)?;
    let key = fs::read(arguments.next().ok_or(usage)?)?;
    let key = SharedKey::from_key_file(&key, Box::new([0; KEY_SECRETS]))?;
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;

    // I1 and I2: the handshake. A receiver with another key closes without an answer.
    let suite = Suite { kex: Kex::X25519MlKem768, cipher: Cipher::Aes256Gcm };
    let (initiator, message_1) = Initiator::start(suite, &key, &mut SysRng)?;
    tunnel.write_all(&message_1)?;
    let mut message_2 = vec![0; suite.message_2()];
    let no_answer = |error| format!("no answer from the receiver, is the key the same? {error}");
    tunnel.read_exact(&mut message_2).map_err(no_answer)?;
    let mut session = initiator.finish(&message_2)?;

    // I3 and B3: OPEN, the stream, and its END. DATA is sealed in place.
    tunnel.write_all(&session.sealer.seal_open(Extensions::default())?)?;
    if !input.is_empty() {
        let mut data = [&[0; PREFIX], input.as_slice(), &[0; SUFFIX]].concat();
        session.sealer.seal_data(&mut data)?;
        tunnel.write_all(&data)?;
    }
    tunnel.write_all(&session.sealer.seal_end()?)?;

    // I4 and B3: OPENED or ABORT, the server's stream, its END, and the receiver's DONE.
    loop {
        let mut record = Vec::new();
        match receive(&mut tunnel, &mut session.opener, &mut record)? {
            Record::Data(stream) => io::stdout().write_all(&record[stream])?,
            // Once all that came is passed on, DONE says so.
            Record::End => {
                io::stdout().flush()?;
                tunnel.write_all(&session.sealer.seal_done()?)?;
            }
            Record::Done => return Ok(()),
            Record::Abort(reason) => return Err(reason.to_string().into()),
            // OPENED needs nothing. The opener refuses all others here.
            Record::Ready
            | Record::Open(_)
            | Record::Opened(_)
            | Record::Carry(_)
            | Record::Carried(..)
            | Record::Frames(_)
            | Record::Join(_) => {}
        }
    }
}

/// Reads one whole record and opens it in place.
fn receive(
    tunnel: &mut TcpStream,
    opener: &mut Opener,
    record: &mut Vec<u8>,
) -> Result<Record, Box<dyn Error>> {
    let cut = |error| format!("the stream was cut: {error}");
    record.resize(HEADER, 0);
    tunnel.read_exact(record).map_err(cut)?;
    let length = opener.record_length(record)?.ok_or("two bytes are a whole header")?;
    record.resize(length, 0);
    tunnel.read_exact(&mut record[HEADER..]).map_err(cut)?;
    Ok(opener.open(record)?)
}
