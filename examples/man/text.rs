//! The parts of the manual pages that `--help` does not have.

use postgate::protocol::Facts;

/// A line of main.cf that uses a program.
pub(crate) fn main_cf(program: &'static Facts) -> &'static str {
    match program.name {
        "tcp-lookup" => "transport_maps = tcp:127.0.0.1:9001",
        "socketmap" => "virtual_alias_maps = socketmap:unix:private/postgate-socketmap:aliases",
        _ => "check_policy_service unix:private/postgate-policy",
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
        _ => &[
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
    }
}
