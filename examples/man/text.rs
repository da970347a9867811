//! The parts of the manual pages that `--help` does not have.

use postgate::protocol::Facts;

/// A line of the client's configuration that uses a program, and where it stands.
pub(crate) fn used_by(program: &'static Facts) -> (&'static str, &'static str) {
    match program.name {
        "tcp-lookup" => ("main.cf", "transport_maps = tcp:127.0.0.1:9001"),
        "socketmap" => (
            "main.cf",
            "virtual_alias_maps = socketmap:unix:private/postgate-socketmap:aliases",
        ),
        "dict" => (
            "Dovecot's configuration",
            "last_login_dict = proxy:/run/postgate/dict:lastlogin",
        ),
        "sasl" => ("main.cf", "smtpd_sasl_path = private/postgate-sasl"),
        _ => (
            "main.cf",
            "check_policy_service unix:private/postgate-policy",
        ),
    }
}

/// What never happens, whatever fails.
pub(crate) fn promise(program: &'static Facts) -> &'static str {
    match program.name {
        "dict" => {
            "A failure is never answered as \"not found\", and a write is said to be done only if \
             the API says so."
        }
        "sasl" => {
            "A failure is never answered as a wrong password, and is never a login: the connection \
             is closed, which Postfix calls a temporary failure (454)."
        }
        _ => {
            "A failure is never answered as \"not found\", and never lets a mail pass, unless the \
             configuration says so."
        }
    }
}

/// The pages of the programs that use it.
pub(crate) fn see_also(program: &'static Facts) -> &'static str {
    match program.name {
        "dict" => "doveadm\\-dict(1), systemd.socket(5)",
        _ => "postconf(5), postmap(1), tcp_table(5), socketmap_table(5), systemd.socket(5)",
    }
}

pub(crate) const SIGNALS: [(&str, &str); 3] = [
    (
        "SIGTERM, SIGINT",
        "stop: accept no connection, and answer the requests in progress within drain-timeout; \
         a second one stops at once",
    ),
    (
        "SIGHUP",
        "read the configuration again; one with a problem is refused, and the previous one stays",
    ),
    ("SIGUSR1", "empty the caches"),
];

pub(crate) const ENVIRONMENT: [(&str, &str); 6] = [
    (
        "LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID",
        "the sockets from systemd, and their names",
    ),
    (
        "NOTIFY_SOCKET",
        "the socket on which the program notifies systemd of its state",
    ),
    (
        "WATCHDOG_USEC",
        "how often systemd expects a sign that the program is alive",
    ),
    (
        "JOURNAL_STREAM",
        "set by systemd: the log goes to the journal, with fields",
    ),
    (
        "CREDENTIALS_DIRECTORY",
        "the folder with the secrets of { credential = \"NAME\" }",
    ),
    (
        "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY",
        "used if the configuration has proxy = \"environment\"",
    ),
];

/// The files and the units of a program.
pub(crate) fn files(program: &'static Facts) -> &'static [(&'static str, &'static str)] {
    match program.name {
        "tcp-lookup" => &[
            ("/etc/postgate/config.toml", "the configuration"),
            (
                "postgate-tcp-lookup@PORT.socket",
                "the unit that listens on 127.0.0.1:PORT, under the name PORT",
            ),
            (
                "postgate-metrics-tcp-lookup.socket",
                "the unit that listens on 127.0.0.1:9464 for metrics and health",
            ),
        ],
        "socketmap" => &[
            ("/etc/postgate/config.toml", "the configuration"),
            (
                "postgate-socketmap.socket",
                "the unit that listens on /var/spool/postfix/private/postgate-socketmap",
            ),
            (
                "postgate-socketmap@NAME.socket",
                "the unit that listens on /var/spool/postfix/private/postgate-socketmap-NAME",
            ),
            (
                "postgate-metrics-socketmap.socket",
                "the unit that listens on 127.0.0.1:9465 for metrics and health",
            ),
        ],
        "dict" => &[
            ("/etc/postgate/config.toml", "the configuration"),
            (
                "postgate-dict.socket",
                "the unit that listens on /run/postgate/dict, for the group dovecot",
            ),
            (
                "postgate-dict@NAME.socket",
                "the unit that listens on /run/postgate/dict-NAME, for the group dovecot",
            ),
            (
                "postgate-metrics-dict.socket",
                "the unit that listens on 127.0.0.1:9467 for metrics and health",
            ),
        ],
        "policy" => &[
            ("/etc/postgate/config.toml", "the configuration"),
            (
                "postgate-policy.socket",
                "the unit that listens on /var/spool/postfix/private/postgate-policy, under the \
                 name policy",
            ),
            (
                "postgate-policy@NAME.socket",
                "the unit that listens on /var/spool/postfix/private/postgate-policy-NAME, under \
                 the name NAME",
            ),
            (
                "postgate-metrics-policy.socket",
                "the unit that listens on 127.0.0.1:9466 for metrics and health",
            ),
        ],
        _ => &[
            ("/etc/postgate/config.toml", "the configuration"),
            (
                "postgate-sasl.socket",
                "the unit that listens on /var/spool/postfix/private/postgate-sasl, under the \
                 name sasl",
            ),
            (
                "postgate-sasl@NAME.socket",
                "the unit that listens on /var/spool/postfix/private/postgate-sasl-NAME, under \
                 the name NAME",
            ),
            (
                "postgate-metrics-sasl.socket",
                "the unit that listens on 127.0.0.1:9468 for metrics and health",
            ),
        ],
    }
}
