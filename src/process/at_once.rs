//! Questions that may each take a while, some of them at once.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

/// How many are asked at once.
const AT_ONCE: usize = 16;

/// Asks all, in their order, at most [`AT_ONCE`] of them at once. Where the system has no
/// thread for it, fewer are, at least one. The answers have the order of the questions.
pub(crate) fn ask_at_once<Q: Sync, A: Send>(
    questions: &[Q],
    ask: impl Fn(&Q) -> A + Sync,
) -> Vec<A> {
    let next = Mutex::new(questions.iter().enumerate());
    let ask_some = || {
        let mut answers = Vec::new();
        loop {
            let question = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((number, question)) = question else { break answers };
            answers.push((number, ask(question)));
        }
    };
    let mut answers = thread::scope(|scope| {
        let more = 1..questions.len().min(AT_ONCE);
        let threads = more.map_while(|_| thread::Builder::new().spawn_scoped(scope, ask_some).ok());
        let threads: Vec<_> = threads.collect();
        let mut answers = ask_some();
        for thread in threads {
            match thread.join() {
                Ok(more) => answers.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        answers
    });
    answers.sort_by_key(|(number, _)| *number);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn sixteen_are_asked_at_once_and_no_more() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        // Each waits for fifteen others.
        let others = Barrier::new(AT_ONCE);
        let questions: Vec<_> = (0..5 * AT_ONCE).collect();
        let answers = ask_at_once(&questions, |question| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            others.wait();
            running.fetch_sub(1, Ordering::SeqCst);
            question * 2
        });
        assert_eq!(answers, questions.iter().map(|it| it * 2).collect::<Vec<_>>());
        assert!(most.into_inner() <= AT_ONCE);
        assert!(ask_at_once(&[], |it: &u8| *it).is_empty());
    }
}
