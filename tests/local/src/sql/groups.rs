//! What a query groups by, and what it aggregates.

use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArguments, GroupByExpr, Ident, SelectItem, SetExpr,
    Value,
};

use super::columns::name_results;
use super::parse::Parsed;
use super::tree::function_name;
use super::visit::{self, Change};
use crate::engine::EngineError;

/// The columns by which a row of a result is the same row after a change: those that are grouped by. An
/// aggregate of everything has one row, and so needs none. `None`: rows are only what is in them.
pub(crate) fn same_row_by(parsed: &Parsed) -> Option<Vec<usize>> {
    let SetExpr::Select(select) = &*parsed.query.body else { return None };
    let named = named(&select.projection)?;
    let GroupByExpr::Expressions(group_by, _) = &select.group_by else { return None };
    if group_by.is_empty() {
        let aggregates = named.iter().any(|(expr, _)| {
            visit::any_expression(
                expr,
                |expr| matches!(expr, Expr::Function(function) if is_aggregate(function)),
            )
        });
        return aggregates.then(Vec::new);
    }
    let columns = group_by.iter().map(|key| {
        let key = spelled_out(key, &named)?;
        named.iter().position(|(expr, _)| same(expr, &key))
    });
    columns.collect()
}

/// The results of a query, each with its name; `None` if there is a `*` among them.
pub(crate) fn named(projection: &[SelectItem]) -> Option<Vec<(Expr, String)>> {
    let mut projection = projection.to_vec();
    name_results(&mut projection);
    let named = projection.into_iter().map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } => Some((expr, alias.value)),
        _ => None,
    });
    named.collect()
}

/// What a `GROUP BY` groups by, which it may say by the number or the name of a result.
pub(crate) fn spelled_out(expr: &Expr, named: &[(Expr, String)]) -> Option<Expr> {
    Some(match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(place, _) => {
                let place = place.parse::<usize>().ok()?.checked_sub(1)?;
                named.get(place)?.0.clone()
            }
            _ => return None,
        },
        Expr::Identifier(name) => result_only(name, named).unwrap_or(expr).clone(),
        _ => expr.clone(),
    })
}

/// What a name that can only mean a result stands for: no result is made of a column of that name.
pub(crate) fn result_only<'a>(name: &Ident, named: &'a [(Expr, String)]) -> Option<&'a Expr> {
    let (expr, _) = named.iter().find(|(_, result)| result.eq_ignore_ascii_case(&name.value))?;
    let mentioned = named.iter().any(|(expr, _)| mentions(expr, &name.value));
    (!mentioned).then_some(expr)
}

pub(crate) fn mentions(expr: &Expr, name: &str) -> bool {
    visit::any_expression(
        expr,
        |expr| matches!(expr, Expr::Identifier(column) if column.value.eq_ignore_ascii_case(name)),
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Count,
    Sum,
    Total,
    Min,
    Max,
    Average,
    CountDistinct,
}

pub(crate) fn is_aggregate(function: &Function) -> bool {
    const OTHERS: [&str; 13] = [
        "array_agg",
        "bool_and",
        "bool_or",
        "group_concat",
        "json_agg",
        "jsonb_agg",
        "string_agg",
        "json_group_array",
        "json_group_object",
        "median",
        "percentile",
        "percentile_cont",
        "percentile_disc",
    ];
    let name = function_name(function);
    function.over.is_none()
        && (matches!(&*name, "count" | "sum" | "total" | "avg")
            || OTHERS.contains(&&*name)
            || aggregate(function).is_some())
}

/// Which aggregate a function is, if it is one whose parts can be combined.
pub(crate) fn aggregate(function: &Function) -> Option<Aggregate> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let plain =
        function.over.is_none() && function.within_group.is_empty() && list.clauses.is_empty();
    if !plain {
        return None;
    }
    let is_distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
    match (function_name(function).as_str(), list.args.len()) {
        ("count", 1) if is_distinct => Some(Aggregate::CountDistinct),
        // The rest of them are other values then, but for the least and the greatest.
        ("count" | "sum" | "total" | "avg", _) if is_distinct => None,
        ("count", 0 | 1) => Some(Aggregate::Count),
        ("sum", 1) => Some(Aggregate::Sum),
        ("total", 1) => Some(Aggregate::Total),
        ("avg", 1) => Some(Aggregate::Average),
        ("min", 1) => Some(Aggregate::Min),
        ("max", 1) => Some(Aggregate::Max),
        _ => None,
    }
}

/// Whether two expressions are written the same way, but for quotes and parentheses.
pub(crate) fn same(one: &Expr, other: &Expr) -> bool {
    fn plain(expr: &Expr) -> Expr {
        let mut expr = expr.clone();
        while let Expr::Nested(inner) = expr {
            expr = *inner;
        }
        let _ = visit::change(&mut expr, &mut Plain);
        expr
    }
    plain(one) == plain(other)
}

/// Takes the quotes off names, and the relations before them.
struct Plain;

impl Change for Plain {
    fn enter_expression(&mut self, expr: &mut Expr) -> Result<(), EngineError> {
        match expr {
            Expr::Identifier(name) => *name = Ident::new(name.value.clone()),
            Expr::CompoundIdentifier(parts) => {
                if let Some(name) = parts.pop() {
                    *expr = Expr::Identifier(Ident::new(name.value));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
