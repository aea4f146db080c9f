//! What networks do to a pipe: names that change, peers that vanish, and the
//! like, in networks of the tests' own.

mod dead_peers;
mod dns;
mod kernel;
mod ports;
mod process;
