//! Reads the recipes of a document, and follows them word for word.

use std::fs::{self, OpenOptions};
use std::io::Write;

use crate::support::hosts::{Hosts, project};

/// One block of a recipe.
#[derive(Debug, PartialEq)]
pub struct Step {
    on: Vec<String>,
    what: What,
    text: String,
}

#[derive(Debug, PartialEq)]
enum What {
    Commands,
    AddTo(String),
    Replace(String),
}

/// The steps of a section of man/spiped-redis.7, up to the next heading.
pub fn recipe(section: &str) -> Vec<Step> {
    let page = fs::read_to_string(project("man/spiped-redis.7")).unwrap();
    let is_heading = |line: &&str| line.starts_with(".Sh ") || line.starts_with(".Ss ");
    let mut lines = page.lines().skip_while(|line| !is_heading(line) || &line[4..] != section);
    let mut steps = Vec::new();
    let mut before = String::new();
    lines.next();
    while let Some(line) = lines.next().filter(|line| !is_heading(line)) {
        match line {
            ".Bd -literal -offset indent" => {
                let text: Vec<_> = lines.by_ref().take_while(|line| *line != ".Ed").collect();
                let text = text.join("\n").replace("\\e", "\\");
                steps.push(Step::new(&before, text).expect(&before));
            }
            ".Pp" => before.clear(),
            _ => before = [&before, line.trim_start_matches(".Pa ")].join("\n"),
        }
    }
    assert!(!steps.is_empty(), "there is no recipe '{section}'");
    steps
}

/// The steps of a section of README.md; a block that names no host is not a step.
pub fn recipe_of_the_readme(section: &str) -> Vec<Step> {
    let readme = fs::read_to_string(project("README.md")).unwrap();
    let (_, section) = readme.split_once(&format!("\n## {section}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    // Text and blocks alternate.
    let parts: Vec<_> = section.split("```").collect();
    parts
        .chunks_exact(2)
        .filter_map(|pair| {
            let text = pair[1].trim_start_matches("sh").trim();
            Step::new(&pair[0].replace('`', ""), text.into())
        })
        .collect()
}

impl Step {
    /// A block, and the text before it, whose last sentence tells what to do with the
    /// block: "On a:", "Add to FILE on a and b:".
    fn new(before: &str, text: String) -> Option<Self> {
        let words: Vec<_> = before.trim().strip_suffix(':')?.split_whitespace().collect();
        let sentence = words.rsplit(|word| word.ends_with(['.', ';'])).next()?;
        let on = sentence.iter().rposition(|word| ["on", "On"].contains(word))?;
        let (what, on) = sentence.split_at(on);
        let on = on[1..].iter().map(|word| word.trim_end_matches(','));
        let on: Vec<_> = on.filter(|word| *word != "and").map(str::to_owned).collect();
        let what = match *what {
            ["Add", "to", file] => What::AddTo(file.into()),
            ["Replace", file] => What::Replace(file.into()),
            _ => What::Commands,
        };
        Some(Self { on, what, text: unfolded(&text) })
    }

    /// Follows the step; returns the output of its commands.
    pub fn follow(&self, hosts: &Hosts) -> String {
        let mut printed = String::new();
        for host in &self.on {
            let host = &hosts[host.as_str()];
            let in_root = |file: &str| host.root.join(file.trim_start_matches('/'));
            match &self.what {
                What::Commands => printed.extend([host.sh(&self.text), "\n".into()]),
                What::AddTo(file) => {
                    let mut file = OpenOptions::new().append(true).open(in_root(file)).unwrap();
                    writeln!(file, "{}", self.text).unwrap();
                }
                What::Replace(file) => fs::write(in_root(file), &self.text).unwrap(),
            }
        }
        printed
    }
}

/// Joins lines: one that ends in a backslash continues in the next.
fn unfolded(text: &str) -> String {
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start())
}

/// Follows all steps; returns the output of their commands.
pub fn follow(hosts: &Hosts, steps: &[Step]) -> String {
    steps.iter().map(|step| step.follow(hosts)).collect()
}
