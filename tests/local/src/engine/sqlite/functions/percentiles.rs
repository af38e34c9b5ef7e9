//! Medians and percentiles. What is not a number does not count.

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::{Connection, Error};

use super::failed;
use super::numbers::real;

/// How many numbers there may be: they are kept until the last has come.
const MOST: usize = 4_000_000;

pub(super) fn install(connection: &Connection) -> rusqlite::Result<()> {
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    for (name, arguments, kind) in [
        ("median", 1, Kind::Median),
        ("percentile", 2, Kind::Percent),
        ("percentile_cont", 2, Kind::Between),
        ("percentile_disc", 2, Kind::Of),
    ] {
        connection.create_aggregate_function(name, arguments, pure, kind)?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Median,
    /// Of a hundred.
    Percent,
    /// Of one, between two numbers if it falls there.
    Between,
    /// One of the numbers.
    Of,
}

/// The numbers so far, and which part of them is wanted.
#[derive(Debug)]
struct Numbers {
    all: Vec<f64>,
    fraction: Option<f64>,
}

impl Kind {
    fn fraction(self, context: &Context<'_>) -> rusqlite::Result<f64> {
        let whole = match self {
            Self::Median => return Ok(0.5),
            Self::Percent => 100.0,
            Self::Between | Self::Of => 1.0,
        };
        real(context, 1)
            .map(|fraction| fraction / whole)
            .filter(|fraction| (0.0..=1.0).contains(fraction))
            .ok_or_else(|| failed(&format!("a percentile is a number from 0 to {whole}")))
    }
}

impl Aggregate<Numbers, Option<f64>> for Kind {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Numbers> {
        Ok(Numbers { all: Vec::new(), fraction: None })
    }

    fn step(&self, context: &mut Context<'_>, numbers: &mut Numbers) -> rusqlite::Result<()> {
        let fraction = self.fraction(context)?;
        if *numbers.fraction.get_or_insert(fraction) != fraction {
            return Err(failed("a percentile is the same for all rows"));
        }
        if let Some(number) = real(context, 0).filter(|number| !number.is_nan()) {
            if numbers.all.len() == MOST {
                return Err(Error::UserFunctionError(
                    format!("a percentile is of {MOST} numbers at most").into(),
                ));
            }
            numbers.all.push(number);
        }
        Ok(())
    }

    fn finalize(
        &self,
        _: &mut Context<'_>,
        numbers: Option<Numbers>,
    ) -> rusqlite::Result<Option<f64>> {
        let Some(Numbers { mut all, fraction: Some(fraction) }) = numbers else { return Ok(None) };
        let Some(last) = all.len().checked_sub(1) else { return Ok(None) };
        let place = match self {
            // The first number up to which there is as much as is wanted.
            Self::Of => ((fraction * all.len() as f64).ceil() - 1.0).max(0.0),
            _ => fraction * last as f64,
        };
        let below = (place as usize).min(last);
        let (_, number, above) = all.select_nth_unstable_by(below, f64::total_cmp);
        let number = *number;
        let next = above.iter().copied().min_by(f64::total_cmp).unwrap_or(number);
        Ok(Some(number + (next - number) * (place - below as f64)))
    }
}
