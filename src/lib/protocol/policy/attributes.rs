//! The names of policy attributes.

/// The attributes that Postfix sends as of 3.12 (smtpd_check.c). A placeholder may name each.
pub const ATTRIBUTES: [&str; 32] = [
    "request",
    "protocol_state",
    "protocol_name",
    "client_address",
    "client_name",
    "client_port",
    "reverse_client_name",
    "server_address",
    "server_port",
    "helo_name",
    "sender",
    "recipient",
    "recipient_count",
    "queue_id",
    "instance",
    "size",
    "etrn_domain",
    "stress",
    "sasl_method",
    "sasl_username",
    "sasl_sender",
    "ccert_subject",
    "ccert_issuer",
    "ccert_fingerprint",
    "ccert_pubkey_fingerprint",
    "encryption_protocol",
    "encryption_cipher",
    "encryption_keysize",
    "tls_sni",
    "policy_context",
    "compatibility_level",
    "mail_version",
];

/// The attributes that are IP addresses.
pub const ADDRESSES: [&str; 2] = ["client_address", "server_address"];
