//! The chart in the main README: for each row, how much of what the machine can do is reached.

use std::fmt::Write as _;

use crate::measure::{Figures, Mark};

const WIDTH: f64 = 720.0;
const LEFT: f64 = 190.0;
/// A share of one: the limit itself.
const FULL: f64 = 380.0;
const ROW: f64 = 24.0;
const TOP: f64 = 46.0;

/// The share of the limit that a ratio is: a rate as it stands, a cost turned round.
fn share(ratio: f64, mark: Mark) -> f64 {
    match mark {
        Mark::AtLeast(_) => ratio,
        Mark::AtMost(_) => 1.0 / ratio,
    }
}

/// The rows as bars. Those whose limit is no speed (memory, wake-ups) are not among them.
#[must_use]
pub fn svg(rows: &[Figures]) -> String {
    let rows: Vec<&Figures> = rows.iter().filter(|row| is_speed(row)).collect();
    let height = TOP + ROW * rows.len() as f64 + 12.0;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="Share of the limit that each operation reaches">
<style>
text {{ fill: #24292f }} .dim {{ fill: #57606a }} .bar {{ fill: #2f81f7 }} .short {{ fill: #d29922 }}
.limit {{ stroke: #24292f }} .mark {{ stroke: #57606a; stroke-width: 2 }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e6edf3 }} .dim {{ fill: #9198a1 }} .limit {{ stroke: #e6edf3 }} .mark {{ stroke: #c9d1d9 }}
}}
</style>
<text x="8" y="18" font-weight="600">Speed, as a share of the limit</text>
<text x="8" y="34" class="dim">the limit: the same work with serde_json, deflate and a bare socket alone · tick: the mark to reach</text>
"##
    );
    for (index, row) in rows.iter().enumerate() {
        let y = TOP + ROW * index as f64;
        let reached = share(row.ratio(), row.mark);
        let (Mark::AtMost(mark) | Mark::AtLeast(mark)) = row.mark;
        let mark = LEFT + FULL * share(mark, row.mark);
        let width = (FULL * reached).min(WIDTH - LEFT - 110.0);
        let (middle, bar) = (y + ROW / 2.0 + 4.0, y + 4.0);
        let class = if row.is_reached() { "bar" } else { "short" };
        let (value, per) = (crate::table::number(row.ours), row.unit);
        let _ = write!(
            svg,
            r##"<text x="{name}" y="{middle}" text-anchor="end">{}</text>
<rect class="{class}" x="{LEFT}" y="{bar}" width="{width:.1}" height="{thick}" rx="2"/>
<path class="mark" d="M{mark:.1} {y:.0}v{ROW}"/>
<text x="{label:.1}" y="{middle}"><tspan font-weight="600">{reached:.2}</tspan><tspan class="dim" dx="6">{value} {per}</tspan></text>
"##,
            row.name,
            name = LEFT - 8.0,
            thick = ROW - 8.0,
            label = (LEFT + width).max(mark) + 6.0,
        );
    }
    let limit = LEFT + FULL;
    let bottom = height - 8.0;
    let _ = write!(svg, r##"<path class="limit" d="M{limit} {TOP}V{bottom}"/>"##);
    svg + "\n</svg>\n"
}

fn is_speed(row: &Figures) -> bool {
    !row.name.starts_with("outage/") && !row.name.starts_with("idle/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_turned_round() {
        assert_eq!(share(2.0, Mark::AtMost(1.8)), 0.5);
        assert_eq!(share(0.9, Mark::AtLeast(0.8)), 0.9);
    }

    #[test]
    fn each_row_of_speed_has_a_bar() {
        let row = |name, ours| Figures {
            name,
            ours,
            limit: 100.0,
            unit: "events/s",
            mark: Mark::AtLeast(0.8),
            spread: (0.0, 0.0),
            note: None,
        };
        let svg = svg(&[row("a", 90.0), row("b", 70.0), row("outage/memory", 1.0)]);
        assert_eq!(svg.matches("<rect class=\"bar\"").count(), 1);
        assert_eq!(svg.matches("<rect class=\"short\"").count(), 1);
        assert!(svg.ends_with("</svg>\n"));
    }
}
