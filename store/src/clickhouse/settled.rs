//! Answers from coarse rows alone. A generation never changes once it is in force, so what is found in generations that are named
//! stays right for ever: such answers are kept, by the text that selects their rows, and go when there are too many.

use std::sync::{Mutex, MutexGuard};

use arrow::array::RecordBatch;
use indexmap::IndexMap;

use crate::limits::{SETTLED_ANSWER_BYTES_MAX, SETTLED_BYTES_MAX};

/// Answers by the text of their source.
#[derive(Debug, Default)]
pub(super) struct Settled(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The one used last is the last.
    answers: IndexMap<String, RecordBatch>,
    bytes: usize,
}

impl Settled {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no code panics while it holds the answers")
    }

    /// The answer from a source that was asked before.
    pub(super) fn get(&self, sql: &str) -> Option<RecordBatch> {
        let answers = &mut self.inner().answers;
        let at = answers.get_index_of(sql)?;
        answers.move_index(at, answers.len() - 1);
        answers.last().map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer, unless it is large.
    pub(super) fn put(&self, sql: String, answer: &RecordBatch) {
        let bytes = size(&sql, answer);
        if bytes > SETTLED_ANSWER_BYTES_MAX {
            return;
        }
        let Inner { answers, bytes: sum } = &mut *self.inner();
        if answers.contains_key(&sql) {
            return;
        }
        *sum += bytes;
        answers.insert(sql, answer.clone());
        while *sum > SETTLED_BYTES_MAX {
            let Some((sql, answer)) = answers.shift_remove_index(0) else { return };
            *sum -= size(&sql, &answer);
        }
    }
}

/// Memory that an answer takes, bytes, roughly.
fn size(sql: &str, answer: &RecordBatch) -> usize {
    sql.len() + answer.get_array_memory_size() + 500
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, UInt64Array};

    use super::*;

    fn answer(rows: usize) -> RecordBatch {
        let column: ArrayRef = Arc::new(UInt64Array::from(vec![1; rows]));
        RecordBatch::try_from_iter([("count", column)]).expect("one column")
    }

    #[test]
    fn what_was_not_used_for_long_goes_first() {
        let settled = Settled::default();
        let rows = SETTLED_ANSWER_BYTES_MAX / 16;
        settled.put("first".to_owned(), &answer(3));
        let kept = SETTLED_BYTES_MAX / size("second", &answer(rows));
        for number in 0..kept + 3 {
            settled.put(number.to_string(), &answer(rows));
            assert_eq!(settled.get("first"), Some(answer(3)), "used again and again");
            assert!(settled.inner().bytes <= SETTLED_BYTES_MAX);
        }
        assert_eq!((settled.get("0"), settled.get("1").is_none()), (None, true));
        assert!(settled.get(&(kept + 2).to_string()).is_some());
        settled.put("large".to_owned(), &answer(SETTLED_ANSWER_BYTES_MAX));
        assert_eq!(settled.get("large"), None);
    }
}
