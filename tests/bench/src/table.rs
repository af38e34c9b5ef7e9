//! The figures as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::measure::{Figures, Mark};

/// The head of the table.
#[must_use]
pub fn head() -> String {
    format!(
        "{:<24} {:>11} {:>11} {:>6}  {:<12} {:<7} {:<11}",
        "name", "ours", "limit", "ratio", "unit", "mark", "spread"
    )
}

/// A row of the table, and a line more where there is something to say.
#[must_use]
pub fn line(figures: &Figures) -> String {
    let Figures { name, ours, limit, unit, mark, spread: (low, high), .. } = figures;
    let (ours, limit) = (number(*ours), number(*limit));
    let mark = mark_text(*mark);
    let ratio = figures.ratio();
    let mut text = format!(
        "{name:<24} {ours:>11} {limit:>11} {ratio:>6.2}  {unit:<12} {mark:<7} {low:.2}-{high:.2}"
    );
    if !figures.is_reached() {
        text += "  MISSED";
    }
    if let Some(note) = &figures.note {
        let _ = write!(text, "\n{:<24} {note}", "");
    }
    text
}

/// All rows, as the README of the benches shows them.
#[must_use]
pub fn markdown(rows: &[Figures]) -> String {
    let mut text = "| | ours | the limit | ratio | to reach |\n|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let Figures { name, ours, limit, unit, mark, .. } = row;
        let (ours, limit) = (number(*ours), number(*limit));
        let missed = if row.is_reached() { "" } else { " (missed)" };
        let ratio = row.ratio();
        let _ = writeln!(
            text,
            "| `{name}` | {ours} {unit} | {limit} | {ratio:.2}{missed} | {} |",
            mark_text(*mark),
        );
    }
    text
}

fn mark_text(mark: Mark) -> String {
    match mark {
        Mark::AtMost(most) => format!("<= {most}"),
        Mark::AtLeast(least) => format!(">= {least}"),
    }
}

/// All rows, as an array.
#[must_use]
pub fn json(rows: &[Figures]) -> Value {
    let row = |row: &Figures| {
        let Figures { name, ours, limit, unit, .. } = row;
        json!({"name": name, "ours": ours, "limit": limit, "ratio": row.ratio(), "unit": unit})
    };
    rows.iter().map(row).collect()
}

/// Three digits at least, and commas between thousands.
#[must_use]
pub fn number(value: f64) -> String {
    if value < 100.0 {
        return if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") };
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        Figures {
            name: "collect/readme",
            ours: 40.0,
            limit: 25.0,
            unit: "ns per event",
            mark: Mark::AtMost(1.5),
            spread: (1.4, 1.7),
            note: None,
        }
    }

    #[test]
    fn numbers_can_be_read() {
        for (value, text) in
            [(0.0, "0"), (25.04, "25.0"), (123.4, "123"), (1234.0, "1,234"), (11.2e6, "11,200,000")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_row_says_that_it_missed_its_mark() {
        let mut figures = figures();
        assert!(line(&figures).contains("  1.60  ") && line(&figures).ends_with("MISSED"));
        figures.mark = Mark::AtMost(1.6);
        assert!(line(&figures).ends_with("1.40-1.70"));
    }

    #[test]
    fn the_readme_shows_what_was_missed() {
        let text = markdown(&[figures()]);
        assert!(
            text.ends_with(
                "| `collect/readme` | 40 ns per event | 25 | 1.60 (missed) | <= 1.5 |\n"
            )
        );
    }

    #[test]
    fn json_has_the_five_keys() {
        let expected = json!([{
            "name": "collect/readme", "ours": 40.0, "limit": 25.0, "ratio": 1.6, "unit": "ns per event"
        }]);
        assert_eq!(json(&[figures()]), expected);
    }
}
