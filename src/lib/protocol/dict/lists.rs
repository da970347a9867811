//! Lists: the flags and paths of a request for one.

use std::iter;

use bytes::Bytes;

use super::fields::{number, unescape};
use super::hello::Hello;
use crate::outcome::Reason;
use crate::request::{Kind, List, Order, Request};

/// The flags of a list (enum dict_iterate_flags). The order of an answer is kept unless one of them
/// sorts, and a client that sets the flag for asynchronous replies (32) takes others as well.
const RECURSE: u32 = 1;
const SORT_BY_KEY: u32 = 2;
const SORT_BY_VALUE: u32 = 4;
const NO_VALUE: u32 = 8;
const EXACT_KEY: u32 = 16;

/// The most paths of a list. Each takes memory of its own, many times that of its bytes.
const MAX_PATHS: usize = 64;

/// Returns the request for a list, or the reason why there is none; nothing for a malformed one.
pub(super) fn list<'l>(
    hello: &Hello,
    mut fields: impl Iterator<Item = &'l [u8]>,
) -> Option<Result<Request, Reason>> {
    let flags: u32 = number(fields.next()?)?;
    let most: usize = number(fields.next()?)?;
    let path = unescape(fields.next()?);
    let (user, more): (Bytes, Vec<Bytes>) = match &hello.user {
        Some(user) => (user.clone(), fields.map(unescape).collect()),
        None => (hello.user(fields.next()), Vec::new()),
    };
    let list = List {
        key: "key",
        is_recursive: flags & RECURSE != 0,
        is_exact: flags & EXACT_KEY != 0,
        has_values: flags & NO_VALUE == 0,
        order: match flags {
            flags if flags & SORT_BY_KEY != 0 => Some(Order::Key),
            flags if flags & SORT_BY_VALUE != 0 => Some(Order::Value),
            _ => None,
        },
        most: Some(most).filter(|most| *most > 0),
        ..List::default()
    };
    if more.len() >= MAX_PATHS {
        return None;
    }
    let requests: Result<Vec<_>, _> = iter::once(path)
        .chain(more)
        .map(|path| path_request(hello, path, &user, &list))
        .collect();
    Some(requests.map(joined))
}

/// Makes one list of several.
fn joined(mut requests: Vec<Request>) -> Request {
    let more = requests.split_off(requests.len().min(1));
    let mut first = requests.pop().unwrap_or_default();
    if let Kind::List(list) = &mut first.kind {
        list.more = more;
    }
    first
}

/// Returns the request for one of the paths of a list.
fn path_request(hello: &Hello, path: Bytes, user: &Bytes, list: &List) -> Result<Request, Reason> {
    let mut prefix = path.clone();
    let mut key = path;
    if !list.is_exact {
        match key.strip_suffix(b"/") {
            // "shared/" is the list of all keys, whose own key is empty.
            Some(path) if path.contains(&b'/') => key = key.slice(..path.len()),
            Some(_) => {}
            None => prefix = [&prefix[..], b"/"].concat().into(),
        }
    }
    let request = hello.request(&key, user)?;
    let list = List {
        prefix,
        ..list.clone()
    };
    Ok(Request {
        kind: Kind::List(Box::new(list)),
        ..request
    })
}
