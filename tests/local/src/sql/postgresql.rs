//! The dialect of PostgreSQL: a query over streams and processes becomes one over its tables.
//!
//! Only what is on a list of functions and types is let through, and every name of a relation is one of a stream, a
//! process or a part of the query. The columns of a stream have types, by the kinds of values that its events have had.

pub(crate) mod plan;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value as Json;
use sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, Ident, ObjectName, Query, Select, SetExpr, Value,
    ValueWithSpan,
};

use super::columns::{Outputs, unique};
use super::compare::TIMESTAMP;
use super::names::Names;
use super::parse::{self, Homes, Parsed};
use super::relations::{Catalogue, PLACE, Relation, Source};
use super::rewrite::{Runnable, before, source_number};
use super::tree::{arguments_mut, call, function_name, negative, number, take, text};
use super::visit::{self, Change};
use super::{dialect, print};
use crate::engine::EngineError;
use crate::events::keys::Kinds;

/// The functions that a query may call: what they do depends on nothing but their arguments and the time, and they
/// give nothing much longer than those.
const FUNCTIONS: [&str; 73] = [
    "abs",
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "btrim",
    "ceil",
    "ceiling",
    "char_length",
    "clock_timestamp",
    "coalesce",
    "concat",
    "concat_ws",
    "count",
    "current_date",
    "current_timestamp",
    "date_part",
    "date_trunc",
    "dense_rank",
    "exp",
    "extract",
    "first_value",
    "floor",
    "greatest",
    "json_agg",
    "json_array_length",
    "jsonb_agg",
    "jsonb_array_length",
    "jsonb_typeof",
    "lag",
    "last_value",
    "lead",
    "least",
    "left",
    "length",
    "ln",
    "log",
    "lower",
    "ltrim",
    "make_interval",
    "max",
    "md5",
    "min",
    "mod",
    "now",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "pow",
    "power",
    "random",
    "rank",
    "replace",
    "reverse",
    "right",
    "round",
    "row_number",
    "rtrim",
    "sign",
    "split_part",
    "sqrt",
    "starts_with",
    "string_agg",
    "strpos",
    "substr",
    "sum",
    "to_char",
    "trunc",
    "upper",
];

/// Those whose result changes with time, or at random.
const CLOCKS: [&str; 5] = ["clock_timestamp", "current_date", "current_timestamp", "now", "random"];

/// How long a name can be in PostgreSQL, in bytes: longer ones would be cut, and might then be the same.
const LONGEST_NAME: usize = 63;

/// Reads a query, with values in the place of its parameters.
pub(crate) fn parse(sql: &str, parameters: &[(String, Json)]) -> Result<Parsed, EngineError> {
    let mut query = parse::read(sql)?;
    let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let mut check = Check { parameters, clock_reads: 0 };
    visit::change(&mut query, &mut check)?;
    Ok(Parsed { query, clock_reads: check.clock_reads, homes: Homes::new() })
}

/// Checks that a query is right but for its parameters, which are `NULL`.
pub(crate) fn parse_without_values(sql: &str) -> Result<Parsed, EngineError> {
    let names = parameter_names(sql)?;
    let nulls: Vec<(String, Json)> = names.into_iter().map(|name| (name, Json::Null)).collect();
    parse(sql, &nulls)
}

fn parameter_names(sql: &str) -> Result<Vec<String>, EngineError> {
    let query = parse::read(sql)?;
    let mut names = Vec::new();
    visit::any_expression(&query, |expr| {
        if let Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) = expr {
            names.extend(name.strip_prefix(':').map(str::to_owned));
        }
        false
    });
    Ok(names)
}

/// Lets through what is known, and puts values in the place of parameters.
struct Check<'a> {
    parameters: BTreeMap<&'a str, &'a Json>,
    clock_reads: usize,
}

impl Change for Check<'_> {
    fn enter_query(&mut self, query: &mut Query) -> Result<(), EngineError> {
        if !query.locks.is_empty() || query.for_clause.is_some() {
            return Err(invalid("FOR is not supported: a query only reads"));
        }
        check_body(&query.body)
    }

    fn enter_select(&mut self, select: &mut Select) -> Result<(), EngineError> {
        match select.into {
            Some(_) => Err(invalid("SELECT INTO is not supported: a query only reads")),
            None => Ok(()),
        }
    }

    fn leave_expression(&mut self, expr: &mut Expr) -> Result<(), EngineError> {
        match expr {
            Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) => {
                *expr = self.value(name)?;
                Ok(())
            }
            Expr::Function(function) => self.function(function),
            Expr::Cast { data_type, .. } if !is_known(data_type) => {
                Err(EngineError::Invalid(format!("a cast to {data_type} is not supported")))
            }
            Expr::TypedString(typed) if !is_known(&typed.data_type) => {
                let data_type = &typed.data_type;
                Err(EngineError::Invalid(format!("a literal of {data_type} is not supported")))
            }
            // One event is not to fail a query, nor a process.
            Expr::BinaryOp {
                op: BinaryOperator::Divide | BinaryOperator::Modulo, right, ..
            } => {
                **right = call("nullif", [take(right), number("0")]);
                Ok(())
            }
            Expr::Collate { .. } => Err(invalid("COLLATE is not supported")),
            _ => Ok(()),
        }
    }
}

impl Check<'_> {
    fn function(&mut self, function: &mut Function) -> Result<(), EngineError> {
        let name = function_name(function);
        if !FUNCTIONS.contains(&&*name) {
            let name = &function.name;
            return Err(EngineError::Invalid(format!("there is no function {name}")));
        }
        self.clock_reads += usize::from(CLOCKS.contains(&&*name));
        // Of a key with values of several types, the numbers are added up.
        if matches!(&*name, "sum" | "avg") {
            arguments_mut(function).for_each(|value| *value = own("num", take(value)));
        }
        Ok(())
    }

    fn value(&self, placeholder: &str) -> Result<Expr, EngineError> {
        let name = placeholder.strip_prefix(':');
        let Some(value) = name.and_then(|name| self.parameters.get(name)) else {
            return Err(EngineError::Invalid(format!("there is no value for {placeholder}")));
        };
        Ok(match value {
            Json::Null => Expr::Value(Value::Null.into()),
            Json::Bool(value) => Expr::Value(Value::Boolean(*value).into()),
            Json::Number(value) => match value.to_string() {
                digits if digits.starts_with('-') => Expr::Nested(Box::new(negative(&digits[1..]))),
                digits => number(digits),
            },
            Json::String(value) => text(value.clone()),
            json => text(json.to_string()),
        })
    }
}

/// A call of a function of ours.
fn own(name: &str, argument: Expr) -> Expr {
    let mut called = call(name, [argument]);
    if let Expr::Function(function) = &mut called {
        function.name = ObjectName::from(vec![Ident::new("stride"), Ident::new(name)]);
    }
    called
}

/// What a query is made of may be other statements than a `SELECT`.
fn check_body(body: &SetExpr) -> Result<(), EngineError> {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => Ok(()),
        SetExpr::SetOperation { left, right, .. } => {
            check_body(left)?;
            check_body(right)
        }
        _ => Err(invalid("only a SELECT can be run: events come by POST /collect")),
    }
}

fn is_known(data_type: &DataType) -> bool {
    use DataType as Type;
    let others = matches!(
        data_type,
        Type::JSON | Type::JSONB | Type::Boolean | Type::Bool | Type::Interval { .. } | Type::Uuid
    );
    others || dialect::is_known(data_type)
}

/// Puts tables in the place of names.
pub(crate) fn rewrite(parsed: &Parsed, catalogue: &dyn Catalogue) -> Result<Runnable, EngineError> {
    let mut query = parsed.query.clone();
    let mut names = Names::new(&parsed.homes, catalogue);
    visit::change(&mut query, &mut names)?;
    let Names { reads, sources, homes, .. } = names;
    let columns_of = |name: &ObjectName| Some(sources.get(source_number(name)?)?.columns());
    let columns = Outputs::new(&columns_of).of_query(&query).map(unique);
    visit::change(&mut query, &mut Fold)?;
    let selects: Vec<String> = sources.iter().map(select).collect();
    Ok(Runnable { sql: before(&query, &selects)?, columns, reads, homes })
}

/// Gives each name one case, because names differ in nothing else, and a length that PostgreSQL keeps.
struct Fold;

impl Change for Fold {
    fn name(&mut self, name: &mut Ident) -> Result<(), EngineError> {
        name.value = folded(&name.value);
        Ok(())
    }
}

/// What a name is in a query of ours.
pub(crate) fn folded(name: &str) -> String {
    let mut folded = name.to_ascii_lowercase();
    // With what is put in the place of a NUL.
    if folded.len() + folded.matches(['\0', print::MARK]).count() > LONGEST_NAME {
        let mut hasher = DefaultHasher::new();
        folded.hash(&mut hasher);
        folded = folded.chars().filter(|letter| !letter.is_control()).take(10).collect();
        folded.push_str(&format!("~{:016x}", hasher.finish()));
    }
    folded
}

/// The columns that the query mentions, of all rows of a relation.
fn select(source: &Source) -> String {
    let (number, rows, keys) = match &source.relation {
        Relation::Process { select, .. } => return select.clone(),
        Relation::Stream { number, rows, keys } => (number, rows, keys),
    };
    let value = |key: &str| match key {
        // Of a plan: there the rows have no number.
        PLACE if number.is_none() && rows.is_some() => "place".to_owned(),
        // Of these the type is known before there is any event.
        TIMESTAMP if rows.is_none() => "NULL::timestamptz".to_owned(),
        TIMESTAMP => "time".to_owned(),
        _ if source.is_arrival(key) && rows.is_none() => "NULL::timestamptz".to_owned(),
        _ if source.is_arrival(key) => "at".to_owned(),
        _ if rows.is_none() || key.contains('\0') => "NULL::text".to_owned(),
        _ => {
            let kinds = keys.iter().find(|(known, _)| known == key).map(|(_, kinds)| *kinds);
            let key = print::literal(key);
            match kinds.unwrap_or(Kinds::NULL) {
                Kinds::NULL => "NULL::text".to_owned(),
                Kinds::BOOLEAN => format!("(doc ->> {key})::boolean"),
                Kinds::NUMBER => format!("trim_scale((doc ->> {key})::numeric)"),
                Kinds::TEXT => format!("(doc ->> {key})"),
                _ => format!("stride.value(doc -> {key})"),
            }
        }
    };
    let columns = source.columns.iter();
    let columns =
        columns.map(|(name, key)| format!("{} AS {}", value(key), print::name(&folded(name))));
    let mut columns = columns.collect::<Vec<_>>().join(", ");
    if columns.is_empty() {
        columns.push('1');
    }
    match rows {
        // Fenced, so that each event is parsed once and not for every column.
        Some(rows) => format!(
            "SELECT {columns} FROM (SELECT place, time, at, coalesce(doc, event)::jsonb AS doc \
             FROM stride.events WHERE {rows} OFFSET 0) AS events"
        ),
        None => format!("SELECT {columns} WHERE false"),
    }
}

/// The result of a query as rows of JSON values, one for each of `columns`.
pub(crate) fn as_json(sql: &str, columns: usize) -> String {
    let names: Vec<String> = (0..columns).map(|column| format!("c{column}")).collect();
    let values = names.iter().map(|name| format!("to_json(stride.out({name}))::text"));
    let values = values.collect::<Vec<_>>().join(", ");
    format!("SELECT {values} FROM ({sql}) AS q ({})", names.join(", "))
}

fn invalid(why: &str) -> EngineError {
    EngineError::Invalid(why.to_owned())
}
