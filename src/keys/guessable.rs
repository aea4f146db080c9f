//! Keys that a person thought up. Whoever has recorded a first message can try guesses on
//! it, so such a key protects nothing.

use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// A text of this many bytes or more is too long for a passphrase.
const TEXT: usize = 64;
/// The fewest digits of a hex key: 16 bytes.
const HEX: usize = 32;
/// The fewest characters of a key that some tool made of letters, digits and signs.
const MIXED: usize = 31;
/// 32 random bytes have about 30 different ones.
const DIFFERENT: usize = 16;

/// A warning: a key that looks like a passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GuessableKey {
    /// The key file, where it is known.
    path: Option<PathBuf>,
}

impl GuessableKey {
    /// What the operator can do.
    pub(crate) const HINT: &str =
        "make a random key with 'spiped keygen PATH', and give that one to both ends";

    /// The warning about a key file's content, if there is reason for one. The warning has
    /// nothing of the content.
    pub(crate) fn find(path: Option<&Path>, content: &[u8]) -> Option<Self> {
        looks_guessable(content).then(|| Self { path: path.map(Path::to_path_buf) })
    }
}

impl fmt::Display for GuessableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) if path == Path::new("-") => f.write_str("the key on standard input")?,
            Some(path) => write!(f, "the key file {}", path.display())?,
            None => f.write_str("the new key")?,
        }
        f.write_str(" looks like a passphrase: whoever records a connection can guess it offline")
    }
}

/// Whether a person, and no source of randomness, seems to have made the content: it has
/// few different bytes, or is a short text that none of the usual tools makes.
fn looks_guessable(content: &[u8]) -> bool {
    if let Some(bytes) = hex(content) {
        return is_monotonous(bytes);
    }
    is_monotonous(content.iter().copied()) || is_text(content) && !is_of_a_tool(content)
}

/// The bytes that hex digits stand for. `None` where there is something else than digits and
/// whitespace, or only decimal digits, which a person may have typed.
fn hex(content: &[u8]) -> Option<impl Iterator<Item = u8> + Clone> {
    let digits = content.iter().filter(|byte| !byte.is_ascii_whitespace());
    let is_hex = digits.clone().count() >= HEX
        && digits.clone().all(u8::is_ascii_hexdigit)
        && digits.clone().any(u8::is_ascii_alphabetic)
        && digits.clone().any(u8::is_ascii_digit);
    let mut values = digits.filter_map(|digit| char::from(*digit).to_digit(16));
    let byte = move || {
        let byte = values.next()?.checked_mul(16)?.checked_add(values.next()?)?;
        u8::try_from(byte).ok()
    };
    is_hex.then(|| std::iter::from_fn(byte))
}

/// Whether there are few different bytes among these.
fn is_monotonous(bytes: impl Iterator<Item = u8>) -> bool {
    let mut seen = Zeroizing::new([false; 256]);
    let mut count = 0;
    for byte in bytes {
        seen[usize::from(byte)] = true;
        count += 1;
    }
    // 16 random bytes, in hex, have about 15 different ones.
    seen.iter().filter(|seen| **seen).count() < DIFFERENT.min(count / 2)
}

/// Whether it is a text that a person may have typed.
fn is_text(content: &[u8]) -> bool {
    content.trim_ascii().len() < TEXT
        && str::from_utf8(content.trim_ascii())
            .is_ok_and(|text| !text.contains(|c: char| c.is_control() && !c.is_whitespace()))
}

/// Whether a text looks like that of a tool, such as base64(1): it has no spaces, and either
/// ends in padding, or its small letters, capitals, digits and signs alternate as by chance.
/// With chance two of three neighbours differ in that, and in words one of five.
fn is_of_a_tool(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    let Some(last) = text.iter().rposition(|byte| *byte != b'=') else { return false };
    let body = &text[..=last];
    if !body.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte)) {
        return false;
    }
    let is_padded = body.len() < text.len() && text.len().is_multiple_of(4);
    let alternations =
        body.iter().zip(&body[1..]).filter(|(a, b)| Sort::of(**a) != Sort::of(**b)).count();
    is_padded || body.len() >= MIXED && alternations * 5 >= (body.len() - 1) * 2
}

#[derive(PartialEq, Eq)]
enum Sort {
    Small,
    Capital,
    Digit,
    Sign,
}

impl Sort {
    const fn of(byte: u8) -> Self {
        match byte {
            b'a'..=b'z' => Self::Small,
            b'A'..=b'Z' => Self::Capital,
            b'0'..=b'9' => Self::Digit,
            _ => Self::Sign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64ct::{Base64, Base64Unpadded, Encoding};
    use rand::TryRng;
    use rand::rngs::SysRng;

    fn random<const N: usize>() -> [u8; N] {
        let mut bytes = [0; N];
        SysRng.try_fill_bytes(&mut bytes).unwrap();
        bytes
    }

    fn base64<E: Encoding>(bytes: &[u8]) -> String {
        let mut text = vec![0; E::encoded_len(bytes)];
        E::encode(bytes, &mut text).unwrap().to_owned()
    }

    fn hex_of(bytes: &[u8]) -> String {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.map(|digit| char::from_digit(digit.into(), 16).unwrap()).collect()
    }

    #[test]
    fn what_a_person_thinks_up_is_guessable() {
        let texts = [
            "correct horse battery staple forever",
            "correcthorsebatterystapleforever",
            "CorrectHorseBatteryStapleForever",
            "CorrectHorseBatteryStaple20241231",
            "Tr0ub4dor&3-Tr0ub4dor&3-Tr0ub4dor",
            "Tr0ub4dor3Tr0ub4dor3Tr0ub4dor3xx",
            "qwertyuiopasdfghjklzxcvbnm123456",
            "passwordpasswordpasswordpassword",
            "Password1Password1Password1Password1",
            "my redis server has\na very long secret",
            "my-redis-server-key-for-production-2024",
            "MeinHündchenHeißtSeitJahrenWaldi",
            "SECRETKEYOFTHECOMPANYDONOTSHARE2024",
            "0123456789012345678901234567890123456789",
            "31415926535897932384626433832795028841971693993751",
            "deadbeefdeadbeefdeadbeefdeadbeef",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "========================================",
        ];
        for text in texts {
            for end in ["", "\n", "\r\n"] {
                assert!(looks_guessable(format!("{text}{end}").as_bytes()), "{text}");
            }
        }
    }

    #[test]
    fn few_different_bytes_are_guessable_however_many_there_are() {
        for length in [32, 64, 65_536] {
            assert!(looks_guessable(&vec![7; length]));
            assert!(looks_guessable(&[0, 255, 1, 254].repeat(length / 4)));
            assert!(looks_guessable(hex_of(&vec![0x5a; length]).as_bytes()));
        }
        let counted: Vec<u8> = (0..32).collect();
        assert!(!looks_guessable(&counted) && looks_guessable(&counted[..15].repeat(3)));
    }

    #[test]
    fn what_tools_make_of_random_bytes_is_not() {
        for _ in 0..1000 {
            assert!(!looks_guessable(&random::<32>()));
            // openssl rand -hex 16, -hex 32; xxd -p of more, in lines.
            assert!(!looks_guessable(hex_of(&random::<16>()).as_bytes()));
            let hex = hex_of(&random::<32>());
            assert!(!looks_guessable(format!("{hex}\n").as_bytes()));
            assert!(!looks_guessable(format!("{hex}\n{hex}\n").to_uppercase().as_bytes()));
            // openssl rand -base64 32, wg genkey; base64 of 64 bytes.
            let key = base64::<Base64>(&random::<32>());
            assert!(!looks_guessable(format!("{key}\n").as_bytes()), "{key}");
            assert!(!looks_guessable(base64::<Base64>(&random::<64>()).as_bytes()));
        }
    }

    /// Without padding, a few in a thousand look like words by chance.
    #[test]
    fn letters_and_digits_at_random_are_hardly_ever_guessable() {
        let is_guessable = |_: &u32| {
            let text = base64::<Base64Unpadded>(&random::<24>());
            looks_guessable(text.as_bytes())
        };
        let warnings = (0..4000).filter(is_guessable).count();
        assert!(warnings < 60, "{warnings}");
    }

    #[test]
    fn a_warning_names_the_file_and_nothing_of_its_content() {
        let content = b"correct horse battery staple forever";
        let path = Path::new("/etc/spiped/redis.key");
        let why = "looks like a passphrase: whoever records a connection can guess it offline";
        for (path, subject) in [
            (Some(path), "the key file /etc/spiped/redis.key"),
            (Some(Path::new("-")), "the key on standard input"),
            (None, "the new key"),
        ] {
            let warning = GuessableKey::find(path, content).unwrap();
            assert_eq!(warning.to_string(), format!("{subject} {why}"));
            let shown = format!("{warning:?} {warning}");
            for word in ["correct", "horse", "36"] {
                assert!(!shown.contains(word), "{shown}");
            }
        }
        assert_eq!(GuessableKey::find(Some(path), &random::<32>()), None);
    }
}
