//! Processes.
use std::ops::Range;
use postgres::Transaction;
use super::error::Failure;
use super::storage::Stream;
use crate::events::keys::Kinds;
use crate::subscribers::records::Records;

#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) changed: Vec<i64>,
    pub(super) skipped: u64,
}
pub(super) fn ends(_: &mut Transaction<'_>) -> Result<Vec<(i64, String, i64)>, Failure> {
    Ok(Vec::new())
}
pub(super) fn changes(_: &mut Transaction<'_>, _: i64, _: i64, _: i64) -> Result<Option<Records>, Failure> {
    Ok(None)
}
pub(super) fn added(_: &mut Transaction<'_>, _: &str, _: &Stream, _: &[(String, Kinds)], _: Range<i64>) -> Result<News, Failure> {
    Ok(News::default())
}
