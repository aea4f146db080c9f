//! Settings of one key, in the file `NAME.conf` beside `NAME.key` in a folder of keys.

use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::str::FromStr;

/// The settings of one key; what is not set follows the options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySettings {
    /// `CONNECTIONS=20`: the most connections at once of this key.
    pub(crate) connections: Option<NonZeroU32>,
    /// `ADDRESS=127.64.0.7`: where the target sees the connections of this key come from.
    pub(crate) address: Option<Ipv4Addr>,
}

impl FromStr for KeySettings {
    /// Which line is wrong, and why.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut settings = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |wanted| Err(format!("line {number} is not {wanted}"));
            let again = || Err(format!("line {number} sets again what is set already"));
            match line.split_once('=') {
                Some(("CONNECTIONS", value)) => match value.parse() {
                    Ok(_) if settings.connections.is_some() => return again(),
                    Ok(most) => settings.connections = Some(most),
                    Err(_) => return wrong("CONNECTIONS= and a number from 1"),
                },
                Some(("ADDRESS", value)) => match value.parse() {
                    Ok(_) if settings.address.is_some() => return again(),
                    Ok(address) => settings.address = Some(address),
                    Err(_) => return wrong("ADDRESS= and an IPv4 address"),
                },
                _ => return wrong("CONNECTIONS=NUMBER or ADDRESS=IPV4"),
            }
        }
        Ok(settings)
    }
}

/// The text that is parsed again to the same settings.
impl fmt::Display for KeySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(most) = self.connections {
            writeln!(f, "CONNECTIONS={most}")?;
        }
        self.address.map_or(Ok(()), |address| writeln!(f, "ADDRESS={address}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_lines_and_anything_else_is_named() {
        let text = "# the web hosts\n\nCONNECTIONS=20\n ADDRESS=127.64.0.7 \n";
        let settings: KeySettings = text.parse().unwrap();
        assert_eq!(settings.connections.map(NonZeroU32::get), Some(20));
        assert_eq!(settings.address, Some(Ipv4Addr::new(127, 64, 0, 7)));
        assert_eq!(settings.to_string().parse(), Ok(settings));
        assert_eq!("".parse(), Ok(KeySettings::default()));
        for wrong in ["CONNECTIONS=0", "CONNECTIONS=x", "ADDRESS=::1", "connections=3", "word"] {
            let error = format!("CONNECTIONS=1\n{wrong}").parse::<KeySettings>().unwrap_err();
            assert!(error.starts_with("line 2 is not "), "{error}");
        }
        for again in ["CONNECTIONS=2", "ADDRESS=127.1.1.1"] {
            let error = format!("{again}\n#\n{again}").parse::<KeySettings>().unwrap_err();
            assert_eq!(error, "line 3 sets again what is set already");
        }
    }
}
