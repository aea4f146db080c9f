//! Real servers that read the header, configured as the manual shows.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use socket2::{Domain, Socket, Type};

use super::field;
use crate::support::maria::{Maria, ask};
use crate::support::program::{Program, is_there};
use crate::support::redis::Redis;
use crate::support::{
    Daemon, End, Folder, PATIENCE, Server, connect, nobody, read_to_end, round_trip,
};

/// The address that clients of these tests come from.
const CLIENT: [u8; 4] = [127, 0, 0, 7];

/// A block of the manual's section about one server, with other ports.
fn manual(section: &str, block: usize, ports: &[(u16, SocketAddr)]) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/spiped.1");
    let page = fs::read_to_string(page).unwrap();
    let (_, text) = page.split_once(&format!("\n.Ss {section}\n")).unwrap();
    let text = text.split("\n.S").next().unwrap();
    let text = text.split("\n.Bd -literal -offset indent\n").nth(block + 1).unwrap();
    let mut text = text.split("\n.Ed").next().unwrap().to_owned();
    for (port, address) in ports {
        let shown = format!("127.0.0.1:{port}");
        assert!(text.contains(&shown), "{shown} in {text}");
        text = text.replace(&shown, &address.to_string());
    }
    text
}

/// A pipe to a server that reads the header, and clients that come from another address.
struct Pipe {
    receiver: Daemon,
    sender: Daemon,
}

impl Pipe {
    fn to(folder: &Folder, server: SocketAddr, option: &str) -> Self {
        let key = folder.shared_key();
        let receiver = Daemon::receiver(&key, server, &[option]);
        let sender = Daemon::sender(&key, receiver.address, &["--tell-client"]);
        Self { receiver, sender }
    }

    fn connect(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((CLIENT, 0)).into()).unwrap();
        socket.connect(&self.sender.address.into()).unwrap();
        crate::support::patient(socket.into())
    }

    /// The receiver's log line of its first connection.
    fn line(&self) -> String {
        self.receiver.log.wait_for(" id=1 ")
    }
}

/// Asks a server of HTTP; returns its whole answer.
fn get(mut client: TcpStream) -> String {
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let (answer, end) = read_to_end(&mut client);
    assert_eq!(end, End::Clean);
    String::from_utf8(answer).unwrap()
}

/// nginx with this configuration beside what it needs to run in a folder.
fn nginx(folder: &Folder, text: &str, address: SocketAddr) -> Program {
    let home = folder.path("nginx");
    fs::create_dir(&home).unwrap();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("{of}_temp_path {};", home.join(of).display()))
        .concat();
    let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    let module =
        if module.exists() { format!("load_module {};", module.display()) } else { String::new() };
    let conf = format!(
        "{module} daemon off; master_process off; pid {}; error_log stderr info; events {{}}\n{}",
        home.join("pid").display(),
        text.replace("http {", &format!("http {{ {temporary}")),
    );
    let path = home.join("nginx.conf");
    fs::write(&path, conf).unwrap();
    let home = home.to_str().unwrap();
    Program::start("nginx", &["-p", home, "-c", path.to_str().unwrap()], address)
}

#[test]
fn nginx_has_the_clients_address_in_http() {
    if !is_there("nginx", "nginx that reads the header") {
        return;
    }
    let (folder, address) = (Folder::new(), nobody());
    let server = manual("nginx", 0, &[(8080, address)]);
    let log = "log_format who '$remote_addr $remote_port $proxy_protocol_server_port';";
    let text = format!("http {{ {log} access_log /dev/stdout who;\n{server}\n}}");
    let nginx = nginx(&folder, &text, address);
    let pipe = Pipe::to(&folder, address, "--proxy-protocol");
    let client = pipe.connect();
    let from = client.local_addr().unwrap();
    let answer = get(client);
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    let port = pipe.receiver.address.port();
    nginx.log.wait_for(&format!("{} {} {port}", from.ip(), from.port()));
}

/// Old versions take no header of more than 107 bytes; later ones have its types.
#[test]
fn nginx_has_the_clients_address_in_a_stream() {
    if !is_there("nginx", "streams of nginx that read the header")
        || !is_there("/usr/lib/nginx/modules/ngx_stream_module.so", "streams of nginx")
    {
        return;
    }
    let said = Command::new("sh").args(["-c", "PATH=$PATH:/usr/sbin nginx -v 2>&1"]).output();
    let said = String::from_utf8(said.unwrap().stdout).unwrap();
    let version = said.split('/').nth(1).unwrap().split([' ', '\n']).next().unwrap();
    let version: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
    let is_old = version < vec![1, 23, 2];

    let (folder, address, target) = (Folder::new(), nobody(), Server::echo());
    let server = manual("nginx", 1, &[(6380, address), (6379, target.address)]);
    let more = if is_old {
        ""
    } else {
        " $proxy_protocol_tlv_unique_id $proxy_protocol_tlv_ssl_cn $proxy_protocol_tlv_0xe5"
    };
    let log = format!("log_format who '$proxy_protocol_addr $proxy_protocol_port{more}';");
    let text = format!("stream {{ {log} access_log /dev/stdout who;\n{server}\n}}");
    let nginx = nginx(&folder, &text, address);
    let pipe = Pipe::to(&folder, address, "--proxy-protocol-address");
    let mut client = pipe.connect();
    let from = client.local_addr().unwrap();
    round_trip(&mut client, b"through nginx");
    drop(client);
    nginx.log.wait_for(&format!("{} {}", from.ip(), from.port()));
    drop(pipe);

    let pipe = Pipe::to(&folder, address, "--proxy-protocol");
    let mut client = pipe.connect();
    if is_old {
        assert_eq!(read_to_end(&mut client), (vec![], End::Reset));
    } else {
        round_trip(&mut client, b"through nginx");
        drop(client);
        let line = pipe.line();
        let (conn, key_id) = (field(&line, "conn"), field(&line, "key_id"));
        nginx.log.wait_for(&format!(" {conn} redis {key_id}"));
    }
}

#[test]
fn haproxy_has_the_clients_address_and_the_connections_id() {
    if !is_there("haproxy", "haproxy that reads the header") {
        return;
    }
    let (folder, address, target) = (Folder::new(), nobody(), Server::echo());
    let text = manual("HAProxy", 0, &[(6380, address), (6379, target.address)]);
    let defaults = "global\n log stdout format raw local0\ndefaults\n mode tcp\n log global\n \
                    timeout connect 20s\n timeout client 20s\n timeout server 20s\n";
    let path = folder.path("haproxy.cfg");
    fs::write(&path, format!("{defaults}{text}\n")).unwrap();
    let haproxy = Program::start("haproxy", &["-f", path.to_str().unwrap()], address);
    let pipe = Pipe::to(&folder, address, "--proxy-protocol");
    let mut client = pipe.connect();
    let from = client.local_addr().unwrap();
    round_trip(&mut client, b"through haproxy");
    drop(client);
    let conn = field(&pipe.line(), "conn").to_owned();
    haproxy.log.wait_for(&format!("{from} conn={conn}"));
    // LOCAL, as where only unix sockets are known of, is taken for the receiver's own connection.
    let mut local = connect(address);
    local.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").unwrap();
    round_trip(&mut local, b"nobody");
    let own = local.local_addr().unwrap();
    drop(local);
    haproxy.log.wait_for(&format!("{own} conn=-"));
}

#[test]
fn varnish_has_the_name_of_the_key_and_the_cipher() {
    if !is_there("varnishd", "varnish that reads the header") {
        return;
    }
    let (folder, address) = (Folder::new(), nobody());
    let path = folder.path("test.vcl");
    let answer = "sub vcl_recv { return (synth(200)); }\nsub vcl_synth {\n \
        set resp.http.from = client.ip;\n set resp.http.key = req.http.Spiped-Key;\n \
        set resp.http.by = proxy.ssl_version() + \" \" + proxy.ssl_cipher();\n \
        set resp.http.is = proxy.is_ssl() + \" \" + proxy.client_has_cert_conn() + \" \" + \
        proxy.client_has_cert_sess() + \" \" + proxy.ssl_verify_result();\n return (deliver);\n}";
    let text = manual("Varnish", 0, &[]);
    fs::write(&path, format!("vcl 4.1;\n{text}\nbackend default none;\n{answer}\n")).unwrap();
    let (home, listen) = (folder.path("varnish"), format!("{address},PROXY"));
    let (home, path) = (home.to_str().unwrap(), path.to_str().unwrap());
    let options = ["-F", "-n", home, "-a", &listen, "-f", path, "-T", "none", "-j", "none"];
    let storage = ["-s", "default,1m"];
    let _varnish = Program::start("varnishd", &[&options[..], &storage].concat(), address);
    let pipe = Pipe::to(&folder, address, "--proxy-protocol");
    let mut client = pipe.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    drop(client);
    let cipher = field(&pipe.line(), "cipher").to_owned();
    for header in ["from: 127.0.0.7", "key: redis", "is: true true true 0"] {
        assert!(said.contains(&format!("\r\n{header}\r\n")), "{header} in {said}");
    }
    assert!(said.contains(&format!("\r\nby: spiped-2 {cipher}\r\n")), "{said}");
}

/// `MariaDB` speaks first, and gives each address an account of its own.
#[test]
fn mariadb_knows_its_user_by_the_clients_address() {
    if !is_there("mariadbd", "MariaDB that reads the header") || !is_there("mariadb", "MariaDB") {
        return;
    }
    let (folder, address) = (Folder::new(), nobody());
    // No names: the server would look each client up.
    let conf = manual("MariaDB", 0, &[]) + "\nskip_name_resolve";
    let server = Maria::start(&folder, &conf, address);
    server.root("CREATE USER app@'127.0.0.7' IDENTIFIED BY 'secret'");
    let pipe = Pipe::to(&folder, address, "--proxy-protocol");
    // The client of MariaDB cannot choose the address that it comes from.
    let (to, from) = (pipe.sender.address, SocketAddr::from((CLIENT, 0)));
    let relay = Server::start(move |mut client| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect(&to.into()).unwrap();
        let mut there: TcpStream = socket.into();
        let (mut back, mut here) = (there.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back, &mut here));
        let _ended = std::io::copy(&mut client, &mut there);
        let _gone = there.shutdown(std::net::Shutdown::Both);
    });
    let through = |address: SocketAddr| {
        let port = address.port().to_string();
        let how = ["-h", "127.0.0.1", "-P", &port, "-u", "app", "-psecret"];
        let done = ask(&how, "SELECT USER(); SHOW PROCESSLIST");
        let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        (done.status.success(), said)
    };
    let (is_in, said) = through(relay.address);
    assert!(is_in && said.starts_with("app@127.0.0.7\n"), "{said}");
    assert!(said.contains("\tapp\t127.0.0.7:"), "{said}");
    // From another address, and directly, nobody is that user.
    let (is_in, said) = through(pipe.sender.address);
    assert!(!is_in && said.contains("denied for user 'app'@'127.0.0.1'"), "{said}");
    assert!(!through(address).0);
    // A server that does not expect the header ends the connection.
    server.root("SET GLOBAL proxy_protocol_networks = ''");
    let (is_in, said) = through(relay.address);
    assert!(!is_in, "{said}");
}

#[test]
fn servers_that_expect_no_header_answer_as_the_manual_says() {
    let folder = Folder::new();
    if is_there("nginx", "nginx that expects no header") {
        let address = nobody();
        let text = format!("http {{ access_log off; server {{ listen {address}; }} }}");
        let _nginx = nginx(&folder, &text, address);
        let answer = get(Pipe::to(&folder, address, "--proxy-protocol").connect());
        assert!(answer.contains(" 400 Bad Request"), "{answer}");
    }
    // Redis answers nothing, until so much has come that no command is as long.
    let redis = Redis::start(&folder, "redis", &[]);
    let pipe = Pipe::to(&folder, redis.address, "--proxy-protocol");
    let mut client = pipe.connect();
    client.write_all(b"PING\r\n").unwrap();
    client.write_all(&vec![b'x'; 100_000]).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut said, mut room) = (Vec::new(), [0; 1000]);
    while let Ok(count @ 1..) = client.read(&mut room) {
        said.extend_from_slice(&room[..count]);
    }
    assert_eq!(String::from_utf8(said).unwrap(), "-ERR Protocol error: too big inline request\r\n");
}
