//! Help, manual pages and completions are held to the definitions of the options.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{Arg, Command as Clap, CommandFactory, FromArgMatches};
use clap_complete::Shell;
use tracing::level_filters::LevelFilter;

use super::{Args, CheckArgs, Refresh, SpipeArgs};

/// The programs, their pages, and where an option is looked up that is not there.
fn programs() -> [(Clap, String, String); 3] {
    let [mut spiped, mut spipe, mut check] =
        [Args::command(), SpipeArgs::command(), CheckArgs::command()];
    spiped.build();
    spipe.build();
    check = check.name("spiped-check");
    check.build();
    let page = || read("spiped.1");
    [
        (spiped, page(), read("spiped-status.1")),
        (spipe, read("spipe.1"), page()),
        (check, read("spiped-check.1"), page()),
    ]
}

fn read(page: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(page)).unwrap()
}

fn options(clap: &Clap) -> impl Iterator<Item = &Arg> {
    clap.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set())
}

/// The commands below one, and those below them.
fn below(clap: &Clap) -> Vec<&Clap> {
    let commands = clap.get_subcommands().filter(|below| below.get_name() != "help");
    commands.flat_map(|command| [vec![command], below(command)].concat()).collect()
}

/// The option's names as mdoc has them: `s` and `-source`.
fn names(arg: &Arg) -> Vec<String> {
    let short = arg.get_short().map(String::from);
    short.into_iter().chain(arg.get_long().map(|long| format!("-{long}"))).collect()
}

/// The option's names and its value: `Fl s Ar address , Fl -source Ar address`.
fn forms(arg: &Arg) -> Vec<String> {
    let value = arg.get_value_names().unwrap_or_default().first();
    let value = value.filter(|_| arg.get_action().takes_values());
    let value = value.map(|value| format!(" Ar {}", value.to_lowercase())).unwrap_or_default();
    names(arg).iter().map(|name| format!("Fl {name}{value}")).collect()
}

/// The text under the option's own line in a page.
fn item<'a>(page: &'a str, arg: &Arg) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("\n.It {}\n", forms(arg).join(" , ")))?;
    rest.split("\n.It ").next()?.split("\n.El").next()
}

/// The defaults that a text names, in `The default is 5.`
fn defaults(text: &str) -> Vec<&str> {
    let found = text.split("default is").skip(1).filter_map(|rest| rest.split_whitespace().next());
    found.map(|word| word.trim_end_matches(['.', ',', ':', ';'])).collect()
}

fn default(arg: &Arg) -> Option<&str> {
    let value = arg.get_default_values().first()?.to_str();
    value.filter(|_| arg.get_action().takes_values())
}

/// Whether a text has an option's name, and not as a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(start, _)| {
        let after = text[start + word.len()..].chars().next();
        after.is_none_or(|after| !after.is_ascii_alphanumeric() && after != '-')
    })
}

/// The options marked as such in lines of mdoc, where `-s` is `Fl s`.
fn flags<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for line in lines.filter_map(|line| line.strip_prefix('.')) {
        let words: Vec<_> = line.split(' ').collect();
        for pair in words.windows(2) {
            match pair {
                // As in `Op Fl gj`: several that have no value.
                ["Fl", letters] if line.starts_with("Op ") && !letters.starts_with('-') => {
                    found.extend(letters.split("").filter(|letter| !letter.is_empty()));
                }
                ["Fl", name] => drop(found.insert(name)),
                _ => {}
            }
        }
    }
    found
}

#[test]
fn an_option_without_a_value_can_stand_for_the_value_of_another() {
    let parsed = |more: &str| {
        let line = format!("spiped -d -t host:1 -k key {more}");
        let matches = Args::command().try_get_matches_from(line.split_whitespace()).unwrap();
        let args = Args::from_arg_matches(&matches).unwrap();
        (args.connections.refresh, args.log.level.0)
    };
    let every = Refresh::default();
    assert_eq!(parsed(""), (every, LevelFilter::INFO));
    assert_eq!(parsed("-R -q"), (Refresh::Never, LevelFilter::WARN));
    assert_eq!(parsed("--verbose"), (every, LevelFilter::DEBUG));
    assert_eq!(parsed("-q --log off"), (every, LevelFilter::OFF));
}

#[test]
fn the_manual_has_each_option_with_its_value_and_default() {
    for (clap, page, other) in programs() {
        let file = format!("man/{}.1", clap.get_name());
        let (synopsis, _) = page.split_once(".Sh DESCRIPTION").unwrap();
        let synopsis = flags(synopsis.lines());
        for arg in options(&clap) {
            let own = item(&page, arg);
            let item = own.or_else(|| item(&other, arg));
            let line = forms(arg).join(" , ");
            let item =
                item.unwrap_or_else(|| panic!("OPTIONS of {file} lacks {arg}: '.It {line}'"));
            let expected: Vec<_> = default(arg).into_iter().collect();
            assert_eq!(defaults(item), expected, "the default of {arg} in {file}: {item}");
            let is_in_synopsis = names(arg).iter().any(|name| synopsis.contains(&**name));
            // -f is refused, so that nobody is to give it.
            let is_needless = own.is_none() || arg.get_long() == Some("fast");
            assert!(is_in_synopsis || is_needless, "SYNOPSIS of {file} lacks {arg}");
        }
        // What has its own line there, or stands in that of its command.
        let check = read("spiped-check.1");
        let items: Vec<_> =
            [&*page, &*other, &*check].iter().flat_map(|page| page.lines()).collect();
        let is_told = |form: &String| {
            items.iter().any(|line| line.starts_with(".It ") && format!("{line} ").contains(form))
        };
        for arg in below(&clap).into_iter().flat_map(options) {
            let form = |form| format!("{form} ");
            let is_there = forms(arg).iter().map(form).any(|form| is_told(&form));
            assert!(is_there, "{file} lacks {arg}: '.It … {}'", forms(arg).join(" , "));
        }
    }
}

#[test]
fn the_manual_has_no_option_that_is_not_there() {
    let mut known = BTreeMap::new();
    for (clap, ..) in programs() {
        let commands = [vec![&clap], below(&clap)].concat();
        let all: BTreeSet<_> = commands.into_iter().flat_map(options).flat_map(names).collect();
        known.insert(clap.get_name().to_owned(), all);
    }
    let pages = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).unwrap();
    for page in pages.map(|page| page.unwrap().file_name().into_string().unwrap()) {
        let text = read(&page);
        let program = if page == "spipe.1" { "spipe" } else { "spiped" };
        let unknown = |name: &&&str| !known[program].contains(**name);
        let found = flags(text.lines());
        assert_eq!(found.iter().filter(unknown).collect::<Vec<_>>(), [&""; 0], "{page}");
    }
}

#[test]
fn an_options_variable_is_made_of_its_name_and_pages_name_no_other() {
    let mut known = BTreeSet::from(["SPIPED_UNIT".to_owned()]);
    for (clap, page, _) in programs() {
        let (_, rule) = page.split_once(".Sh ENVIRONMENT\n").unwrap();
        let (rule, _) = rule.split_once(".Sh ").unwrap();
        assert!(rule.contains("\n.It Ev SPIPED_ Ns Ar OPTION\nEach option by its long name"));
        let none =
            rule.split_once("\nOnly\n").unwrap().1.split_once("\nhave no variable.").unwrap();
        let none = flags(none.0.lines());
        for arg in options(&clap) {
            let variable = arg.get_env().map(|name| name.to_str().unwrap().to_owned());
            let long = arg.get_long().unwrap().to_uppercase().replace('-', "_");
            let has_none = names(arg).iter().any(|name| none.contains(&**name));
            let expected = (!has_none).then(|| format!("SPIPED_{long}"));
            assert_eq!(variable, expected, "{arg}");
            known.extend(variable);
        }
    }
    let pages = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).unwrap();
    for page in pages.map(|page| page.unwrap().path()) {
        let text = fs::read_to_string(&page).unwrap();
        // The message about an unknown variable has one as its example; the fields of the
        // journal are no variables.
        let is_of_journal = |line: &str| line.starts_with(".Va ") || line.contains("journalctl ");
        let lines = text.lines().filter(|line| !line.contains("is no variable of spiped"));
        let lines = lines.filter(|line| !is_of_journal(line));
        for rest in lines.flat_map(|line| line.split("SPIPED_").skip(1)) {
            let end = |character: char| !character.is_ascii_uppercase() && character != '_';
            let name = format!("SPIPED_{}", rest.split(end).next().unwrap());
            assert!(name == "SPIPED_" || known.contains(&name), "{name} in {}", page.display());
        }
    }
}

#[test]
fn help_and_completions_have_each_option() {
    for (mut clap, ..) in programs() {
        let help = clap.render_help().to_string();
        let mut written = 0;
        for arg in options(&clap) {
            let long = format!("--{}", arg.get_long().unwrap());
            // With a text below its name, where names are long.
            let lines = help.split("\n  -").flat_map(|item| item.split("\n      -"));
            let line = lines.map(|item| item.split("\n\n").next().unwrap().trim_end());
            let line = line.into_iter().find(|line| has_word(&format!("-{line}"), &long));
            let line = line.unwrap_or_else(|| panic!("{arg} is not in {help}"));
            // Nobody has to write it by hand.
            assert!(!arg.get_help().unwrap().to_string().contains("default"), "{line}");
            if let Some(default) = default(arg) {
                assert!(line.ends_with(&format!(" [default: {default}]")), "{line}");
                written += 1;
            }
        }
        assert_eq!(help.matches("[default: ").count(), written);
        let forms = [(Shell::Bash, "--"), (Shell::Fish, "-l "), (Shell::Zsh, "--")];
        for (shell, dashes) in forms {
            let mut script = Vec::new();
            let name = clap.get_name().to_owned();
            clap_complete::generate(shell, &mut clap, name, &mut script);
            let script = String::from_utf8(script).unwrap();
            for arg in options(&clap) {
                let long = format!("{dashes}{}", arg.get_long().unwrap());
                assert!(has_word(&script, &long), "{long} is not what {shell} completes");
                for value in arg.get_possible_values() {
                    let value = value.get_name();
                    assert!(has_word(&script, value), "{long} {value}: {shell}");
                    let line = ["", &format!("--{}", arg.get_long().unwrap()), value];
                    // The value is read, and at most other options are missing.
                    let error = clap.clone().try_get_matches_from(line).err();
                    let kind = error.as_ref().map(clap::Error::kind);
                    let is_read = matches!(kind, None | Some(ErrorKind::MissingRequiredArgument));
                    assert!(is_read, "{error:?}");
                }
            }
        }
    }
}
