//! `--query`: one question asked as Postfix would, the answer printed as postmap(1) does.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use bytes::BytesMut;

use crate::observe::log::RequestId;
use crate::outcome::{Outcome, Reason};
use crate::protocol::facts::Program;
use crate::protocol::policy::Policy;
use crate::protocol::socketmap::Socketmap;
use crate::protocol::tcp_lookup::TcpLookup;
use crate::protocol::{Protocol, Step, say};
use crate::reply::{PolicyActions, Reply};
use crate::request::Request;
use crate::table::Table as _;
use crate::table::endpoint::Endpoint;
use crate::table::routes::Routes;

/// What is printed, and the outcome that decides the exit status.
#[derive(Debug)]
pub(crate) struct Answer {
    /// For standard output: the value, or the action whatever the outcome.
    pub(crate) text: Option<String>,
    /// What was said to Postfix.
    pub(crate) outcome: Outcome,
}

/// Asks. Fails with what is wrong with the question.
pub(crate) async fn ask(
    program: Program,
    routes: &Routes,
    name: &str,
    key: Option<&OsStr>,
) -> Result<Answer, String> {
    let table = routes.named(name.as_bytes());
    if table.is_none() && program != Program::Socketmap {
        return Err(format!(
            "there is no table {program}.{name}",
            program = program.name()
        ));
    }
    let request = match program {
        Program::TcpLookup => lookup(None, key),
        Program::Socketmap => lookup(Some(name), key),
        Program::Policy => read_attributes()?,
    };
    let outcome = match table {
        Some(table) => table.answer(&request, RequestId::next()).await,
        None => Outcome::Permanent(Reason::UnknownMap.into()),
    };
    Ok(match program {
        Program::TcpLookup => value::<TcpLookup>(outcome),
        Program::Socketmap => value::<Socketmap>(outcome),
        Program::Policy => action(outcome, table),
    })
}

fn lookup(map: Option<&str>, key: Option<&OsStr>) -> Request {
    let key = key.unwrap_or_default().as_bytes().to_vec();
    Request::Lookup {
        map: map.map(|name| name.as_bytes().to_vec().into()),
        key: key.into(),
    }
}

/// Reads what smtpd would send; the empty line at its end may be missing.
fn read_attributes() -> Result<Request, String> {
    let mut input = Vec::new();
    std::io::stdin()
        .read_to_end(&mut input)
        .map_err(|error| format!("standard input cannot be read: {error}"))?;
    if !input.ends_with(b"\n") {
        input.push(b'\n');
    }
    input.push(b'\n');
    match Policy::default().next_step(&mut BytesMut::from(input.as_slice())) {
        Step::Ask(request) => Ok(request),
        _ => Err("standard input must hold lines such as sender=user@example.com".to_owned()),
    }
}

fn value<P: Protocol>(outcome: Outcome) -> Answer {
    let (outcome, _) = say::<P>(outcome, &PolicyActions::default());
    let text = match &outcome {
        Outcome::Found(value) => Some(value.clone()),
        _ => None,
    };
    Answer { text, outcome }
}

fn action(outcome: Outcome, table: Option<&Arc<Endpoint>>) -> Answer {
    let unknown = PolicyActions::default();
    let (outcome, reply) = say::<Policy>(outcome, table.map_or(&unknown, |table| table.words()));
    let text = match reply {
        Reply::Send(bytes) => String::from_utf8_lossy(&bytes)
            .trim_start_matches("action=")
            .trim_end()
            .to_owned(),
        Reply::Close => String::new(),
    };
    Answer {
        text: (!text.is_empty()).then_some(text),
        outcome,
    }
}
