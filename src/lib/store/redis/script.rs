//! The script that decides in Redis: the names of its keys, its arguments and its answers.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::Value;

use crate::limits::frames::millis;
use crate::limits::{Decision, Exceeded, Mode, Part, Question, Units, Usage};

/// The greatest number that the script can count (`limits.lua`).
const MAX: u64 = 1 << 53;

/// A script and its name in the cache of Redis.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) source: String,
    pub(super) sha1: String,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({})", self.sha1)
    }
}

impl Script {
    pub(super) fn new(source: String) -> Self {
        // What Redis names scripts by.
        let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, source.as_bytes());
        let sha1 = sha1.as_ref().iter().map(|byte| format!("{byte:02x}"));
        Self {
            sha1: sha1.collect(),
            source,
        }
    }
}

/// The keys and the argument of the script.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) keys: Vec<String>,
    pub(super) value: Vec<u8>,
}

/// The names of keys.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// Returns what the names of all keys of a table begin with. The part in braces decides the
    /// slot in a cluster, so all keys of a question are in one. A prefix has no braces.
    fn table(&self, table: &str) -> String {
        format!("{}{{{}}}:", self.prefix, without_braces(table))
    }

    fn account(&self, table: &str, limit: &str, account: &str) -> String {
        format!("{}limit:{}:{account}", self.table(table), escaped(limit))
    }

    /// Returns what the names of all keys begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn message(&self, table: &str, id: &str) -> String {
        format!("{}message:{id}", self.table(table))
    }

    /// Returns a pattern for SCAN that finds the accounts of a table, or one account.
    pub(super) fn pattern(&self, table: &str, account: Option<&str>) -> String {
        let account = account.map_or_else(|| "*".to_owned(), literal);
        format!("{}limit:*:{account}", literal(&self.table(table)))
    }

    /// Returns the limit and the account of a key that the pattern finds.
    pub(super) fn parse<'k>(&self, table: &str, key: &'k str) -> Option<(String, &'k str)> {
        let rest = key.strip_prefix(&self.table(table))?;
        let (limit, account) = rest.strip_prefix("limit:")?.split_once(':')?;
        Some((unescaped(limit), account))
    }
}

/// Escapes the braces of a name, which would begin or end the part that decides the slot.
fn without_braces(name: &str) -> String {
    let name = name.replace('%', "%25");
    name.replace('{', "%7B").replace('}', "%7D")
}

/// Escapes a name so that a colon ends it.
fn escaped(name: &str) -> String {
    name.replace('%', "%25").replace(':', "%3A")
}

fn unescaped(name: &str) -> String {
    name.replace("%3A", ":").replace("%25", "%")
}

/// Escapes a name for a pattern of SCAN.
fn literal(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// Returns the keys and the argument of a question.
pub(super) fn arguments(names: &Names, question: &Question) -> Arguments {
    let table = &*question.table;
    let message = question.message.as_ref();
    let parts = question.parts.iter();
    let accounts = parts.map(|part| names.account(table, &part.limit, &part.account));
    let messages = message.map(|message| names.message(table, &message.id));
    let repeat = message.and_then(|message| message.repeat);
    let mut packed = Packed::default();
    packed.array(4);
    packed.text(match question.mode {
        Mode::Decide => "decide",
        Mode::Check => "check",
        Mode::Peek => "peek",
        Mode::Reserve(_) => "reserve",
        Mode::Keep(_) => "keep",
        Mode::Release(_) => "release",
    });
    // As text, since the script's numbers have no 64 bits.
    packed.text(&repeat.map_or_else(String::new, |digest| digest.to_string()));
    packed.array(question.parts.len());
    for part in &question.parts {
        pack_part(part, &mut packed);
    }
    packed.number(match question.mode {
        Mode::Reserve(id) | Mode::Keep(id) | Mode::Release(id) => id,
        Mode::Decide | Mode::Check | Mode::Peek => 0,
    });
    Arguments {
        keys: accounts.chain(messages).collect(),
        value: packed.0,
    }
}

fn pack_part(part: &Part, packed: &mut Packed) {
    let (is_added, units) = match part.units {
        Units::Add(units) => (true, units),
        Units::UpTo(units) => (false, units),
    };
    packed.array(6 + 2 * part.rates.len());
    packed.text(&part.limit);
    packed.text(&part.account);
    packed.flag(is_added);
    packed.number(units.min(MAX));
    packed.flag(part.charges_refused);
    packed.flag(part.is_dry_run);
    for rate in &part.rates {
        packed.number(millis(rate.window));
        match rate.most {
            Some(most) => packed.number(most.min(MAX)),
            None => packed.minus_one(),
        }
    }
}

/// Values in MessagePack, in the forms that every version of Redis reads.
#[derive(Default)]
struct Packed(Vec<u8>);

impl Packed {
    fn array(&mut self, len: usize) {
        match u8::try_from(len) {
            Ok(len @ 0..16) => self.0.push(0x90 | len),
            _ => self.lengthy(0xdc, len),
        }
    }

    fn text(&mut self, text: &str) {
        match u8::try_from(text.len()) {
            Ok(len @ 0..32) => self.0.push(0xa0 | len),
            _ => self.lengthy(0xda, text.len()),
        }
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Writes a length of 16 bits, or of 32 after the next tag.
    fn lengthy(&mut self, tag: u8, len: usize) {
        match u16::try_from(len) {
            Ok(len) => {
                self.0.push(tag);
                self.0.extend_from_slice(&len.to_be_bytes());
            }
            Err(_) => {
                let len = u32::try_from(len).expect("a request is shorter than 4 GiB");
                self.0.push(tag + 1);
                self.0.extend_from_slice(&len.to_be_bytes());
            }
        }
    }

    fn flag(&mut self, is_set: bool) {
        self.0.push(if is_set { 0xc3 } else { 0xc2 });
    }

    fn number(&mut self, number: u64) {
        match u8::try_from(number) {
            Ok(number @ 0..128) => self.0.push(number),
            _ => {
                self.0.push(0xcf);
                self.0.extend_from_slice(&number.to_be_bytes());
            }
        }
    }

    fn minus_one(&mut self) {
        self.0.push(0xff);
    }
}

/// Returns the decision that the script has made; none if its answer is not understood.
pub(super) fn decision(answer: Value, question: &Question) -> Option<Decision> {
    let mut numbers = Numbers::of(answer)?;
    let parts = question.parts.len();
    let first = numbers.next_number()?;
    if first == -1 {
        let part = numbers.next_index(parts)?;
        let exceeded = numbers.next_exceeded(false)?;
        return numbers.end(Decision {
            parts: Vec::new(),
            refusal: part.map(|part| (part, exceeded)),
        });
    }
    let mut results = Vec::with_capacity(parts);
    for _ in 0..parts {
        results.push(match numbers.next_number()? {
            0 => Ok(()),
            _ => Err(numbers.next_exceeded(true)?),
        });
    }
    let refusal = match usize::try_from(first).ok()? {
        0 => None,
        number => Some((number - 1, (*results.get(number - 1)?).err()?)),
    };
    numbers.end(Decision {
        parts: results,
        refusal,
    })
}

/// Returns the argument that asks for the use of accounts.
pub(super) fn usage_arguments(keys: Vec<String>) -> Arguments {
    let mut packed = Packed::default();
    packed.array(1);
    packed.text("usage");
    Arguments {
        keys,
        value: packed.0,
    }
}

/// Returns the key and the argument of a question that charges nobody, and needs every right that
/// another needs.
pub(super) fn trying_arguments(names: &Names) -> Arguments {
    let mut packed = Packed::default();
    packed.array(1);
    packed.text("try");
    Arguments {
        keys: vec![format!("{}try", names.prefix)],
        value: packed.0,
    }
}

/// Returns the use of accounts that the script has found; none if its answer is not understood.
pub(super) fn usage<'a>(
    answer: Value,
    accounts: impl Iterator<Item = (String, &'a str)>,
) -> Option<Vec<Usage>> {
    let mut numbers = Numbers::of(answer)?;
    let mut found = Vec::new();
    for (limit, account) in accounts {
        for _ in 0..numbers.next_number()? {
            let window = numbers.next_duration()?;
            let used = numbers.next_units()?;
            let most = u64::try_from(numbers.next_number()?).ok();
            found.push(Usage {
                limit: limit.clone(),
                account: account.to_owned(),
                window,
                used,
                most,
                free_in: numbers.next_duration()?,
            });
        }
    }
    numbers.end(found)
}

/// The integers of an answer.
struct Numbers(std::vec::IntoIter<Value>);

impl Numbers {
    fn of(answer: Value) -> Option<Self> {
        match answer {
            Value::Array(values) => Some(Self(values.into_iter())),
            _ => None,
        }
    }

    fn next_number(&mut self) -> Option<i64> {
        match self.0.next()? {
            Value::Int(number) => Some(number),
            _ => None,
        }
    }

    fn next_units(&mut self) -> Option<u64> {
        u64::try_from(self.next_number()?).ok()
    }

    fn next_duration(&mut self) -> Option<Duration> {
        self.next_units().map(Duration::from_millis)
    }

    /// Reads the number of a part, counted from 1; 0 is none.
    fn next_index(&mut self, parts: usize) -> Option<Option<usize>> {
        let number = usize::try_from(self.next_number()?).ok()?;
        (number <= parts).then(|| number.checked_sub(1))
    }

    fn next_exceeded(&mut self, has_news: bool) -> Option<Exceeded> {
        Some(Exceeded {
            window: self.next_duration()?,
            most: self.next_units()?,
            used: self.next_units()?,
            wait: self.next_duration()?,
            is_news: has_news && self.next_number()? == 1,
        })
    }

    /// Returns a result, if the answer ends here.
    fn end<T>(mut self, result: T) -> Option<T> {
        self.0.next().is_none().then_some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of a key that decides the slot in a cluster, as Redis finds it.
    fn slot(key: &str) -> &str {
        let (_, rest) = key.split_once('{').unwrap();
        rest.split_once('}').unwrap().0
    }

    #[test]
    fn all_keys_of_a_table_have_one_slot_whatever_their_names() {
        for prefix in ["postgate:", "", "a%:"] {
            let names = Names::new(prefix);
            for table in ["policy.outgoing", "policy.a}b", "sasl.{}", "policy.%7D"] {
                let slots: Vec<_> = ["", "a@example.org", "}{", "{x}"]
                    .into_iter()
                    .flat_map(|name| {
                        let account = names.account(table, name, name);
                        [account, names.message(table, name)]
                    })
                    .map(|key| slot(&key).to_owned())
                    .collect();
                assert!(slots.iter().all(|slot| *slot == slots[0]), "{slots:?}");
                assert_eq!(slots[0], without_braces(table));
            }
        }
    }

    #[test]
    fn no_two_accounts_have_one_key_and_each_is_found_again() {
        let names = Names::new("p:");
        let odd = [
            "", "a", "a:b", "b:", ":", "%3A", "%", "limit:a", "*", "\u{e4}",
        ];
        let mut keys = std::collections::BTreeSet::new();
        for table in ["policy.a", "policy.a}:limit:", "policy.%7D"] {
            for limit in odd {
                for account in odd {
                    let key = names.account(table, limit, account);
                    assert_eq!(names.parse(table, &key), Some((limit.to_owned(), account)));
                    assert!(keys.insert(key), "{table} {limit} {account}");
                }
            }
            assert_eq!(names.parse(table, &names.message(table, "limit:a:b")), None);
        }
    }

    #[test]
    fn a_script_has_the_name_that_redis_gives_it() {
        assert_eq!(
            Script::new("return 1".to_owned()).sha1,
            "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
        );
    }
}
