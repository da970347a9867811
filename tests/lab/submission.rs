//! The submission service of Postfix in the lab, and a client that speaks SMTP over TLS with it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::lab::Lab;

/// What the API knows.
pub(crate) const USER: &str = "user@lab.test";
pub(crate) const PASSWORD: &str = "p w\u{20ac}";
pub(crate) const BEARER: &str = "good.t-k";

const MAIN_CF: &str = "
compatibility_level = 3.6
myhostname = lab.test
mydestination =
mynetworks =
inet_interfaces = loopback-only
inet_protocols = ipv4
maillog_file =
alias_maps =
alias_database =
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_tls_cert_file = /etc/postfix/lab.pem
smtpd_tls_key_file = /etc/postfix/lab.key
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/postgate-sasl
smtpd_sender_login_maps = socketmap:unix:private/postgate-socketmap:senders
default_transport = discard:
";

const MASTER_CF: &str = "
submission inet n - y - - smtpd
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
  -o smtpd_recipient_restrictions=reject_sender_login_mismatch,permit_sasl_authenticated,reject
";

/// A client that a person would write, for the outcomes that it can tell apart.
pub(crate) const PYTHON: &str = "
import smtplib, ssl
def connect():
    smtp = smtplib.SMTP('127.0.0.1', 587, timeout=30)
    context = ssl.create_default_context(cafile='/etc/postfix/lab.pem')
    context.check_hostname = False
    smtp.starttls(context=context)
    smtp.ehlo()
    smtp.user, smtp.password = 'user@lab.test', 'plain password'
    return smtp
smtp = connect()
print('CRAM-less PLAIN', smtp.auth('PLAIN', smtp.auth_plain)[0])
smtp = connect()
print('LOGIN', smtp.auth('LOGIN', smtp.auth_login)[0])
smtp = connect()
print('PLAIN without', smtp.auth('PLAIN', smtp.auth_plain, initial_response_ok=False)[0])
smtp = connect()
try:
    smtp.login('user@lab.test', 'wrong')
except smtplib.SMTPAuthenticationError as error:
    print('wrong', error.smtp_code)
";

/// Says that there is no Python; a failure where `CI=true`.
pub(crate) fn no_python() {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    assert_ne!(
        std::env::var("CI").as_deref(),
        Ok("true"),
        "no python3 with smtplib"
    );
    writeln!(io::stderr(), "{test}: skipped: no python3 with smtplib").expect("stderr");
}

/// The certificate of the lab's Postfix.
static CERTIFICATE: LazyLock<CertifiedKey<rcgen::KeyPair>> = LazyLock::new(|| {
    let names = vec!["lab.test".to_owned()];
    generate_simple_self_signed(names).expect("a certificate")
});

/// Starts the sockets and Postfix with its submission service.
pub(crate) fn start(lab: &Lab) {
    lab.write("/etc/postfix/main.cf", MAIN_CF);
    lab.write("/etc/postfix/lab.pem", &CERTIFICATE.cert.pem());
    lab.write(
        "/etc/postfix/lab.key",
        &CERTIFICATE.signing_key.serialize_pem(),
    );
    lab.write("/tmp/submission.cf", MASTER_CF);
    lab.sh("cd /etc/postfix
        [ -e master.cf ] || cp /usr/share/postfix/master.cf.dist master.cf
        [ -e master.cf.lab ] || cp master.cf master.cf.lab
        cat master.cf.lab /tmp/submission.cf > master.cf
        systemctl start postgate-sasl.socket postgate-socketmap.socket
        systemctl restart postfix");
    lab.until("(exec 3<>/dev/tcp/127.0.0.1/587) 2>/dev/null");
}

/// The bytes to smtpd and back, carried into the lab's network by a shell there.
struct Carrier {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Carrier {
    fn new(lab: &Lab) -> Self {
        let script = "exec 3<>/dev/tcp/127.0.0.1/587; cat <&3 & cat >&3; kill $!";
        let mut child = lab
            .command(&["timeout", "100", "bash", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("lab.sh starts");
        Self {
            to: child.stdin.take().expect("a pipe"),
            from: BufReader::new(child.stdout.take().expect("a pipe")),
            child,
        }
    }
}

impl Read for Carrier {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.from.read(bytes)
    }
}

impl Write for Carrier {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        // What it started inside ends with its connection.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An SMTP client after STARTTLS.
pub(crate) struct Client(BufReader<StreamOwned<ClientConnection, Carrier>>);

impl Client {
    pub(crate) fn connect(lab: &Lab) -> Self {
        let mut carrier = Carrier::new(lab);
        let greeting = read_reply(&mut carrier.from);
        assert!(greeting.starts_with("220 "), "{greeting}");
        for (line, expected) in [("EHLO client.test", "250-"), ("STARTTLS", "220 ")] {
            write!(carrier, "{line}\r\n").expect("a pipe");
            let reply = read_reply(&mut carrier.from);
            assert!(reply.starts_with(expected), "{line}: {reply}");
            // A password is never asked for in clear.
            assert!(!reply.contains("AUTH"), "{reply}");
        }
        let mut roots = RootCertStore::empty();
        roots.add(CERTIFICATE.cert.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("lab.test").expect("a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut client = Self(BufReader::new(StreamOwned::new(tls, carrier)));
        client.ehlo();
        client
    }

    pub(crate) fn ehlo(&mut self) -> String {
        self.expect("EHLO client.test", "250-")
    }

    pub(crate) fn reply(&mut self) -> String {
        read_reply(&mut self.0)
    }

    pub(crate) fn say(&mut self, line: &str) -> String {
        self.send(line);
        self.reply()
    }

    fn send(&mut self, line: &str) {
        let stream = self.0.get_mut();
        write!(stream, "{line}\r\n").expect("a stream");
        stream.flush().expect("a stream");
    }

    pub(crate) fn expect(&mut self, line: &str, reply: &str) -> String {
        let said = self.say(line);
        assert!(said.starts_with(reply), "{line}: {said}");
        said
    }

    /// Logs in, with the first message in the command or after a challenge.
    pub(crate) fn auth(&mut self, login: &Login, initial: bool) -> String {
        self.begin(login, initial);
        self.reply()
    }

    /// Logs in and leaves the last reply for later.
    pub(crate) fn begin(&mut self, login: &Login, initial: bool) {
        let mut messages = login.messages.iter().map(|message| base64(message));
        let mut line = format!("AUTH {}", login.mechanism);
        if initial {
            line += &format!(" {}", messages.next().expect("a message"));
        }
        for message in messages {
            self.expect(&line, "334 ");
            line = message;
        }
        self.send(&line);
    }
}

fn read_reply(stream: &mut impl BufRead) -> String {
    let mut reply = String::new();
    loop {
        let start = reply.len();
        let count = stream.read_line(&mut reply).expect("a stream");
        assert_ne!(count, 0, "smtpd has gone: {reply}");
        if reply.as_bytes().get(start + 3) != Some(&b'-') {
            return reply;
        }
    }
}

/// What a client sends for a login.
pub(crate) struct Login {
    mechanism: &'static str,
    messages: Vec<String>,
}

pub(crate) fn plain(password: &str) -> Login {
    Login {
        mechanism: "PLAIN",
        messages: vec![format!("\0{USER}\0{password}")],
    }
}

pub(crate) fn login(password: &str) -> Login {
    Login {
        mechanism: "LOGIN",
        messages: vec![USER.to_owned(), password.to_owned()],
    }
}

pub(crate) fn xoauth2(token: &str) -> Login {
    Login {
        mechanism: "XOAUTH2",
        messages: vec![format!("user={USER}\x01auth=Bearer {token}\x01\x01")],
    }
}

pub(crate) fn oauthbearer(token: &str) -> Login {
    let message =
        format!("n,a={USER},\x01host=lab.test\x01port=587\x01auth=Bearer {token}\x01\x01");
    Login {
        mechanism: "OAUTHBEARER",
        messages: vec![message],
    }
}

pub(crate) fn base64(text: &str) -> String {
    match text {
        "" => "=".to_owned(),
        text => STANDARD.encode(text),
    }
}

/// Everything by which a password could be recognised.
pub(crate) fn traces(password: &str) -> Vec<String> {
    let logins = [plain(password), login(password), xoauth2(password)];
    let messages = logins.iter().flat_map(|login| &login.messages);
    let secret = messages.filter(|message| message.contains(password));
    let mut traces = vec![password.to_owned()];
    for message in secret {
        let base64 = base64(message);
        traces.push(base64[base64.len() - 12..base64.len() - 4].to_owned());
    }
    traces
}
