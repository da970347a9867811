//! Random histories, played to an engine and to the model.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use postgate::limits::memory::Memory;
use postgate::limits::{Decision, Message, Mode, Question, Units, Usage};
use postgate::store::sqlite::file::File;
use postgate::store::sqlite::place::Access;

use crate::support::{Folder, HOUR, MINUTE, TABLE, asks, part, runs, seed};
use crate::verdicts::Model;

const STEPS: usize = 150;

const WINDOWS: [Duration; 5] = [
    MINUTE,
    Duration::from_secs(7 * 61),
    HOUR,
    Duration::from_secs(86_400),
    Duration::from_secs(31 * 86_400),
];

/// An engine whose clock is an argument.
pub(crate) trait Engine {
    fn decide(&mut self, question: &Question, now_ms: u64) -> Decision;
    fn usage(&mut self, account: &str, now_ms: u64) -> Vec<Usage>;
    fn reset(&mut self, account: &str);
}

impl Engine for Memory {
    fn decide(&mut self, question: &Question, now_ms: u64) -> Decision {
        Self::decide(self, question, now_ms)
    }

    fn usage(&mut self, account: &str, now_ms: u64) -> Vec<Usage> {
        Self::usage(self, TABLE, Some(account), now_ms)
    }

    fn reset(&mut self, account: &str) {
        Self::reset(self, TABLE, account);
    }
}

/// A file that is closed and opened again from time to time.
struct Sqlite {
    path: PathBuf,
    file: Option<File>,
    questions: usize,
}

impl Sqlite {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            questions: 0,
        }
    }

    fn file(&mut self) -> &mut File {
        self.questions += 1;
        if self.questions.is_multiple_of(50) {
            self.file = None;
        }
        let open = || File::open(&self.path, Access::Service).expect("a file");
        self.file.get_or_insert_with(open)
    }
}

impl Engine for Sqlite {
    fn decide(&mut self, question: &Question, now_ms: u64) -> Decision {
        let questions = [Arc::new(question.clone())];
        let decisions = self.file().decide(&questions, || now_ms);
        decisions.expect("an answer").remove(0)
    }

    fn usage(&mut self, account: &str, now_ms: u64) -> Vec<Usage> {
        let usage = self.file().usage(TABLE, Some(account), now_ms);
        usage.expect("an answer")
    }

    fn reset(&mut self, account: &str) {
        self.file().reset(TABLE, account).expect("an answer");
    }
}

/// A reservation is its own: nobody ends that of another, and one that nobody ends expires.
fn reserve_and_end(engine: &mut dyn Engine) {
    let mut now = 1_700_000_000_000;
    let mut ask = |mode: Mode, later: u64| {
        now += later;
        let question = Question {
            mode,
            ..asks("a", 2)
        };
        engine.decide(&question, now).refusal.is_none()
    };
    // Two of two, and the same again after a broken connection.
    assert!(ask(Mode::Reserve(1), 0));
    assert!(ask(Mode::Reserve(2), 0));
    assert!(ask(Mode::Reserve(2), 1));
    assert!(!ask(Mode::Reserve(3), 0));
    assert!(!ask(Mode::Check, 0));
    assert!(ask(Mode::Release(1), 0));
    assert!(ask(Mode::Reserve(3), 0));
    // One is refused; nothing is left of that of a program that was killed.
    assert!(ask(Mode::Keep(2), 0));
    assert!(!ask(Mode::Reserve(4), 14_999));
    assert!(ask(Mode::Reserve(4), 1));
    assert!(ask(Mode::Release(3), 0));
    assert!(!ask(Mode::Check, 0));
    assert!(ask(Mode::Release(4), 0));
    // What was reserved before the account was reset is charged to it all the same, and is not
    // taken from others.
    assert!(ask(Mode::Reserve(5), 0));
    engine.reset("a");
    let mut ask = |mode: Mode| {
        let question = Question {
            mode,
            ..asks("a", 2)
        };
        engine.decide(&question, now).refusal.is_none()
    };
    assert!(ask(Mode::Decide));
    assert!(ask(Mode::Release(5)));
    assert!(ask(Mode::Keep(6)));
    // The same again, whose first answer was lost.
    assert!(ask(Mode::Keep(6)));
    assert!(!ask(Mode::Check));
    let used: Vec<_> = engine.usage("a", now).iter().map(|u| u.used).collect();
    assert_eq!(used, [2]);
}

#[test]
fn a_reservation_is_its_own_and_expires() {
    let folder = Folder::new();
    reserve_and_end(&mut Sqlite::new(folder.file()));
    reserve_and_end(&mut Memory::default());
}

/// What asks: limits that change, accounts, messages, and a clock.
struct History {
    rng: Rng,
    now: u64,
    sets_back: bool,
    limits: Vec<Limit>,
    messages: usize,
    reservations: u64,
}

struct Limit {
    name: &'static str,
    rates: Vec<(Duration, Option<u64>)>,
    charges_refused: bool,
    is_dry_run: bool,
}

impl History {
    fn new(seed: u64, sets_back: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let now = 1_700_000_000_000 + rng.u64(..10_000_000);
        let names = ["login", "domain", "client"];
        let limits = names[..rng.usize(1..=3)].iter().map(|name| Limit {
            name,
            rates: rates(&mut rng),
            charges_refused: rng.u8(..3) == 0,
            is_dry_run: rng.u8(..6) == 0,
        });
        let limits = limits.collect();
        Self {
            limits,
            rng,
            now,
            sets_back,
            messages: 0,
            reservations: 0,
        }
    }

    fn pass_time(&mut self) {
        let rng = &mut self.rng;
        let window = rng.choice(WINDOWS).expect("a window").as_millis() as u64;
        let now = self.now;
        self.now = match rng.u8(..100) {
            0..40 => now + rng.u64(..50),
            40..65 => now + rng.u64(..window / 60),
            // The edge of a frame.
            65..80 => (now * 60 / window + rng.u64(1..62)) * window / 60 + rng.u64(..2),
            80..90 => now + rng.u64(..window),
            90..92 => now + window + rng.u64(..window),
            92..96 if self.sets_back => now - rng.u64(..window),
            96..100 if self.sets_back => now - rng.u64(..1000),
            _ => now,
        };
    }

    fn question(&mut self, model: &Model) -> Question {
        let rng = &mut self.rng;
        if rng.u8(..20) == 0 {
            let at = rng.usize(..self.limits.len());
            self.limits[at].rates = rates(rng);
        }
        for limit in &mut self.limits {
            for (_, most) in &mut limit.rates {
                if rng.u8(..30) == 0 {
                    *most = number(rng);
                }
            }
        }
        let mode = match rng.u8(..20) {
            0..3 => {
                self.reservations += 1;
                Mode::Reserve(self.reservations)
            }
            3 => Mode::Check,
            4 => Mode::Peek,
            _ => Mode::Decide,
        };
        let has_message = !matches!(mode, Mode::Reserve(_)) && rng.u8(..8) > 0;
        let message = has_message.then(|| {
            let mut id = format!("m.{}", rng.usize(..4));
            if model.is_uncertain(&id, self.now) || rng.u8(..8) == 0 {
                self.messages += 1;
                id = format!("new.{}", self.messages);
            }
            Message {
                id,
                repeat: rng.bool().then(|| rng.u128(..3)),
            }
        });
        let units = match rng.u8(..3) {
            _ if message.is_none() => Units::Add(rng.u64(1..3)),
            0 => Units::Add(1),
            1 => Units::UpTo(1),
            _ => Units::UpTo(rng.u64(1..8)),
        };
        let account = format!("account{}", rng.u8(..3));
        let parts = self.limits.iter().map(|limit| {
            let mut part = part(limit.name, &account, &limit.rates, units);
            part.charges_refused = limit.charges_refused;
            part.is_dry_run = limit.is_dry_run;
            part
        });
        Question {
            table: TABLE.into(),
            message,
            parts: parts.collect(),
            mode,
        }
    }
}

fn rates(rng: &mut Rng) -> Vec<(Duration, Option<u64>)> {
    let windows = rng.choose_multiple(WINDOWS, rng.clone().usize(1..=4));
    let rates = windows.into_iter().map(|window| (window, number(rng)));
    rates.collect()
}

fn number(rng: &mut Rng) -> Option<u64> {
    (rng.u8(..6) > 0).then(|| rng.u64(1..12))
}

/// Plays a history to engines that all have to give the same answers, and to the model.
pub(crate) fn play(seed: u64, sets_back: bool, engines: &mut [&mut dyn Engine]) {
    let mut history = History::new(seed, sets_back);
    let mut model = Model::default();
    let _seed = Said(seed);
    let mut reserved: Vec<Question> = Vec::new();
    for _ in 0..STEPS {
        history.pass_time();
        let now = history.now;
        if !reserved.is_empty() && history.rng.u8(..10) == 0 {
            let mut question = reserved.swap_remove(history.rng.usize(..reserved.len()));
            let Mode::Reserve(id) = question.mode else {
                panic!("a reservation");
            };
            question.mode = match history.rng.bool() {
                true => Mode::Keep(id),
                false => Mode::Release(id),
            };
            let decisions = engines.iter_mut().map(|e| e.decide(&question, now));
            let decisions: Vec<_> = decisions.collect();
            assert!(decisions.iter().all(|decision| *decision == decisions[0]));
            model.end(&question, id, now, &decisions[0]);
        }
        let question = history.question(&model);
        let decisions = engines.iter_mut().map(|e| e.decide(&question, now));
        let decisions: Vec<_> = decisions.collect();
        for decision in &decisions {
            assert_eq!(*decision, decisions[0], "{question:?}");
        }
        model.check(&question, now, &decisions[0]);
        if matches!(question.mode, Mode::Reserve(_)) && decisions[0].refusal.is_none() {
            reserved.push(question.clone());
        }
        let account = &*question.parts[0].account;
        if history.rng.u8(..10) == 0 {
            let shown = engines.iter_mut().map(|e| sorted(e.usage(account, now)));
            let shown: Vec<_> = shown.collect();
            for usage in &shown {
                assert_eq!(*usage, shown[0]);
            }
            model.check_usage(account, now, &shown[0]);
        }
        if history.rng.u8(..50) == 0 {
            engines.iter_mut().for_each(|e| e.reset(account));
            model.reset(account);
        }
    }
}

fn sorted(mut usage: Vec<Usage>) -> Vec<Usage> {
    usage.sort_by(|a, b| (&a.limit, a.window).cmp(&(&b.limit, b.window)));
    usage
}

/// Says the seed of a history that fails.
struct Said(u64);

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("POSTGATE_FUZZ_SEED={} fails in its first history", self.0);
        }
    }
}

#[test]
fn memory_is_never_over_and_never_late() {
    for history in 0..runs() / 20 {
        let sets_back = history % 2 == 0;
        play(seed() + history, sets_back, &mut [&mut Memory::default()]);
    }
}

#[test]
fn sqlite_is_never_over_and_never_late() {
    for history in 0..runs() / 400 {
        let folder = Folder::new();
        let mut file = Sqlite::new(folder.file());
        play(seed() + history, true, &mut [&mut file]);
    }
}

/// As long as the clock runs forward: what the file has deleted had expired.
#[test]
fn sqlite_and_memory_give_the_same_answers() {
    for history in 0..runs() / 400 {
        let folder = Folder::new();
        let mut file = Sqlite::new(folder.file());
        let mut memory = Memory::default();
        play(seed() + history, false, &mut [&mut file, &mut memory]);
    }
}
