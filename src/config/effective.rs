//! The effective configuration, as a file of variables.

use std::ffi::OsStr;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory};

use super::args::Args;
use super::environment_file::line_of;
use super::unit::unit_name;
use super::value::yes_or_no;

/// The lines of the options that are given, and those of all others, which are comments. `-k`
/// is not among them. In a unit, what is typed is a comment, too: the unit types it itself.
#[must_use]
pub(crate) fn effective(values: &ArgMatches) -> (String, String) {
    let mut all = Args::command();
    all.build();
    let is_unit = unit_name().is_some();
    let (mut given, mut others) = (String::new(), String::new());
    for arg in all.get_arguments() {
        let variable = arg.get_env().and_then(OsStr::to_str);
        let Some(variable) = variable.filter(|name| *name != "SPIPED_KEY") else { continue };
        let Some(value) = value(arg, values) else {
            given.extend(["# ", variable, ", which is not UTF-8, cannot stand here\n"]);
            continue;
        };
        let line = line_of(variable, &value);
        match values.value_source(arg.get_id().as_str()) {
            Some(ValueSource::CommandLine) if !is_unit => given += &line,
            Some(ValueSource::EnvVariable) => given += &line,
            _ => others.extend(["# ", &line.trim_end().replace('\n', " "), "\n"]),
        }
    }
    (given, others)
}

/// The value of an option, as its variable has it; empty where it has none.
fn value(arg: &Arg, values: &ArgMatches) -> Option<String> {
    let given = values.get_raw(arg.get_id().as_str());
    let given: Vec<_> = given.into_iter().flatten().map(OsStr::to_str).collect::<Option<_>>()?;
    if !arg.get_action().takes_values() {
        let is_on = given.iter().any(|text| yes_or_no(text) == Ok(true));
        return Some(if is_on { "1" } else { "0" }.to_owned());
    }
    let delimiter = arg.get_value_delimiter().map(String::from).unwrap_or_default();
    Some(given.join(&delimiter))
}
