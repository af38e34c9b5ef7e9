//! Makes a failing run as small as it gets.

use crate::choice::Choices;
use crate::run::run;

/// The smallest decisions found that still fail, and how.
#[must_use]
pub fn shrink(error: String, taken: Vec<u32>) -> (String, Vec<u32>) {
    let (mut error, mut taken) = (error, taken);
    let mut tries = 0;
    let mut size = taken.len() / 2;
    while size > 0 && tries < 5000 {
        let mut start = 0;
        while start < taken.len() && tries < 5000 {
            let end = (start + size).min(taken.len());
            let mut without = taken.clone();
            without.drain(start..end);
            let mut plain = taken.clone();
            plain[start..end].fill(0);
            let smaller = [without, plain].into_iter().filter(|it| *it != taken).find_map(|it| {
                tries += 1;
                run(Choices::recorded(it.clone())).err().map(|(error, _)| (error, it))
            });
            match smaller {
                Some((smaller_error, smaller)) if weight(&smaller) < weight(&taken) => {
                    (error, taken) = (smaller_error, smaller);
                }
                _ => start = end,
            }
        }
        size /= 2;
    }
    while taken.last() == Some(&0) {
        taken.pop();
    }
    (error, taken)
}

fn weight(taken: &[u32]) -> (usize, usize) {
    (taken.len(), taken.iter().filter(|choice| **choice != 0).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fail_cannot_be_shrunk_away() {
        // Nothing fails: everything is removed, and the text stays.
        let (error, taken) = shrink("once".into(), vec![0, 0, 0]);
        assert_eq!((error.as_str(), taken.len()), ("once", 0));
    }
}
