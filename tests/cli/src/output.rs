//! What goes to the terminal, or into a pipe.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, StdoutLock, Write as _};

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

use crate::failure::Failure;
use crate::json::{self, Row};

/// How wide a table is if the terminal does not tell, in columns.
const WIDTH: u16 = 100;

/// Below the names of the columns.
const LINE: char = '─';

/// Standard output.
pub(crate) struct Output {
    out: StdoutLock<'static>,
    /// Somebody looks at it.
    pub(crate) is_terminal: bool,
    has_colour: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        let out = io::stdout().lock();
        let is_terminal = out.is_terminal();
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { out, is_terminal, has_colour: is_terminal && !unwanted }
    }

    /// One JSON value on a line.
    pub(crate) fn json(&mut self, text: &str) -> Result<(), Failure> {
        let line = json::on_one_line(text);
        if !self.is_terminal {
            writeln!(self.out, "{line}")?;
        } else if self.has_colour {
            writeln!(self.out, "{}", json::coloured(&escaped(&line)))?;
        } else {
            writeln!(self.out, "{}", escaped(&line))?;
        }
        Ok(())
    }

    /// Rows: a table for people, and a line each for programs.
    pub(crate) fn rows(&mut self, rows: &[&str]) -> Result<(), Failure> {
        if !self.is_terminal {
            return rows.iter().try_for_each(|row| self.json(row));
        }
        let parsed: Option<Vec<Row<'_>>> =
            rows.iter().map(|row| serde_json::from_str(row).ok()).collect();
        let Some(parsed) = parsed.filter(|rows| !rows.is_empty()) else {
            return rows.iter().try_for_each(|row| self.json(row));
        };
        let mut is_header = self.has_colour;
        for line in table(&parsed).lines() {
            is_header &= !line.starts_with(LINE);
            let line = line.trim_end();
            match is_header {
                true => writeln!(self.out, "\x1b[1m{line}\x1b[0m")?,
                false => writeln!(self.out, "{line}")?,
            }
        }
        Ok(())
    }
    /// Makes room for what is shown again and again.
    pub(crate) fn clear(&mut self) -> Result<(), Failure> {
        if self.is_terminal {
            write!(self.out, "\x1b[H\x1b[2J")?;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

/// Rows as a table, as wide as the terminal at most.
fn table(rows: &[Row<'_>]) -> Table {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.0) {
        if !names.contains(&&**name) {
            names.push(name);
        }
    }
    let mut table = Table::new();
    let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0);
    let line = LineStyle::none().fill(LINE).junction(LINE);
    let style = TableStyle::new().header_separator(line);
    table.load_style(style).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(names.iter().map(|name| Cell::new(escaped(name))));
    for row in rows {
        table.add_row(names.iter().map(|name| {
            let value = row.0.iter().find(|(key, _)| key == name);
            let value = value.map_or("", |(_, value)| value.get());
            let cell = Cell::new(escaped(&json::for_people(value)));
            let is_number = value.starts_with(|first: char| first == '-' || first.is_numeric());
            cell.set_alignment(if is_number { CellAlignment::Right } else { CellAlignment::Left })
        }));
    }
    table
}

/// Says something that is not data.
pub(crate) fn note(text: &str) {
    // If nobody hears it, nobody hears that either.
    drop(writeln!(io::stderr(), "stride: {}", escaped(text)));
}

/// The text without what a terminal would obey, or show in another place than where it is: control
/// characters and those that change the direction of the text are written as in JSON.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
            || ('\u{e0000}'..='\u{e007f}').contains(&c)
    };
    if !text.contains(is_bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_bad(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_as_in_json() {
        assert_eq!(
            escaped("a\u{1b}[31mb\u{202e}c\u{9b}d\u{7f}\u{e0041}"),
            concat!(r"a\u001b[31mb\u202ec\u009bd\u007f", r"\udb40\udc41")
        );
        assert!(matches!(escaped("Zürich, 東京, 🦀"), Cow::Borrowed(_)));
    }
}
