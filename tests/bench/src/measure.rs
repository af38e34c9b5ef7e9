//! Rounds, medians and ratios.

/// What a row is about: two measurements of the same unit, ours and the limit.
pub trait Pair {
    /// One measurement of ours.
    fn ours(&mut self) -> f64;
    /// One measurement of what the same work costs without us.
    fn limit(&mut self) -> f64;
    /// What there is to say beside the figures, once they are taken.
    fn note(&self) -> Option<String> {
        None
    }
}

/// What the ratio has to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mark {
    /// A cost: ours over the limit is at most this.
    AtMost(f64),
    /// A rate: ours over the limit is at least this.
    AtLeast(f64),
}

impl Mark {
    /// Whether a ratio reaches the mark.
    #[must_use]
    pub fn is_reached(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }
}

/// A row of the table before it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Such as `collect/readme`.
    pub name: &'static str,
    /// Of both figures.
    pub unit: &'static str,
    /// What the ratio has to reach.
    pub mark: Mark,
    /// How many rounds are taken.
    pub rounds: usize,
    /// Makes ready to measure.
    pub pair: fn() -> Box<dyn Pair>,
}

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Figures {
    /// The row's name.
    pub name: &'static str,
    /// The median of our measurements.
    pub ours: f64,
    /// The median of the limit's.
    pub limit: f64,
    /// Of both.
    pub unit: &'static str,
    /// What the ratio has to reach.
    pub mark: Mark,
    /// Between what ratios the middle half of the rounds lies.
    pub spread: (f64, f64),
    /// What else there is to say.
    pub note: Option<String>,
}

impl Figures {
    /// Ours over the limit.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        ratio(self.ours, self.limit)
    }

    /// Whether the row reaches its mark.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.mark.is_reached(self.ratio())
    }
}

/// Measures a row. Both sides take turns, and take turns at being the first, so that whatever else
/// the machine does falls on both.
#[must_use]
pub fn measure(row: &Row) -> Figures {
    let mut pair = (row.pair)();
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    // The first pair warms up: connections, pages, the branch predictor.
    let warm_up = usize::from(row.rounds > 5);
    for round in 0..row.rounds + warm_up {
        let (mine, limit);
        if round % 2 == 0 {
            mine = pair.ours();
            limit = pair.limit();
        } else {
            limit = pair.limit();
            mine = pair.ours();
        }
        if round >= warm_up {
            ours.push(mine);
            limits.push(limit);
        }
    }
    let ratios = ours.iter().zip(&limits).map(|(ours, limit)| ratio(*ours, *limit));
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    let quarter = ratios.len() / 4;
    let spread = (ratios[quarter], ratios[ratios.len() - 1 - quarter]);
    Figures {
        name: row.name,
        ours: median(&mut ours),
        limit: median(&mut limits),
        unit: row.unit,
        mark: row.mark,
        spread,
        note: pair.note(),
    }
}

/// Of a limit of nothing, whatever there is is too much by that much.
fn ratio(ours: f64, limit: f64) -> f64 {
    if limit == 0.0 { ours } else { ours / limit }
}

/// The middle of some measurements.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts its rounds.
    struct Counts {
        ours: f64,
        limit: f64,
    }

    impl Pair for Counts {
        fn ours(&mut self) -> f64 {
            self.ours += 1.0;
            self.ours
        }

        fn limit(&mut self) -> f64 {
            self.limit += 2.0;
            self.limit
        }
    }

    fn row(rounds: usize) -> Row {
        Row {
            name: "counts",
            unit: "rounds",
            mark: Mark::AtMost(0.5),
            rounds,
            pair: || Box::new(Counts { ours: 0.0, limit: 0.0 }),
        }
    }

    #[test]
    fn the_median_of_each_side_is_taken_and_the_first_round_is_not_counted() {
        let figures = measure(&row(7));
        assert_eq!((figures.ours, figures.limit), (5.0, 10.0));
        assert_eq!(figures.ratio(), 0.5);
        assert_eq!(figures.spread, (0.5, 0.5));
        assert!(figures.is_reached());
    }

    #[test]
    fn slow_rows_have_no_round_to_spare() {
        assert_eq!(measure(&row(5)).ours, 3.0);
    }

    #[test]
    fn a_median_lies_in_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn of_a_limit_of_nothing_anything_is_too_much() {
        assert_eq!(ratio(0.0, 0.0), 0.0);
        assert_eq!(ratio(3.0, 0.0), 3.0);
    }

    #[test]
    fn marks_are_for_costs_or_for_rates() {
        assert!(Mark::AtMost(1.2).is_reached(1.2) && !Mark::AtMost(1.2).is_reached(1.21));
        assert!(Mark::AtLeast(0.9).is_reached(0.9) && !Mark::AtLeast(0.9).is_reached(0.89));
    }
}
