//! From the text of somebody's query to what the database runs. Nothing in here knows its driver.

pub(crate) mod columns;
mod compare;
mod dialect;
pub(crate) mod groups;
mod names;
mod parse;
pub(crate) mod places;
pub(crate) mod plan;
#[cfg(feature = "postgres")]
pub(crate) mod postgresql;
pub(crate) mod print;
pub(crate) mod relations;
pub(crate) mod rewrite;
pub(crate) mod times;
mod translate;
pub(crate) mod tree;
pub(crate) mod visit;
pub(crate) mod windows;

pub(crate) use self::parse::{Homes, Parsed, STACK, parse};
