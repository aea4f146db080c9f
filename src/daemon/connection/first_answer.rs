//! The first record of a receiver, where nothing behind it is to be read yet.

use crate::daemon::relay::Tunnel;
use crate::daemon::relay::error::RelayError;
use crate::protocol::{CARRIED_MAX, FIRST_RECORD_MAX, OVERHEAD, Record};

const MAX: usize = if CARRIED_MAX > FIRST_RECORD_MAX { CARRIED_MAX } else { FIRST_RECORD_MAX };

/// Reads the first record of a receiver, and not a byte beyond it.
///
/// # Errors
/// When the tunnel ends or fails before, or the record is wrong.
pub(super) async fn first_answer(tunnel: &mut Tunnel) -> Result<Record, RelayError> {
    let Tunnel { stream, session } = tunnel;
    let mut bytes = [0; MAX];
    // No record is shorter.
    let (mut got, mut wanted) = (0, OVERHEAD);
    while got < wanted {
        let part = &mut bytes[..wanted];
        if stream.read_full(part, &mut got).await.map_err(RelayError::Tunnel)? < wanted {
            return Err(RelayError::Truncated);
        }
        if let Some(length) = session.opener.record_length(&bytes[..got])? {
            wanted = length;
        }
    }
    Ok(session.opener.open(&mut bytes[..wanted])?)
}
