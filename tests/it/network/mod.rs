//! Effects of networks on a pipe: names that change, peers that vanish, and so on, in
//! networks that the tests make.

mod dead_peers;
mod dns;
mod kernel;
mod ports;
mod process;
