//! A unit that cannot listen, as where another program has the port or the address
//! is yet to come: its first start fails at once, so that whoever started it is told
//! why. Then systemd starts it again, and that process stays: it tries until it can,
//! and says so once, instead of a few lines for each try.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::as_given;
use crate::report::Report;
use crate::unit::check::is_restarted;
use crate::unit::notify::tell_waiting;

/// How soon it is tried again, at first and at last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));
/// How long a try may take: as long as the slowest resolver.
const TRY: Duration = Duration::from_mins(2);

/// What `attempt` comes to. Where systemd has started us again, an error after which the
/// source `may_come` is waited out.
pub(super) async fn listen<T, E: Report>(
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
    may_come: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let mut tries: u32 = 1;
    let (mut pause, longest) = PAUSES;
    loop {
        let error = match attempt().await {
            Err(error) if may_come(&error) && is_restarted() => error,
            result => {
                if result.is_ok() && tries > 1 {
                    info!(tries, "the source can be listened on");
                }
                return result;
            }
        };
        if tries == 1 {
            warn!(hint = &*as_given(error.hint()), "{error}; it is tried again until it can be");
        }
        tell_waiting(&format!("waiting: {error}"), pause.saturating_add(TRY));
        sleep(pause).await;
        tries = tries.saturating_add(1);
        pause = pause.saturating_mul(2).min(longest);
    }
}
