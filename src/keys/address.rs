//! The address that each key connects to the target from, by which the target tells clients
//! apart.

use std::net::Ipv4Addr;

use super::error::KeyFileError;
use super::settings::KeySettings;
use crate::config::{KeyName, LoopbackRange};

/// The address of each key, in their order: the one in its settings, or the range's.
///
/// # Errors
/// When an address is not in the range, two keys have the same one, or there is no range
/// and a key has an address.
pub(crate) fn assign<'a>(
    range: Option<LoopbackRange>,
    keys: impl Iterator<Item = (&'a KeyName, KeySettings)>,
) -> Result<Vec<Option<Ipv4Addr>>, KeyFileError> {
    let mut assigned: Vec<(&KeyName, Ipv4Addr)> = Vec::new();
    for (name, settings) in keys {
        let Some(range) = range else {
            if settings.address.is_some() {
                return Err(KeyFileError::NoRange(name.clone()));
            }
            continue;
        };
        let address = settings.address.unwrap_or_else(|| range.address_of(name));
        if !range.contains(address) {
            return Err(KeyFileError::OutOfRange { name: name.clone(), address, range });
        }
        // A key and the one that is to follow it are one client.
        let is_of_another = |other: &&(&KeyName, Ipv4Addr)| {
            other.1 == address && other.0.without_new() != name.without_new()
        };
        if let Some((other, _)) = assigned.iter().find(is_of_another) {
            return Err(KeyFileError::SameAddress((*other).clone(), name.clone(), address));
        }
        assigned.push((name, address));
    }
    Ok(assigned.into_iter().map(|(_, address)| Some(address)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign_all(range: Option<&str>, keys: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let keys: Vec<(KeyName, KeySettings)> = keys
            .iter()
            .map(|(name, settings)| (name.parse().unwrap(), settings.parse().unwrap()))
            .collect();
        let range = range.map(|range| range.parse().unwrap());
        let assigned = assign(range, keys.iter().map(|(name, settings)| (name, *settings)));
        let shown = |address: Option<Ipv4Addr>| address.unwrap().to_string();
        assigned.map(|all| all.into_iter().map(shown).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_is_set_or_follows_from_the_name_and_is_one_clients() {
        let range = Some("127.9.0.0/24");
        let set = "ADDRESS=127.9.0.7";
        let all = assign_all(range, &[("a", set), ("a.new", set), ("b", "")]).unwrap();
        assert_eq!(all[..2], ["127.9.0.7", "127.9.0.7"]);
        assert!(all[2].starts_with("127.9.0.") && all[2] != "127.9.0.7");
        let error = assign_all(range, &[("a", set), ("b", set)]).unwrap_err();
        assert!(error.contains("keys a and b") && error.contains("127.9.0.7"), "{error}");
        let error = assign_all(range, &[("a", "ADDRESS=127.8.0.7")]).unwrap_err();
        assert!(error.contains("127.8.0.7") && error.contains("127.9.0.0/24"), "{error}");
        let error = assign_all(None, &[("a", set)]).unwrap_err();
        assert!(error.contains("the key a has an address"), "{error}");
    }
}
