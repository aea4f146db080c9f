//! The addresses of `spiped setup`, which go to files and to another host.

use crate::config::address::Address;
use crate::config::value::ValueError;

/// Stands, in what is printed for the other host, for an address that only its
/// operator can know.
pub(crate) const GAP: &str = "LOCAL";

/// Reads an address that others can find, and that needs no quotes in any file.
///
/// # Errors
/// When the text is no such address.
pub(super) fn findable(text: &str) -> Result<Address, ValueError> {
    if text == GAP {
        let reason = format!("{GAP} stands for an address that has to be put in its place");
        let hint = "it is where this host's own programs are to reach the other server, such as 127.0.0.1:8000";
        return Err(ValueError::new(reason, hint));
    }
    let address: Address = text.parse()?;
    if address.port() == Some(0) {
        let reason = "port 0 is no port to be found at".to_owned();
        return Err(ValueError::new(reason, "name a port from 1 to 65535"));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._@:,+=~-".contains(&byte);
    if matches!(address, Address::Unix(_)) && !text.bytes().all(is_plain) {
        let what = "has other characters than letters, digits and /._@:,+=~-";
        return Err(ValueError::new(format!("the path '{text}' {what}"), "write /run/name.socket"));
    }
    Ok(address)
}
