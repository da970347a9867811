//! Postfix in the lab: what it asks of Postgate, and a client to speak SMTP with it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};

use crate::lab::Lab;

/// Tables of all three programs: domains, mailboxes and aliases; access; policy.
pub(crate) const MAIN_CF: &str = "
compatibility_level = 3.6
myhostname = lab.test
mydestination =
mynetworks =
inet_interfaces = loopback-only
inet_protocols = ipv4
maillog_file =
alias_maps =
alias_database =
smtpd_tls_security_level = none
header_checks = regexp:{{/^X-Judged:/ INFO}}
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
smtpd_policy_service_timeout = 20s
virtual_mailbox_domains = socketmap:unix:private/postgate-socketmap:domains
virtual_mailbox_maps = socketmap:unix:private/postgate-socketmap:users
virtual_alias_domains =
virtual_alias_maps = socketmap:unix:private/postgate-socketmap:aliases
virtual_transport = discard:
# The policy stands before the relay check on purpose: what it says decides who may relay.
smtpd_relay_restrictions =
smtpd_recipient_restrictions = check_recipient_access tcp:127.0.0.1:9002,
    check_policy_service unix:private/postgate-policy, reject_unauth_destination
";

/// Starts these sockets, and Postfix.
#[allow(dead_code, reason = "not every test uses these tables")]
pub(crate) fn start(lab: &Lab, sockets: &str) {
    start_with(lab, sockets, MAIN_CF);
}

/// Starts these sockets, and Postfix with this main.cf; a Postfix that runs reads it again.
pub(crate) fn start_with(lab: &Lab, sockets: &str, main_cf: &str) {
    lab.write("/etc/postfix/main.cf", main_cf);
    lab.sh(&format!(
        "systemctl start {sockets}
        if systemctl -q is-active postfix; then
            postfix reload 2>&1
        else
            [ -e /etc/postfix/master.cf ] ||
                cp /usr/share/postfix/master.cf.dist /etc/postfix/master.cf
            systemctl start postfix
        fi"
    ));
    lab.until("(exec 3<>/dev/tcp/127.0.0.1/25) 2>/dev/null");
}

/// An SMTP client, carried into the lab's network by a shell there.
pub(crate) struct Smtp {
    carrier: Child,
    reader: BufReader<ChildStdout>,
}

impl Smtp {
    pub(crate) fn connect(lab: &Lab) -> Self {
        let script = "exec 3<>/dev/tcp/127.0.0.1/25; cat <&3 & cat >&3; kill $! 2>/dev/null";
        let mut carrier = lab
            .command(&["timeout", "60", "bash", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("lab.sh starts");
        let reader = BufReader::new(carrier.stdout.take().expect("a pipe"));
        let mut smtp = Self { carrier, reader };
        let greeting = smtp.reply();
        assert!(greeting.starts_with("220 "), "{greeting}");
        smtp.expect("EHLO client.test", "250-");
        smtp
    }

    fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            assert_ne!(
                self.reader.read_line(&mut reply).expect("a pipe"),
                0,
                "smtpd has gone: {reply}"
            );
            if reply.as_bytes().get(start + 3) != Some(&b'-') {
                return reply;
            }
        }
    }

    pub(crate) fn say(&mut self, line: &str) -> String {
        let mut writer = self.carrier.stdin.as_ref().expect("a pipe");
        write!(writer, "{line}\r\n").expect("a pipe");
        self.reply()
    }

    pub(crate) fn expect(&mut self, line: &str, reply: &str) -> String {
        let said = self.say(line);
        assert!(said.starts_with(reply), "{line}: {said}");
        said
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        // This closes its input, and it the connection: Postfix takes only so many of one client.
        let _ = self.carrier.wait();
    }
}
