//! Many that ask at once.

use std::thread;

use futures_util::future::join_all;
use postgate::limits::{Message, Question, Units};
use postgate::store::Store;

use crate::support::{Folder, HOUR, MINUTE, asks, part, passes, service};

const MOST: u64 = 100;

const THREADS: usize = 3;

/// How many tasks of a thread ask, and how often.
const TASKS: usize = 20;
const TURNS: usize = 32;

/// Asks from many tasks on threads with a loop each, and returns how many pass of each account.
pub(crate) fn passed(store: &Store, question: fn(usize, usize) -> Question) -> [usize; 4] {
    let tasks = |thread: usize| async move {
        let asking = (0..TASKS).map(|task| async move {
            let asker = thread * TASKS + task;
            let mut passed = [0; 4];
            for turn in 0..TURNS {
                let account = (asker + turn) % 4;
                let mut question = question(asker, turn);
                for part in &mut question.parts {
                    part.account.push_str(&account.to_string());
                }
                passed[account] += usize::from(passes(store, question).await);
            }
            passed
        });
        sum(join_all(asking).await)
    };
    let run = |thread| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("a runtime");
        runtime.block_on(tasks(thread))
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || run(thread)))
            .collect();
        sum(threads
            .into_iter()
            .map(|thread| thread.join().expect("answers")))
    })
}

fn sum(all: impl IntoIterator<Item = [usize; 4]>) -> [usize; 4] {
    let add = |a: [usize; 4], b: [usize; 4]| std::array::from_fn(|at| a[at] + b[at]);
    all.into_iter().fold([0; 4], add)
}

#[tokio::test]
async fn exactly_as_many_pass_as_may() {
    let folder = Folder::new();
    for store in [service(&folder.file()).await, Store::default()] {
        let all = passed(&store, |_, _| asks("single", MOST));
        assert_eq!(all, [100; 4]);
        // A message of three recipients, all or nothing, in two limits: the smaller one decides,
        // and the larger one is not charged with what it refuses.
        let all = passed(&store, |asker, turn| {
            let mut question = asks("whole", MOST);
            question.message = Some(Message {
                id: format!("{asker}.{turn}"),
                repeat: None,
            });
            let large = [(MINUTE, None), (HOUR, Some(MOST))];
            question.parts = vec![
                part("login", "whole", &large, Units::UpTo(3)),
                part("client", "host", &[(HOUR, Some(70))], Units::UpTo(3)),
            ];
            question
        });
        assert_eq!(all, [23; 4]);
        for account in 0..4 {
            let account = format!("whole{account}");
            let usage = store.usage("policy.outgoing", Some(&account)).await;
            let used = usage
                .expect("usage")
                .iter()
                .map(|u| u.used)
                .collect::<Vec<_>>();
            assert_eq!(used, [69, 69]);
        }
        assert!(store.is_up());
    }
}
