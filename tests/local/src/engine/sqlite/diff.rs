//! What is different between the rows that a table has and those that it should have.

use std::collections::{BTreeMap, HashMap};

use rusqlite::types::Value;

/// The rows that are there, by what they are, until those are taken out that are to stay.
#[derive(Debug, Default)]
pub(super) struct Stored {
    rows: HashMap<Vec<u8>, Vec<(i64, Vec<Value>)>>,
}

impl Stored {
    /// Adds a row with its number in the table.
    pub(super) fn put(&mut self, number: i64, row: Vec<Value>) {
        self.rows.entry(key(&row)).or_default().push((number, row));
    }

    /// Takes out one row that equals `row`, if there is one left.
    pub(super) fn take_equal(&mut self, row: &[Value]) -> bool {
        self.rows.get_mut(&key(row)).is_some_and(|equal| equal.pop().is_some())
    }

    /// What is left, to be found by the columns `by`, if there are such.
    pub(super) fn left(self, by: Option<&[usize]>) -> Left {
        let rows: BTreeMap<i64, Vec<Value>> = self.rows.into_values().flatten().collect();
        let mut numbers = HashMap::<_, Vec<i64>>::new();
        for (number, row) in &rows {
            if let Some(by) = by {
                numbers.entry(part(row, by)).or_default().push(*number);
            }
        }
        Left { rows, numbers }
    }
}

/// The rows that are to go, in the order of the table.
#[derive(Debug)]
pub(super) struct Left {
    rows: BTreeMap<i64, Vec<Value>>,
    numbers: HashMap<Vec<u8>, Vec<i64>>,
}

impl Left {
    /// Takes out a row that equals `row` in the columns `by`.
    pub(super) fn take(&mut self, row: &[Value], by: &[usize]) -> Option<(i64, Vec<Value>)> {
        let number = self.numbers.get_mut(&part(row, by))?.pop()?;
        self.rows.remove_entry(&number)
    }

    pub(super) fn rest(self) -> impl Iterator<Item = (i64, Vec<Value>)> {
        self.rows.into_iter()
    }
}

fn key(row: &[Value]) -> Vec<u8> {
    bytes(row.iter())
}

fn part(row: &[Value], by: &[usize]) -> Vec<u8> {
    bytes(by.iter().filter_map(|place| row.get(*place)))
}

/// Values as bytes that are the same only if the values are.
fn bytes<'v>(values: impl Iterator<Item = &'v Value>) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        let (kind, bytes) = match value {
            Value::Null => (0, &[][..]),
            Value::Integer(number) => (1, &number.to_be_bytes()[..]),
            Value::Real(number) => (2, &number.to_bits().to_be_bytes()[..]),
            Value::Text(text) => (3, text.as_bytes()),
            Value::Blob(blob) => (4, &blob[..]),
        };
        out.push(kind);
        out.extend_from_slice(&bytes.len().to_be_bytes());
        out.extend_from_slice(bytes);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, value: i64) -> Vec<Value> {
        vec![Value::Text(key.to_owned()), Value::Integer(value)]
    }

    #[test]
    fn equal_rows_stay_and_the_others_are_found_by_their_key() {
        let mut stored = Stored::default();
        for (number, row) in
            [row("a", 1), row("a", 1), row("b", 2), row("c", 3)].into_iter().enumerate()
        {
            stored.put(number as i64, row);
        }
        assert!(stored.take_equal(&row("a", 1)));
        assert!(!stored.take_equal(&row("b", 5)));
        let mut left = stored.left(Some(&[0]));
        assert_eq!(left.take(&row("b", 5), &[0]), Some((2, row("b", 2))));
        assert_eq!(left.take(&row("d", 5), &[0]), None);
        let rest: Vec<_> = left.rest().map(|(_, row)| row).collect();
        assert!(rest == [row("a", 1), row("c", 3)]);
    }
}
