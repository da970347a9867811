//! Mistakes of new users, and the messages that they get.
//!
//! Each file in `mistakes` is one: what was done, what is printed, and what to do about it. Here the
//! program runs with that configuration, and what it prints has to be exactly that.
//! docs/mistakes.md is made of the same files, by `cargo run --example mistakes -- docs/mistakes.md`.

#[path = "../examples/mistakes/page.rs"]
mod page;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::{env, fs, process, thread};

use page::Mistake;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};
use rustix::process::Pid;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, ServerConnection, Stream, SupportedProtocolVersion};

const REPO: &str = env!("CARGO_MANIFEST_DIR");

/// What an API does, in the words of the files.
const NO_NAMES: &str = "is behind a name server that does not answer";
const KEEPS: &str = "closes an idle connection as the next request comes, after";

const NAMESPACES: [&str; 4] = ["--user", "--map-root-user", "--mount", "--net"];

fn program(name: &str) -> &'static str {
    match name {
        "socketmap" => env!("CARGO_BIN_EXE_socketmap"),
        "policy" => env!("CARGO_BIN_EXE_policy"),
        "tcp-lookup" => env!("CARGO_BIN_EXE_tcp-lookup"),
        other => panic!("no program {other}"),
    }
}

/// An API as a file describes it: what it does, in words, and what it sends.
struct Api {
    address: SocketAddr,
    /// Its certificate, where a table can name it.
    certificate: String,
}

impl Api {
    fn start(does: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (how, sends) = does.split_once('\n').unwrap_or((does, ""));
        let sends = sends.replace('\n', "\r\n");
        let (head, body) = sends.split_once("\r\n\r\n").unwrap_or((&sends, ""));
        let answer = match how {
            "sends" => format!(
                "{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            ),
            "sends half of" | "sends half of, and closes" => {
                format!("{head}\r\nContent-Length: 1000\r\n\r\n{body}")
            }
            KEEPS => format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
            _ => sends.clone(),
        };
        let mut certificate = String::new();
        let tls = match how {
            "has a self-signed certificate" => Some(tls(2090)),
            "has an expired certificate" => Some(tls(2001)),
            "has a self-signed certificate without CA:TRUE" => Some(tls_of(&params(2090, false))),
            "wants a client certificate" => Some(tls_for_clients(&mut certificate)),
            "speaks HTTP/1.1 over TLS, and nothing else" => {
                Some(tls_of_version(&[&TLS13], &[b"http/1.1"], &mut certificate))
            }
            "speaks HTTP over TLS, and negotiates no version" => {
                Some(tls_of_version(&[&TLS13], &[], &mut certificate))
            }
            "speaks TLS 1.2" => Some(tls_of_version(&[&TLS12], &[], &mut certificate)),
            _ => None,
        };
        let is_silent = ["never answers", "sends half of"].contains(&how);
        let (closes, keeps) = (how == "closes connections", how == KEEPS);
        if how == "does not run" {
            return Self {
                address,
                certificate,
            };
        }
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (answer, tls) = (answer.clone(), tls.clone());
                match closes {
                    true => drop(read_some(connection)),
                    false => drop(thread::spawn(move || {
                        if keeps {
                            return serve_kept(connection, &answer);
                        }
                        serve(connection, &answer, tls, is_silent)
                    })),
                }
            }
        });
        Self {
            address,
            certificate,
        }
    }
}

/// Reads what has come, so that the end of the connection is no reset.
fn read_some(mut connection: TcpStream) -> Option<usize> {
    connection.read(&mut [0; 65536]).ok()
}

fn serve(
    mut connection: TcpStream,
    answer: &str,
    tls: Option<Arc<ServerConfig>>,
    is_silent: bool,
) -> Option<()> {
    let mut asked = [0; 65536];
    if let Some(tls) = tls {
        let mut session = ServerConnection::new(tls).ok()?;
        let mut stream = Stream::new(&mut session, &mut connection);
        // The client ends the handshake, or what it sends is no TLS.
        let read = stream.read(&mut asked);
        // What is to be said of a certificate that is not there.
        session.write_tls(&mut connection).ok()?;
        read.ok()?;
        let mut stream = Stream::new(&mut session, &mut connection);
        return stream.write_all(answer.as_bytes()).ok();
    }
    connection.read(&mut asked).ok().filter(|read| *read > 0)?;
    connection.write_all(answer.as_bytes()).ok()?;
    if is_silent {
        // Until the client gives up.
        while connection.read(&mut asked).ok()? > 0 {}
    }
    Some(())
}

/// Answers one request, and closes the connection once it has read the next one.
fn serve_kept(mut connection: TcpStream, answer: &str) -> Option<()> {
    read_request(&mut connection)?;
    connection.write_all(answer.as_bytes()).ok()?;
    read_request(&mut connection)
}

/// Reads a request with its body.
fn read_request(connection: &mut TcpStream) -> Option<()> {
    let mut text = Vec::new();
    loop {
        let mut some = [0; 4096];
        let read = connection.read(&mut some).ok().filter(|read| *read > 0)?;
        text.extend(&some[..read]);
        let text = String::from_utf8_lossy(&text).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.split("content-length: ").nth(1)?;
        let length = length.lines().next()?.parse().ok()?;
        if body.len() >= length {
            return Some(());
        }
    }
}

/// Returns the parameters of a certificate.
fn params(until: i32, is_authority: bool) -> CertificateParams {
    let names = ["127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("parameters");
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    // Not that of the system's authority here.
    params
        .distinguished_name
        .push(DnType::CommonName, "127.0.0.1");
    params.is_ca = match is_authority {
        true => IsCa::Ca(BasicConstraints::Unconstrained),
        false => IsCa::ExplicitNoCa,
    };
    params
}

/// With a certificate as `openssl req -x509` makes it.
fn tls(until: i32) -> Arc<ServerConfig> {
    tls_of(&params(until, true))
}

fn tls_of(params: &CertificateParams) -> Arc<ServerConfig> {
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate.der().clone()], private(&key));
    Arc::new(config.expect("a TLS configuration"))
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()))
}

/// With a certificate that a table can name, these versions, and these protocols of ALPN.
fn tls_of_version(
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
    pem: &mut String,
) -> Arc<ServerConfig> {
    let key = KeyPair::generate().expect("a key");
    let certificate = params(2090, true).self_signed(&key);
    let certificate = certificate.expect("a certificate");
    *pem = certificate.pem();
    let config = ServerConfig::builder_with_protocol_versions(versions).with_no_client_auth();
    let config = config.with_single_cert(vec![certificate.der().clone()], private(&key));
    let mut config = config.expect("a TLS configuration");
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn tls_for_clients(pem: &mut String) -> Arc<ServerConfig> {
    let key = KeyPair::generate().expect("a key");
    let certificate = params(2090, true).self_signed(&key);
    let certificate = certificate.expect("a certificate");
    *pem = certificate.pem();
    let certificate = certificate.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("an authority");
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
    let config = ServerConfig::builder().with_client_cert_verifier(verifier.expect("a verifier"));
    let config = config.with_single_cert(vec![certificate], private(&key));
    Arc::new(config.expect("a TLS configuration"))
}

/// Puts the fixed words of a file in place of what differs from run to run.
fn plain(text: &str, api: SocketAddr, other: SocketAddr, folder: &Path) -> String {
    let text = text
        .replace(&api.to_string(), "127.0.0.1:8080")
        .replace(&other.to_string(), "127.0.0.1:8081")
        // Where there is no name server, nobody can say that a name is unknown.
        .replace(
            "Temporary failure in name resolution",
            "Name or service not known",
        )
        .replace(&format!("{}/", folder.display()), "");
    let mut out = String::new();
    for line in text.lines() {
        let line = without_seconds(line);
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Replaces the seconds of "after 0.5 s", and those of a certificate's dates.
fn without_seconds(line: &str) -> String {
    let words: Vec<_> = line
        .split(' ')
        .map(|word| {
            let digits = word.trim_matches(|c: char| !c.is_ascii_digit());
            // What is in quotes is a value of the configuration.
            let is_free = digits.contains('.') && !word.contains('"');
            let is_time = is_free && digits.parse::<f64>().is_ok();
            let is_date = digits.len() >= 9 && digits.parse::<u64>().is_ok();
            match is_time || is_date {
                true => word.replace(digits, "N"),
                false => word.to_owned(),
            }
        })
        .collect();
    words.join(" ")
}

fn folder(name: &str) -> PathBuf {
    let folder = env::temp_dir().join(format!("postgate-mistakes-{}-{name}", process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Does what a file says, and returns what is printed and the exit status; nothing where this machine
/// cannot do it.
fn printed(mistake: &Mistake) -> Option<String> {
    if mistake.api == NO_NAMES && !has_namespaces() {
        return None;
    }
    let folder = folder(&page::anchor(&mistake.title));
    let api = Api::start(&mistake.api);
    // Nothing listens there.
    let other = Api::start("does not run").address;
    let placed = |text: &str| {
        text.replace("127.0.0.1:8080", &api.address.to_string())
            .replace("127.0.0.1:8081", &other.to_string())
            .replace("/etc/postgate", &folder.display().to_string())
            .replace("/run/postgate", &folder.display().to_string())
    };
    fs::write(folder.join("config.toml"), placed(&mistake.config)).expect("a configuration");
    write_files(&folder, &api);
    // `| ` feeds a line, as a shell would.
    let (input, command) = match mistake.command.split_once(" | ") {
        Some((input, command)) => (input.trim_start_matches("echo ").to_owned(), command),
        None => (String::new(), mistake.command.as_str()),
    };
    let command = placed(command);
    let mut words = command.split(' ').map(|word| word.trim_matches('\''));
    let name = words.next().expect("a program");
    let name = name.strip_prefix("postgate-").expect("one of ours");
    let mut command = match &*mistake.api {
        NO_NAMES => without_names(program(name)),
        _ => Command::new(program(name)),
    };
    let mut child = command
        .args(["--config", "config.toml"])
        .args(words)
        .current_dir(&folder)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("SSL_CERT_FILE", folder.join("roots.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a program");
    let mut stdin = child.stdin.take().expect("its input");
    let _ = writeln!(stdin, "{}", input.trim_matches('\''));
    drop(stdin);
    let (text, status) = match mistake.api.starts_with(KEEPS) {
        true => warnings(child, &folder.join("main.sock")),
        false => everything(child),
    };
    let text = plain(&text, api.address, other, &folder);
    let _ = fs::remove_dir_all(&folder);
    Some(format!("{text}exit {status}\n"))
}

/// Writes the files that a configuration can name.
fn write_files(folder: &Path, api: &Api) {
    let key = KeyPair::generate().expect("a key");
    fs::write(folder.join("api.pem"), &api.certificate).expect("a certificate");
    fs::write(folder.join("client.key"), key.serialize_pem()).expect("a key");
    let sec1 = Path::new(REPO).join("tests/configs/pem/sec1-key.pem");
    fs::copy(sec1, folder.join("sec1.key")).expect("a key");
    let root = CertificateParams::default().self_signed(&key);
    let root = root.expect("a certificate").pem();
    fs::write(folder.join("roots.pem"), root).expect("the system's authorities");
    // To an address that nobody has.
    fs::write(folder.join("resolv.conf"), "nameserver 192.0.2.1\n").expect("a name server");
    fs::write(folder.join("nsswitch.conf"), "hosts: files dns\n").expect("how to look up");
}

/// Returns all that a program prints, and its exit status.
fn everything(child: Child) -> (String, i32) {
    let end = child.wait_with_output().expect("its end");
    let text = [end.stdout, end.stderr].concat();
    let text = String::from_utf8(text).expect("text");
    (text, end.status.code().unwrap_or(-1))
}

/// Asks a service twice over one connection, stops it, and returns its warnings without time and
/// fields, and its exit status.
fn warnings(mut child: Child, at: &Path) -> (String, i32) {
    let mut log = BufReader::new(child.stderr.take().expect("its log")).lines();
    let mut lines = log.by_ref().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(" ready: ")), "not ready");
    let mut peer = UnixStream::connect(at).expect("a connection");
    for _ in 0..2 {
        let request = b"request=smtpd_access_policy\nsender=jane@example.org\n\n";
        peer.write_all(request).expect("a request");
        let mut reply = Vec::new();
        while !reply.ends_with(b"\n\n") {
            let mut one = [0];
            peer.read_exact(&mut one).expect("a reply");
            reply.push(one[0]);
        }
    }
    drop(peer);
    let pid = Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    let mut text = String::new();
    for line in log.map_while(Result::ok) {
        if let Some((_, warning)) = line.split_once(" WARN ") {
            let message = warning.split(" table=").next().unwrap_or_default();
            text.push_str(&format!("WARN {message}\n"));
        }
    }
    let status = child.wait().expect("its end");
    (text, status.code().unwrap_or(-1))
}

/// Returns a command for a program whose name server does not answer, in namespaces of its own.
fn without_names(program: &str) -> Command {
    const SETUP: &str = "ip link set lo up && ip route add 192.0.2.1 dev lo && \
        mount --bind resolv.conf /etc/resolv.conf && \
        if test -e /etc/nsswitch.conf; then mount --bind nsswitch.conf /etc/nsswitch.conf; fi && \
        exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(NAMESPACES).args(["sh", "-c", SETUP, program]);
    command
}

/// Returns whether this machine has what `without_names` needs.
fn has_namespaces() -> bool {
    let mut command = Command::new("unshare");
    command.args(NAMESPACES).args(["ip", "link"]);
    let has = command
        .output()
        .is_ok_and(|end| end.status.success() && Path::new("/etc/resolv.conf").exists());
    let is_needed = env::var("CI").as_deref() == Ok("true");
    assert!(has || !is_needed, "no namespaces, or no ip(8)");
    if !has {
        // Not eprintln!, which is not printed when a test passes.
        let why = "skipped: a name server that does not answer: no namespaces, or no ip(8)";
        let _ = writeln!(std::io::stderr(), "{why}");
    }
    has
}

#[test]
fn each_mistake_gets_exactly_its_message() {
    let mistakes = page::read(&Path::new(REPO).join("tests/mistakes"));
    assert!(mistakes.len() >= 20, "{}", mistakes.len());
    let mut wrong = String::new();
    for mistake in &mistakes {
        let Some(seen) = printed(mistake) else {
            continue;
        };
        if seen != mistake.printed {
            let (title, expected) = (&mistake.title, &mistake.printed);
            wrong += &format!("{title}:\nexpected\n{expected}seen\n{seen}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_page_is_made_of_the_files() {
    let mistakes = page::read(&Path::new(REPO).join("tests/mistakes"));
    let written = fs::read_to_string(Path::new(REPO).join("docs/mistakes.md")).expect("the page");
    assert_eq!(
        written,
        page::of(&mistakes),
        "run: cargo run --example mistakes -- docs/mistakes.md"
    );
}
