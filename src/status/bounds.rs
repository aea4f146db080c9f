//! How much of an answer is taken for a status: a process that was taken over must not be
//! able to exhaust the program that asks it, and so to hide other pipes.

use super::{
    CARRIERS_MAX, Carrier, Failure, Histogram, KEYS_MAX, Key, LIST_MAX, OPEN_MAX, OpenConnection,
    Samples, Status, TEXT_MAX, Target,
};

impl Status {
    /// Whether all lists and texts are of a length that a spiped tells.
    pub(super) fn is_bounded(&self) -> bool {
        let Self { spiped, unit, listening, target, kex, carriers, keys, failures, open, .. } =
            self;
        let Target { address, error, .. } = target;
        let own = [Some(spiped), Some(kex), Some(address), error.as_ref(), unit.as_ref()];
        let numbers_are_few = [
            &self.recent.samples.lengths()[..],
            &self.handshake_seconds.lengths(),
            &self.target_connect_seconds.lengths(),
        ];
        let open = open.as_deref().unwrap_or_default();
        numbers_are_few.concat().into_iter().all(|length| length <= LIST_MAX)
            && listening.len() <= LIST_MAX
            && failures.len() <= LIST_MAX
            && carriers.len() <= CARRIERS_MAX
            && keys.len() <= KEYS_MAX
            && open.len() <= OPEN_MAX
            && are_short(own.into_iter().flatten())
            && are_short(listening)
            && [&self.closed_without_key, &self.handshakes, &self.totals.closed]
                .iter()
                .all(|counts| counts.len() <= LIST_MAX && are_short(counts.keys()))
            && carriers.iter().all(Carrier::is_bounded)
            && keys.iter().all(Key::is_bounded)
            && failures.iter().all(Failure::is_bounded)
            && open.iter().all(OpenConnection::is_bounded)
    }
}

impl Carrier {
    fn is_bounded(&self) -> bool {
        let Self { conn, key, key_id, peer, .. } = self;
        are_short([conn, key, key_id, peer])
    }
}

impl Key {
    fn is_bounded(&self) -> bool {
        let Self { name, id, address, kex, cipher, totals, .. } = self;
        totals.closed.len() <= LIST_MAX
            && are_short(totals.closed.keys())
            && are_short([name, id].into_iter().chain(address).chain(kex).chain(cipher))
    }
}

impl Failure {
    fn is_bounded(&self) -> bool {
        let Self { reason, peer, key, message, hint, .. } = self;
        are_short([reason, peer, message].into_iter().chain(key).chain(hint))
    }
}

impl OpenConnection {
    fn is_bounded(&self) -> bool {
        let Self { conn, key, key_id, peer, client, kex, cipher, .. } = self;
        are_short([conn, key, key_id, peer, kex, cipher].into_iter().chain(client))
    }
}

impl Samples {
    fn lengths(&self) -> [usize; 4] {
        let Self {
            connections,
            sent_bytes_per_second,
            received_bytes_per_second,
            handshakes_failed,
            ..
        } = self;
        [connections, sent_bytes_per_second, received_bytes_per_second, handshakes_failed]
            .map(Vec::len)
    }
}

impl Histogram {
    const fn lengths(&self) -> [usize; 2] {
        [self.le.len(), self.counts.len()]
    }
}

fn are_short<'a>(texts: impl IntoIterator<Item = &'a String>) -> bool {
    texts.into_iter().all(|text| text.len() <= TEXT_MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::asked;
    use super::super::{Answer, Status};
    use super::*;

    fn status() -> Status {
        let Answer::Told(status) = asked("redis").answer else { unreachable!() };
        *status
    }

    /// Makes a status too large in one place.
    type Grow = fn(&mut Status);

    #[test]
    fn a_status_with_a_text_or_a_list_that_is_too_long_is_not_understood() {
        let long = || "x".repeat(TEXT_MAX + 1);
        let whole = status();
        assert_eq!(Status::from_json(&whole.to_json()).as_ref(), Ok(&whole));
        let texts: [fn(&mut Status) -> &mut String; 12] = [
            |it| &mut it.spiped,
            |it| &mut it.target.address,
            |it| it.target.error.as_mut().unwrap(),
            |it| it.unit.as_mut().unwrap(),
            |it| &mut it.kex,
            |it| &mut it.listening[0],
            |it| &mut it.carriers[0].peer,
            |it| &mut it.keys[0].name,
            |it| it.keys[0].cipher.as_mut().unwrap(),
            |it| &mut it.failures[0].message,
            |it| it.failures[0].hint.as_mut().unwrap(),
            |it| &mut it.open.as_mut().unwrap()[0].peer,
        ];
        for text in texts {
            let mut status = whole.clone();
            *text(&mut status) = long();
            assert!(Status::from_json(&status.to_json()).is_err(), "{status:.300?}");
        }
        let many: [Grow; 9] = [
            |it| it.keys = vec![it.keys[0].clone(); KEYS_MAX + 1],
            |it| it.open = Some(vec![it.open.as_ref().unwrap()[0].clone(); OPEN_MAX + 1]),
            |it| it.carriers = vec![it.carriers[0].clone(); CARRIERS_MAX + 1],
            |it| it.listening = vec![String::new(); LIST_MAX + 1],
            |it| it.failures = vec![it.failures[0].clone(); LIST_MAX + 1],
            |it| it.handshake_seconds.le = vec![0.5; LIST_MAX + 1],
            |it| it.recent.samples.connections = vec![0; LIST_MAX + 1],
            |it| it.handshakes = BTreeMap::from([("x".repeat(TEXT_MAX + 1), 1)]),
            |it| it.keys[0].totals.closed = (0..600).map(|it| (it.to_string(), 1)).collect(),
        ];
        for grow in many {
            let mut status = whole.clone();
            grow(&mut status);
            assert!(Status::from_json(&status.to_json()).is_err());
        }
    }
}
