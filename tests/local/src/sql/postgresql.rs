//! The dialect of PostgreSQL: a query over streams and processes becomes one over its tables.
//!
//! Only what is on a list of functions and types is let through, and every name of a relation is one of a stream, a
//! process or a part of the query. The columns of a stream have types, by the kinds of values that its events have had.

mod copied;
pub(crate) mod plan;
mod values;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value as Json;
use sqlparser::ast::{
    BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr, Ident, JoinConstraint,
    JoinOperator, ObjectName, OrderBy, OrderByKind, Query, Select, SetExpr, TableFactor,
    TableWithJoins, Value, ValueWithSpan,
};

use self::values::functions::CLOCKS;
pub(crate) use self::values::functions::FUNCTIONS;
use super::columns::{Outputs, name_results, unique};
use super::compare::{TIMESTAMP, first_select};
use super::groups::{named, result_only, spelled_out};
use super::names::Names;
use super::parse::{self, Homes, Parsed};
use super::relations::{Catalogue, PLACE, Relation, Source};
use super::rewrite::{Runnable, before, source_number};
use super::tree::{call, function_name, negative, number, take, text};
use super::visit::{self, Change};
use super::{dialect, print};
use crate::engine::EngineError;
use crate::events::keys::{Kinds, MOST};

/// How long a name can be in PostgreSQL, in bytes: longer ones would be cut, and might then be the same.
const LONGEST_NAME: usize = 63;

/// Reads a query, with values in the place of its parameters.
pub(crate) fn parse(sql: &str, parameters: &[(String, Json)]) -> Result<Parsed, EngineError> {
    let mut query = parse::read(sql)?;
    let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let mut check = Check { parameters, clock_reads: 0 };
    visit::change(&mut query, &mut check)?;
    dialect::check(&query)?;
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
        dialect::allow_query(query)?;
        check_body(&query.body)
    }

    fn leave_query(&mut self, query: &mut Query) -> Result<(), EngineError> {
        order(query);
        Ok(())
    }

    fn enter_select(&mut self, select: &mut Select) -> Result<(), EngineError> {
        // After what was written, and not after what it becomes.
        name_results(&mut select.projection);
        for join in select.from.iter_mut().flat_map(|table| &mut table.joins) {
            // PostgreSQL asks for a condition.
            if let JoinOperator::Join(JoinConstraint::None)
            | JoinOperator::Inner(JoinConstraint::None) = join.join_operator
            {
                join.join_operator = JoinOperator::CrossJoin(JoinConstraint::None);
            }
        }
        match select.into {
            Some(_) => Err(invalid("SELECT INTO is not supported: a query only reads")),
            None => Ok(()),
        }
    }

    fn leave_select(&mut self, select: &mut Select) -> Result<(), EngineError> {
        select.selection.iter_mut().for_each(values::truth);
        if let Some(having) = &mut select.having {
            values::truth(having);
            if let Some(named) = named(&select.projection) {
                visit::change(having, &mut SpellOut(&named))?;
            }
        }
        Ok(())
    }

    fn leave_expression(&mut self, expr: &mut Expr) -> Result<(), EngineError> {
        dialect::allow(expr)?;
        match expr {
            Expr::Value(ValueWithSpan { value, .. }) => {
                match value {
                    Value::Placeholder(name) => *expr = self.value(name)?,
                    // PostgreSQL 15 does not know them.
                    Value::Number(digits, _) => digits.retain(|digit| digit != '_'),
                    Value::HexStringLiteral(digits) => {
                        let why = format!("x'{digits}' is a BLOB, for which JSON has no type");
                        return Err(EngineError::Invalid(why));
                    }
                    _ => {}
                }
                Ok(())
            }
            Expr::Function(function) => {
                let name = function_name(function);
                if !FUNCTIONS.contains(&&*name) {
                    let name = &function.name;
                    return Err(EngineError::Invalid(format!("there is no function {name}")));
                }
                self.clock_reads += usize::from(CLOCKS.contains(&&*name));
                values::adapt(expr)
            }
            Expr::TypedString(typed)
                if !matches!(typed.data_type, DataType::Date | DataType::Timestamp(..)) =>
            {
                let data_type = &typed.data_type;
                Err(EngineError::Invalid(format!("a literal of {data_type} is not supported")))
            }
            Expr::BinaryOp { op, .. }
                if matches!(
                    op,
                    BinaryOperator::Glob
                        | BinaryOperator::PGBitwiseShiftLeft
                        | BinaryOperator::PGBitwiseShiftRight
                ) =>
            {
                Err(EngineError::Invalid(format!("the operator {op} is not supported")))
            }
            Expr::Collate { .. } => Err(invalid("COLLATE is not supported")),
            _ => values::adapt(expr),
        }
    }
}

impl Check<'_> {
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
fn own(name: &str, arguments: impl IntoIterator<Item = Expr>) -> Expr {
    let mut called = call(name, arguments);
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

/// Orders the rows of a query as SQLite does.
fn order(query: &mut Query) {
    let named = results(query);
    let Some(OrderBy { kind: OrderByKind::Expressions(by), .. }) = &mut query.order_by else {
        return;
    };
    let is_of_rows = !is_of_results(&query.body);
    for by in by {
        let expr = match &by.expr {
            Expr::Value(_) => spelled_out(&by.expr, &named),
            Expr::Identifier(name) => {
                let result = named.iter().find(|(_, it)| it.eq_ignore_ascii_case(&name.value));
                Some(result.map_or(&by.expr, |(expr, _)| expr).clone())
            }
            _ => Some(by.expr.clone()),
        };
        match expr {
            Some(expr) if is_of_rows && !is_constant(&expr) => {
                by.expr = expr;
                values::order(by);
            }
            _ => values::null_first(&mut by.options),
        }
    }
}

/// The results of a query with their names, if it says them.
fn results(query: &Query) -> Vec<(Expr, String)> {
    first_select(query).and_then(|select| named(&select.projection)).unwrap_or_default()
}

/// The result that an `ORDER BY` means by its number, its name, or as it is written.
fn result(by: &Expr, named: &[(Expr, String)]) -> Option<Ident> {
    let is_it = |(expr, name): &&(Expr, String)| match by {
        Expr::Identifier(by) => name.eq_ignore_ascii_case(&by.value),
        by => expr == by,
    };
    let result = match by {
        Expr::Value(ValueWithSpan { value: Value::Number(place, _), .. }) => {
            named.get(place.parse::<usize>().ok()?.checked_sub(1)?)
        }
        _ => named.iter().find(is_it),
    };
    let (_, name) = result?;
    // One that several results have would be none.
    let count = named.iter().filter(|(_, other)| other.eq_ignore_ascii_case(name)).count();
    (count == 1).then(|| Ident::with_quote('"', name.clone()))
}

/// Whether rows can only be ordered by what they are: they are told from one another, or come from several queries.
fn is_of_results(body: &SetExpr) -> bool {
    !matches!(body, SetExpr::Select(select) if select.distinct.is_none())
}

/// Orders such rows in a query around theirs.
struct Around;

impl Change for Around {
    fn leave_query(&mut self, query: &mut Query) -> Result<(), EngineError> {
        let named = results(query);
        let Some(OrderBy { kind: OrderByKind::Expressions(by), .. }) = &mut query.order_by else {
            return Ok(());
        };
        let names: Option<Vec<Ident>> = by.iter().map(|by| result(&by.expr, &named)).collect();
        let Some(names) = names.filter(|_| is_of_results(&query.body)) else { return Ok(()) };
        for (by, name) in by.iter_mut().zip(names) {
            by.expr = Expr::Identifier(name);
            values::order(by);
        }
        let around = parse::parse_query("SELECT * FROM (SELECT 1) AS \"results\"")?;
        let body = std::mem::replace(&mut query.body, around.body);
        if let SetExpr::Select(select) = &mut *query.body
            && let [TableWithJoins { relation: TableFactor::Derived { subquery, .. }, .. }] =
                &mut select.from[..]
        {
            subquery.body = body;
        }
        Ok(())
    }
}

/// Puts results in the place of their names.
struct SpellOut<'a>(&'a [(Expr, String)]);

impl Change for SpellOut<'_> {
    fn leave_expression(&mut self, expr: &mut Expr) -> Result<(), EngineError> {
        if let Expr::Identifier(name) = expr
            && let Some(result) = result_only(name, self.0)
        {
            *expr = Expr::Nested(Box::new(result.clone()));
        }
        Ok(())
    }
}

fn is_constant(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(_))
}

/// Puts tables in the place of names.
pub(crate) fn rewrite(parsed: &Parsed, catalogue: &dyn Catalogue) -> Result<Runnable, EngineError> {
    let mut query = parsed.query.clone();
    visit::change(&mut query, &mut Around)?;
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
    fn leave_table(&mut self, table: &mut TableFactor) -> Result<(), EngineError> {
        if let TableFactor::Table { name, args: Some(arguments), .. } = table {
            if !name.to_string().trim_matches('"').eq_ignore_ascii_case("json_each") {
                return Err(EngineError::Invalid(format!(
                    "there is no function {name} that gives rows"
                )));
            }
            *name = ObjectName::from(vec![Ident::new("stride"), Ident::new("json_each")]);
            for argument in &mut arguments.args {
                if let FunctionArg::Unnamed(FunctionArgExpr::Expr(json)) = argument {
                    *json = own("json", [take(json)]);
                }
            }
        }
        Ok(())
    }

    /// PostgreSQL may let another operator bind closer than the parser does.
    fn leave_expression(&mut self, expr: &mut Expr) -> Result<(), EngineError> {
        match expr {
            Expr::BinaryOp { left, op, right } => {
                // A long chain would be nested too deep.
                if !matches!(&**left, Expr::BinaryOp { op: other, .. } if other == op) {
                    nest(left);
                }
                nest(right);
            }
            Expr::UnaryOp { expr, .. }
            | Expr::IsNull(expr)
            | Expr::IsNotNull(expr)
            | Expr::IsTrue(expr)
            | Expr::IsNotTrue(expr)
            | Expr::IsFalse(expr)
            | Expr::IsNotFalse(expr)
            | Expr::IsUnknown(expr)
            | Expr::IsNotUnknown(expr)
            | Expr::In { expr, .. } => nest(expr),
            Expr::IsDistinctFrom(one, other)
            | Expr::IsNotDistinctFrom(one, other)
            | Expr::Like { expr: one, pattern: other, .. }
            | Expr::ILike { expr: one, pattern: other, .. } => {
                nest(one);
                nest(other);
            }
            Expr::Between { expr, low, high, .. } => {
                [expr, low, high].into_iter().for_each(|it| nest(it));
            }
            _ => {}
        }
        Ok(())
    }

    fn name(&mut self, name: &mut Ident) -> Result<(), EngineError> {
        let folded = folded(&name.value);
        // A hash in a name needs quotes.
        if folded.len() < name.value.len() {
            name.quote_style = Some('"');
        }
        name.value = folded;
        Ok(())
    }
}

fn nest(expr: &mut Expr) {
    let is_whole = matches!(
        expr,
        Expr::Value(_)
            | Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::Function(_)
            | Expr::Nested(_)
            | Expr::Cast { .. }
            | Expr::Subquery(_)
            | Expr::Interval(_)
            | Expr::Tuple(_)
    );
    if !is_whole {
        *expr = Expr::Nested(Box::new(take(expr)));
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
        _ if rows.is_none() || key.contains('\0') => "NULL::jsonb".to_owned(),
        _ => {
            let kinds = keys.iter().find(|(known, _)| known == key).map(|(_, kinds)| *kinds);
            let key = print::literal(key);
            // Past so many keys none is noted, but events may have it.
            let unknown = if keys.len() < MOST { Kinds::NULL } else { Kinds::OTHER };
            match kinds.unwrap_or(unknown) {
                Kinds::NULL => "NULL::jsonb".to_owned(),
                Kinds::BOOLEAN => format!("(doc ->> {key})::boolean"),
                Kinds::NUMBER => format!("trim_scale((doc ->> {key})::numeric)"),
                Kinds::TEXT => format!("(doc ->> {key}) COLLATE \"C\""),
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
