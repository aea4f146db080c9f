//! The way of a key where sudo asks for a password: the key is printed on one host, and
//! pasted on the other.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use super::{PROVED, RECEIVE, SEND};
use crate::support::hosts::{Host, Hosts, hosts_can_be};

const PASSWORD: &str = "not-the-best-one";

/// An operator without root at a terminal of a host.
struct Terminal {
    script: Child,
    says: Receiver<u8>,
    seen: String,
}

impl Terminal {
    fn run(host: &Host, line: &str) -> Self {
        let line = format!("script --quiet --return --echo never --command '{line}' /dev/null");
        let mut script = host
            .shell(&format!("exec su op --command \"{line}\""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, says) = channel();
        let mut stdout = script.stdout.take().unwrap();
        thread::spawn(move || {
            let mut byte = [0];
            while stdout.read(&mut byte).is_ok_and(|got| got > 0) && tell.send(byte[0]).is_ok() {}
        });
        Self { script, says, seen: String::new() }
    }

    /// Waits for a question, and types the answer.
    fn answer(&mut self, question: &str, answer: &str) {
        while !self.seen.contains(question) {
            let byte = self.says.recv_timeout(Duration::from_mins(1));
            let byte = byte.unwrap_or_else(|_| panic!("{question:?} is not in {:?}", self.seen));
            self.seen.push(char::from(byte));
        }
        self.seen.clear();
        let stdin = self.script.stdin.as_mut().unwrap();
        stdin.write_all(format!("{answer}\n").as_bytes()).unwrap();
    }

    /// The output until the command ends, and its exit code.
    fn end(mut self) -> (Option<i32>, String) {
        self.seen.extend(self.says.iter().map(char::from));
        (self.script.wait().unwrap().code(), self.seen.replace('\r', ""))
    }
}

#[test]
fn the_key_is_carried_by_hand_where_sudo_asks_for_a_password() {
    if !hosts_can_be("a sudo that asks for a password") {
        return;
    }
    let hosts = Hosts::boot(&["server", "client"]);
    for host in ["server", "client"] {
        hosts[host].sh(&format!(
            "useradd --create-home --shell /bin/bash op
             echo op:{PASSWORD} | chpasswd
             echo 'op ALL=(ALL) ALL' >> /etc/sudoers
             cp -r /root/.ssh /home/op && chown -R op: /home/op/.ssh"
        ));
    }
    let (server, client) = (&hosts["server"], &hosts["client"]);
    server.has_redis();
    let printed = server.must(RECEIVE);
    let line = printed.lines().find(|line| line.starts_with("  ssh ")).unwrap().trim();
    let asks = "password for op: ";

    // sudo has no terminal there for its question.
    let mut terminal = Terminal::run(client, line);
    terminal.answer(asks, PASSWORD);
    let (code, said) = terminal.end();
    assert_eq!(code, Some(66), "{said}");
    assert!(said.contains("no key on standard input"), "{said}");
    assert!(said.contains("run 'sudo base64 FILE' there, and this command here without"), "{said}");
    assert!(!client.etc("redis.conf").exists());

    // The operator does what the output says.
    let (_, there) = printed.split_once("run '").unwrap();
    let mut terminal = Terminal::run(server, there.split('\'').next().unwrap());
    terminal.answer(asks, PASSWORD);
    let (code, key) = terminal.end();
    assert_eq!(code, Some(0), "{key}");
    let mut terminal = Terminal::run(client, line.split_once(" | ").unwrap().1);
    terminal.answer(asks, PASSWORD);
    terminal.answer("it is not shown): ", key.trim());
    let (code, said) = terminal.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(PROVED) && !said.contains(key.trim()), "{said}");
    assert_eq!(client.redis("ping"), "PONG");

    // A password manager prints the text that was put into it.
    client.must("spiped setup remove redis --keys");
    std::fs::write(client.root.join("home/op/manager"), key.trim()).unwrap();
    let mut terminal =
        Terminal::run(client, &format!("base64 -d /home/op/manager | sudo {SEND} --key -"));
    terminal.answer(asks, PASSWORD);
    let (code, said) = terminal.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(PROVED), "{said}");
}
