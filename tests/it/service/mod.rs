//! The program as a service of systemd; the test plays the part of systemd.

mod activation;
mod handover;
mod notify;
mod rekey;

use std::path::Path;
use std::process::{Command, Output};

use crate::support::SPIPED;

fn key_id(key: &Path) -> String {
    let output = Command::new(SPIPED).arg("keyid").arg(key).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8([&*output.stdout, &*output.stderr].concat()).unwrap()
}
