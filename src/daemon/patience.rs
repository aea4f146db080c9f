//! A unit that cannot listen, as where another program has the port or the address
//! is yet to come: its first start fails at once, so that whoever started it is told
//! why. Then systemd starts it again, and that process stays: it tries until it can,
//! and says so once, instead of a few lines for each try.
//!
//! What the two know of each other is a file in the unit's runtime directory. It
//! goes when the unit is stopped (`RuntimeDirectoryPreserve=restart`).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use super::notify::tell_waiting;
use crate::config::unit;
use crate::error::Error;

/// How soon it is tried again, at first and at last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));
/// The unit's `RestartSec=`: sooner it is not systemd that starts it again.
const RESTART: Duration = Duration::from_millis(1900);
/// How long a try may take: as long as the slowest resolver.
const TRY: Duration = Duration::from_mins(2);

/// What `attempt` comes to; in a unit of ours whose start before failed to listen,
/// once it can.
pub(super) async fn listen<T>(
    mut attempt: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let note = note();
    let was_left = note.as_deref().is_some_and(take);
    let mut tries: u32 = 1;
    let (mut pause, longest) = PAUSES;
    loop {
        let error = match attempt().await {
            Err(error @ Error::Listen { .. }) => error,
            result => {
                if result.is_ok() && tries > 1 {
                    info!(tries, "the source can be listened on");
                }
                return result;
            }
        };
        if !was_left {
            // Without it the next start fails as this one does.
            let _left = note.map(|note| fs::write(note, ""));
            return Err(error);
        }
        if tries == 1 {
            warn!(hint = error.hint(), "{error}; it is tried again until it can be");
        }
        tell_waiting(&format!("waiting: {error}"), pause.saturating_add(TRY));
        sleep(pause).await;
        tries = tries.saturating_add(1);
        pause = pause.saturating_mul(2).min(longest);
    }
}

/// Whether the start before has failed, and systemd has started this one.
fn take(note: &Path) -> bool {
    let written = fs::metadata(note).and_then(|note| note.modified());
    let is_automatic = written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= RESTART));
    fs::remove_file(note).is_ok() && is_automatic
}

/// Where a start that fails tells the next one, in a unit of ours.
fn note() -> Option<PathBuf> {
    let _of_ours = unit()?;
    Some(PathBuf::from(env::var_os("RUNTIME_DIRECTORY")?).join("cannot-listen"))
}
