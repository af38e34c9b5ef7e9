//! A few seeds in every run of the tests; many are run by the program itself.

use stride_sim::FOUND;
use stride_sim::choice::Choices;
use stride_sim::run::{exhaust, run};

#[test]
fn seeds_find_nothing() {
    for seed in FOUND.iter().copied().chain(0..200) {
        if let Err((error, _)) = run(Choices::random(seed)) {
            panic!("seed {seed}: {error}");
        }
    }
}

#[test]
fn small_histories_are_searched_completely() {
    let count = exhaust(usize::MAX).unwrap();
    assert!(count > 20_000, "{count} histories");
}

#[test]
fn a_seed_makes_the_same_run_twice() {
    assert_eq!(run(Choices::random(11)), run(Choices::random(11)));
}
