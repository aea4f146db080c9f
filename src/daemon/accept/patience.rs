//! A unit that cannot listen, since another program has the port or no interface has the
//! address yet. The unit's first start fails at once, so that the operator is told why.
//! Then systemd starts the unit again, and that process retries until it can listen. It
//! logs this once, instead of a few lines for each try.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::as_given;
use crate::report::Report;
use crate::unit::check::is_restarted;
use crate::unit::notify::tell_waiting;

/// The shortest and the longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));
/// The longest time that a try takes: the timeout of a slow resolver.
const TRY: Duration = Duration::from_mins(2);

/// The result of `attempt`. In a unit that systemd has started again, `attempt` is retried
/// after an error for which `may_come` is true.
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
                    info!(tries, "the source is available");
                }
                return result;
            }
        };
        if tries == 1 {
            warn!(hint = &*as_given(error.hint()), "{error}; retrying until it succeeds");
        }
        tell_waiting(&format!("waiting: {error}"), pause.saturating_add(TRY));
        sleep(pause).await;
        tries = tries.saturating_add(1);
        pause = pause.saturating_mul(2).min(longest);
    }
}
