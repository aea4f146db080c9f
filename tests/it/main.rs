//! Tests of the program as users run it: real processes, real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends that way")]
#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests may")]
#![allow(clippy::needless_pass_by_value, reason = "what is reset, or shown, is given away")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests may")]
#![allow(missing_docs, unreachable_pub, reason = "nobody else sees it")]

mod access;
mod architecture;
mod bad_input;
mod both_logs;
// `scripts/test` makes the build with AWS-LC before the other one.
#[cfg(not(feature = "aws-lc"))]
mod builds;
mod carriers;
mod check;
mod completions;
mod config_check;
// Units, packages and set-up do not depend on the ciphers: these modules and those below
// are tested with one build.
#[cfg(feature = "aws-lc")]
mod container;
mod help;
#[cfg(feature = "aws-lc")]
mod hosts;
mod key_files;
mod knowledge;
mod library;
mod load;
mod log;
mod loops;
mod man_in_the_middle;
mod manual;
mod many_keys;
mod mariadb;
mod memory;
mod network;
#[cfg(feature = "aws-lc")]
mod packages;
mod peer;
mod peer_carriers;
mod prewarm;
mod process;
#[cfg(feature = "aws-lc")]
mod proof;
#[cfg(feature = "aws-lc")]
mod proxy_protocol;
mod readme;
mod redis;
mod service;
mod setup;
mod spipe;
mod status;
mod status_command;
mod status_http;
mod strangers;
mod streams;
mod support;
mod weaknesses;
