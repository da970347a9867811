//! Postfix's side of the protocols: requests as Postfix writes them, and the replies that it reads.
//! Bytes only, so that tests, benches and the demo each wait in their own way.

/// One of the programs, by the protocol that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    TcpLookup,
    Socketmap,
    Policy,
}

pub(crate) const ALL: [Binary; 3] = [Binary::TcpLookup, Binary::Socketmap, Binary::Policy];
pub(crate) const LOOKUPS: [Binary; 2] = [Binary::TcpLookup, Binary::Socketmap];

impl Binary {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TcpLookup => "tcp-lookup",
            Self::Socketmap => "socketmap",
            Self::Policy => "policy",
        }
    }
}

/// The request for a key as Postfix would send it; policy asks about a recipient.
pub(crate) fn question(binary: Binary, table: &str, key: impl AsRef<[u8]>) -> Vec<u8> {
    let key = key.as_ref();
    match binary {
        Binary::TcpLookup => [b"get ", quoted(key).as_slice(), b"\n"].concat(),
        Binary::Socketmap => netstring([table.as_bytes(), b" ", key].concat()),
        Binary::Policy => block([
            ("request", &b"smtpd_access_policy"[..]),
            ("protocol_state", b"RCPT"),
            ("recipient", key),
        ]),
    }
}

/// The policy request of Postfix 3.8 at RCPT time, with these values in place of its own.
pub(crate) fn rcpt(attributes: &[(&str, &str)]) -> Vec<u8> {
    let all = [
        ("request", "smtpd_access_policy"),
        ("protocol_state", "RCPT"),
        ("protocol_name", "ESMTP"),
        ("client_address", "192.0.2.17"),
        ("client_name", "mail.sender.example"),
        ("client_port", "41022"),
        ("reverse_client_name", "mail.sender.example"),
        ("server_address", "198.51.100.5"),
        ("server_port", "25"),
        ("helo_name", "mail.sender.example"),
        ("sender", "someone@sender.example"),
        ("recipient", "jane@example.org"),
        ("recipient_count", "0"),
        ("queue_id", ""),
        ("instance", "5c1a.65f0b1c2.8f0a1.0"),
        ("size", "18210"),
        ("etrn_domain", ""),
        ("stress", ""),
        ("sasl_method", "plain"),
        ("sasl_username", "someone"),
        ("sasl_sender", ""),
        ("ccert_subject", ""),
        ("ccert_issuer", ""),
        ("ccert_fingerprint", ""),
        ("ccert_pubkey_fingerprint", ""),
        ("encryption_protocol", "TLSv1.3"),
        ("encryption_cipher", "TLS_AES_256_GCM_SHA384"),
        ("encryption_keysize", "256"),
        ("policy_context", ""),
        ("compatibility_level", "3.6"),
        ("mail_version", "3.8.6"),
    ];
    block(all.map(|(name, value)| {
        let own = attributes.iter().find(|(own, _)| *own == name);
        (name, own.map_or(value, |(_, value)| *value))
    }))
}

/// A policy request of these attributes.
pub(crate) fn block<'a, V: AsRef<[u8]>>(
    attributes: impl IntoIterator<Item = (&'a str, V)>,
) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in attributes {
        block.extend([name.as_bytes(), b"=", value.as_ref(), b"\n"].concat());
    }
    block.push(b'\n');
    block
}

/// Wraps a payload as socketmap does.
pub(crate) fn netstring(payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    [format!("{}:", payload.len()).as_bytes(), payload, b","].concat()
}

/// Quotes as dict_tcp.c does.
fn quoted(key: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::new();
    for &byte in key {
        match byte {
            b'%' | 0..=b' ' | 0x7f.. => quoted.extend(format!("%{byte:02X}").bytes()),
            _ => quoted.push(byte),
        }
    }
    quoted
}

/// A reply with its framing, from what it says: `500 not%20found`, `NOTFOUND `, `DUNNO`.
pub(crate) fn framed(binary: Binary, said: impl AsRef<[u8]>) -> Vec<u8> {
    let said = said.as_ref();
    match binary {
        Binary::TcpLookup => [said, b"\n"].concat(),
        Binary::Socketmap => netstring(said),
        Binary::Policy => [b"action=", said, b"\n\n"].concat(),
    }
}

/// Returns the length of the first whole reply, `None` until all of it has come, and an error for
/// bytes that cannot become one.
pub(crate) fn reply_length(binary: Binary, bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let end_of = |end: &[u8]| {
        let at = bytes.windows(end.len()).position(|some| some == end);
        Ok(at.map(|at| at + end.len()))
    };
    match binary {
        Binary::TcpLookup => end_of(b"\n"),
        Binary::Policy => end_of(b"\n\n"),
        Binary::Socketmap => {
            let Some(colon) = bytes.iter().position(|&byte| byte == b':') else {
                return Ok(None);
            };
            let digits = str::from_utf8(&bytes[..colon]).map_err(|_| "no netstring")?;
            let length: usize = digits.parse().map_err(|_| "no netstring")?;
            match bytes.get(colon + 1 + length) {
                None => Ok(None),
                Some(b',') => Ok(Some(colon + 1 + length + 1)),
                Some(_) => Err("no netstring"),
            }
        }
    }
}

/// Takes the framing off one whole reply.
pub(crate) fn unframed(binary: Binary, reply: &[u8]) -> Option<&[u8]> {
    match binary {
        Binary::TcpLookup => reply.strip_suffix(b"\n"),
        Binary::Policy => reply.strip_prefix(b"action=")?.strip_suffix(b"\n\n"),
        Binary::Socketmap => {
            let colon = reply.iter().position(|&byte| byte == b':')?;
            reply[colon + 1..].strip_suffix(b",")
        }
    }
}
