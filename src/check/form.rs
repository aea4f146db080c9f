//! How the result of a check is told: lines for people, JSON, or one line for Nagios.

use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{Checked, Pipe};
use crate::config::Address;
use crate::daemon::proof::Proof;
use crate::report::{Report, exit};

/// Nagios: the service does not work.
const CRITICAL: u8 = 2;
/// Nagios: this cannot be told.
const UNKNOWN: u8 = 3;

impl Checked {
    /// A value a line.
    pub(crate) fn text(&self) -> String {
        let Pipe { key, key_id, proof } = &self.pipe;
        let mut lines = vec![("receiver", self.receiver.to_string())];
        if let Some(address) = proof.address {
            lines.push(("address", address.to_string()));
        }
        lines.extend([
            ("connect", milliseconds(proof.connect)),
            ("handshake", milliseconds(proof.handshake)),
            ("target", milliseconds(proof.target)),
            ("kex", proof.suite.kex.to_string()),
            ("cipher", proof.suite.cipher.to_string()),
            ("key", key.to_string()),
            ("key_id", key_id.to_string()),
            ("conn", proof.conn.to_string()),
        ]);
        if let Some(refused) = self.plaintext {
            let at = refused.address.map(|address| format!(" at {address}")).unwrap_or_default();
            let (protocol, took) = (refused.protocol, milliseconds(refused.took));
            lines.push(("plaintext", format!("{protocol} is refused{at}, in {took}")));
        }
        let lines = lines.iter().map(|(name, value)| format!("{name:<10} {value}\n"));
        lines.collect::<Vec<_>>().concat()
    }

    /// One document of one line.
    pub(crate) fn json(&self) -> String {
        let plaintext = self.plaintext.map(|refused| {
            json!({
                "address": refused.address,
                "refused": refused.protocol.to_string(),
                "seconds": refused.took.as_secs_f64(),
            })
        });
        document(&self.receiver, 0, &json!({ "pipe": self.pipe, "plaintext": plaintext }))
    }

    /// One line, with the times that Nagios draws.
    pub(crate) fn plugin(&self) -> String {
        let Pipe { key, proof, .. } = &self.pipe;
        let refused = self.plaintext.map(|it| format!(", refuses plaintext {}", it.protocol));
        let refused = refused.unwrap_or_default();
        let said = format!("{} takes key {key}, its target answers{refused}", self.receiver);
        let times = [
            ("time", self.took()),
            ("connect", proof.connect),
            ("handshake", proof.handshake),
            ("target", proof.target),
        ];
        let times = times.map(|(name, time)| format!(" {name}={:.6}s;;;0", time.as_secs_f64()));
        format!("SPIPED OK - {} |{}\n", plain(&said), times.concat())
    }

    fn took(&self) -> Duration {
        let Proof { connect, handshake, target, .. } = self.pipe.proof;
        let plaintext = self.plaintext.map_or(Duration::ZERO, |refused| refused.took);
        [connect, handshake, target, plaintext].iter().sum()
    }
}

impl Serialize for Pipe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { key, key_id, proof } = self;
        let pipe = json!({
            "address": proof.address,
            "connect_seconds": proof.connect.as_secs_f64(),
            "handshake_seconds": proof.handshake.as_secs_f64(),
            "target_seconds": proof.target.as_secs_f64(),
            "kex": proof.suite.kex.to_string(),
            "cipher": proof.suite.cipher.to_string(),
            "key": key.as_str(),
            "key_id": key_id.to_string(),
            "conn": proof.conn.to_string(),
        });
        pipe.serialize(serializer)
    }
}

/// A failure as JSON.
pub(crate) fn json_of(receiver: &Address, error: &dyn Report, hint: &str) -> String {
    let failure = json!({ "error": error.to_string(), "hint": hint });
    document(receiver, error.exit_code(), &failure)
}

/// A failure as one line for Nagios, and the exit code that Nagios knows.
pub(crate) fn plugin_of(error: &dyn Report) -> (String, u8) {
    let code = match error.exit_code() {
        super::plaintext::SERVED
        | exit::NO_USER
        | exit::NO_HOST
        | exit::UNAVAILABLE
        | exit::TRY_LATER
        | exit::PROTOCOL => CRITICAL,
        _ => UNKNOWN,
    };
    let state = if code == CRITICAL { "CRITICAL" } else { "UNKNOWN" };
    (format!("SPIPED {state} - {}\n", plain(&error.to_string())), code)
}

/// Nagios takes what stands behind a | for values.
fn plain(text: &str) -> String {
    text.replace('|', "/")
}

fn document(receiver: &Address, exit: u8, more: &Value) -> String {
    let mut all = json!({ "ok": exit == 0, "exit": exit, "receiver": receiver.to_string() });
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more.clone());
    }
    format!("{all}\n")
}

pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}
