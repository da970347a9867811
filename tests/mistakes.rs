//! Mistakes of new users, and the messages that they get.
//!
//! Each file in `mistakes` is one: what was done, what is printed, and what to do about it. Here the
//! program runs with that configuration, and what it prints has to be exactly that.
//! docs/mistakes.md is made of the same files, by `cargo run --example mistakes -- docs/mistakes.md`.

#[path = "../examples/mistakes/page.rs"]
mod page;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::{env, fs, process, thread};

use page::Mistake;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, Stream};

const REPO: &str = env!("CARGO_MANIFEST_DIR");

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
            "sends half of" => format!("{head}\r\nContent-Length: 1000\r\n\r\n{body}"),
            _ => sends.clone(),
        };
        let mut certificate = String::new();
        let tls = match how {
            "has a self-signed certificate" => Some(tls(2090)),
            "has an expired certificate" => Some(tls(2001)),
            "has a self-signed certificate without CA:TRUE" => Some(tls_of(&params(2090, false))),
            "wants a client certificate" => Some(tls_for_clients(&mut certificate)),
            _ => None,
        };
        let is_silent = ["never answers", "sends half of"].contains(&how);
        let closes = how == "closes connections";
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
        return read.ok().map(drop);
    }
    connection.read(&mut asked).ok().filter(|read| *read > 0)?;
    connection.write_all(answer.as_bytes()).ok()?;
    if is_silent {
        // Until the client gives up.
        while connection.read(&mut asked).ok()? > 0 {}
    }
    Some(())
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
            let is_time = digits.parse::<f64>().is_ok() && digits.contains('.');
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

/// Does what a file says, and returns what is printed and the exit status.
fn printed(mistake: &Mistake) -> String {
    let folder = folder(&page::anchor(&mistake.title));
    let api = Api::start(&mistake.api);
    // Nothing listens there.
    let other = Api::start("does not run").address;
    let config = mistake
        .config
        .replace("127.0.0.1:8080", &api.address.to_string())
        .replace("127.0.0.1:8081", &other.to_string())
        .replace("/etc/postgate", &folder.display().to_string());
    fs::write(folder.join("config.toml"), config).expect("a configuration");
    let key = KeyPair::generate().expect("a key");
    fs::write(folder.join("api.pem"), &api.certificate).expect("a certificate");
    fs::write(folder.join("client.key"), key.serialize_pem()).expect("a key");
    let sec1 = Path::new(REPO).join("tests/configs/pem/sec1-key.pem");
    fs::copy(sec1, folder.join("sec1.key")).expect("a key");
    let root = CertificateParams::default().self_signed(&key);
    let roots = folder.join("roots.pem");
    let root = root.expect("a certificate").pem();
    fs::write(&roots, root).expect("the system's authorities");
    // `| ` feeds a line, as a shell would.
    let (input, command) = match mistake.command.split_once(" | ") {
        Some((input, command)) => (input.trim_start_matches("echo ").to_owned(), command),
        None => (String::new(), mistake.command.as_str()),
    };
    let mut words = command.split(' ').map(|word| word.trim_matches('\''));
    let name = words.next().expect("a program");
    let name = name.strip_prefix("postgate-").expect("one of ours");
    let mut child = Command::new(program(name))
        .args(["--config", "config.toml"])
        .args(words)
        .current_dir(&folder)
        .env_clear()
        .env("SSL_CERT_FILE", &roots)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a program");
    let mut stdin = child.stdin.take().expect("its input");
    let _ = writeln!(stdin, "{}", input.trim_matches('\''));
    drop(stdin);
    let end = child.wait_with_output().expect("its end");
    let text = [end.stdout, end.stderr].concat();
    let text = String::from_utf8(text).expect("text");
    let text = plain(&text, api.address, other, &folder);
    let _ = fs::remove_dir_all(&folder);
    format!("{text}exit {}\n", end.status.code().unwrap_or(-1))
}

#[test]
fn each_mistake_gets_exactly_its_message() {
    let mistakes = page::read(&Path::new(REPO).join("tests/mistakes"));
    assert!(mistakes.len() >= 20, "{}", mistakes.len());
    let mut wrong = String::new();
    for mistake in &mistakes {
        let seen = printed(mistake);
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
