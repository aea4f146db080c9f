//! `spiped setup client`: a key for one more client.

use super::receiver::{Receiver, id_of};
use crate::config::KeyName;
use crate::config::setup::Run;
use crate::setup::error::SetupError;
use crate::setup::report::{Reach, by_hand};

/// Makes a client's key, unless it is there, and tells how to set the client's host up.
pub(super) fn add(receiver: &Receiver<'_>, name: &KeyName, run: Run) -> Result<String, SetupError> {
    let pipe = receiver.pipe;
    if *pipe == *name {
        return Err(SetupError::NameOfPipe(name.clone()));
    }
    receiver.has_plain_keys()?;
    let path = receiver.key_file(name);
    if run == Run::Dry {
        return receiver.would_put_in_force(&path);
    }
    receiver.put_in_force(&path)?;
    let id = id_of(&path)?;
    let sender = pipe.of_sender();
    let Reach { host, address } = Reach::of(receiver.source.as_ref());
    Ok(format!(
        "{name} is a client of the receiver {pipe}.\n  The id of its key is {id}.\n{}\
         Now, on the host of {name}:\n  \
         ssh {host} sudo cat {path} | sudo spiped setup send {sender} --source \
         127.0.0.1:8000 --target {address} --key -\n\
         Or, where {sender} is a pipe there already, with another key:\n  \
         ssh {host} sudo cat {path} | sudo spiped setup rotate {sender} --key -\n{}",
        receiver.unless_running(),
        by_hand(&path),
        path = path.display(),
    ))
}
