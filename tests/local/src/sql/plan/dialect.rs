//! What databases do differently in queries that can be added to.

use sqlparser::ast::{Expr, Value};

use super::Merge;
use crate::sql::compare;
#[cfg(feature = "postgres")]
use crate::sql::postgresql::plan as postgresql;
use crate::sql::times;
use crate::sql::tree::call;
use crate::sql::visit;

/// Stands for `NULL` in a key, because `NULL`s are not equal to each other: a BLOB of this byte. It is not JSON
/// in SQLite's binary form, so no event can have it.
pub(super) const NULL_KEY: &str = "FF";

/// SQLite's functions that can stand in such a query besides the aggregates: what they give depends on
/// nothing but their arguments, and is not much longer than they are.
const FUNCTIONS: [&str; 75] = [
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "ceil",
    "ceiling",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "cos",
    "cosh",
    "date",
    "date_part",
    "datetime",
    "degrees",
    "exp",
    "floor",
    "glob",
    "hex",
    "ifnull",
    "iif",
    "ilike",
    "instr",
    "json",
    "json_array",
    "json_array_length",
    "json_extract",
    "json_object",
    "json_quote",
    "json_type",
    "json_valid",
    "jsonb",
    "jsonb_extract",
    "julianday",
    "length",
    "like",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "max",
    "min",
    "mod",
    "nullif",
    "octet_length",
    "pi",
    "pow",
    "power",
    "quote",
    "radians",
    "round",
    "rtrim",
    "same_type",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "strftime",
    "substr",
    "tan",
    "tanh",
    "time",
    "trim",
    "trunc",
    "typeof",
    "unicode",
    "unixepoch",
    "upper",
];

/// Whose SQL a plan is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgresql,
}

impl Dialect {
    /// Whether windows are kept in steps.
    pub(super) fn keeps_windows(self) -> bool {
        self == Self::Sqlite
    }

    /// Whether what a function gives depends on nothing but its arguments, of one event.
    pub(super) fn is_of_one_event(self, function: &str) -> bool {
        match self {
            Self::Sqlite => FUNCTIONS.contains(&function) || times::FUNCTIONS.contains(&function),
            #[cfg(feature = "postgres")]
            Self::Postgresql => postgresql::is_of_one_event(function),
        }
    }

    pub(super) fn trims_characters(self) -> bool {
        self != Self::Sqlite
    }

    /// Whether an expression is a time of which there are many texts: SQLite has no type for times.
    pub(super) fn is_time(self, expr: &Expr) -> bool {
        self == Self::Sqlite && compare::is_time(expr)
    }

    /// Has what is compared with a literal be of its type, where types are those of values.
    pub(super) fn of_types(self, expr: &mut Expr) {
        if self == Self::Sqlite && !visit::any_expression(expr, compare::is_time) {
            compare::of_types(expr);
        }
    }

    /// The one form of values that are equal.
    pub(super) fn one_form(self, expr: Expr) -> Expr {
        match self {
            Self::Sqlite if compare::is_time(&expr) => call("time_key", [expr]),
            Self::Sqlite => expr,
            #[cfg(feature = "postgres")]
            Self::Postgresql => postgresql::one_form(expr),
        }
    }

    /// What stands for a key in the table.
    pub(super) fn key(self, expr: Expr, is_time: bool) -> Expr {
        match self {
            Self::Sqlite => {
                let null = Expr::Value(Value::HexStringLiteral(NULL_KEY.to_owned()).into());
                let key = if is_time { call("time_key", [expr]) } else { expr };
                call("ifnull", [key, null])
            }
            #[cfg(feature = "postgres")]
            Self::Postgresql => postgresql::one_form(expr),
        }
    }

    /// The value of a key, made of its column in the table, as SQL that cannot be taken for a name.
    pub(super) fn value_of_key(self, column: &str, key: &Expr) -> String {
        match self {
            Self::Sqlite => {
                let column = format!("nullif({column}, x'{NULL_KEY}')");
                // A cast says how its value is compared, too.
                match key {
                    Expr::Cast { data_type, .. } => format!("CAST({column} AS {data_type})"),
                    key if compare::is_time(key) => format!("({column}{})", times::COLLATED),
                    _ => column,
                }
            }
            #[cfg(feature = "postgres")]
            Self::Postgresql => format!("({column})"),
        }
    }

    /// The aggregate that an average is made of, and how its states become one.
    pub(super) fn average_of(self) -> (&'static str, Merge) {
        match self {
            Self::Sqlite => ("total", Merge::Add),
            #[cfg(feature = "postgres")]
            Self::Postgresql => ("sum", Merge::Sum),
        }
    }
}
