//! The columns of a query's result: their names, and which of them are true or false.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sqlparser::ast::{
    BinaryOperator, Expr, Ident, ObjectName, Query, Select, SelectItem, SetExpr, TableFactor,
    TableWithJoins, UnaryOperator, Value,
};

use super::compare::{first_select, is_marked};
use super::tree::{arguments, function_name, parts};

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// All its values are true, false or `NULL`, which SQLite has only as numbers.
    pub(crate) boolean: bool,
    /// Its texts are times.
    #[serde(default)]
    pub(crate) time: bool,
}

/// Two columns of one name would be one in an object, and in SQL: the second gets `_2` added to its
/// name.
pub(crate) fn unique(mut columns: Vec<Column>) -> Vec<Column> {
    let mut taken = BTreeSet::new();
    for column in &mut columns {
        let (name, mut number) = (column.name.clone(), 1);
        while !taken.insert(column.name.clone()) {
            number += 1;
            column.name = format!("{name}_{number}");
        }
    }
    columns
}

/// Gives a name to each result that has none, as PostgreSQL does: `count(*)` is `count`. A name may be a word of
/// SQLite's, and so has quotes.
pub(crate) fn name_results(projection: &mut [SelectItem]) {
    for item in projection {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let alias = Ident::with_quote('"', name_of(expr));
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
            SelectItem::ExprWithAlias { alias, .. } => alias.quote_style = Some('"'),
            _ => {}
        }
    }
}

fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => name.value.clone(),
        Expr::CompoundIdentifier(parts) => {
            parts.last().map_or_else(String::new, |name| name.value.clone())
        }
        Expr::Function(function) => function_name(function),
        Expr::Cast { expr, .. } | Expr::Nested(expr) | Expr::Collate { expr, .. } => name_of(expr),
        Expr::BinaryOp { op: BinaryOperator::Arrow | BinaryOperator::LongArrow, right, .. } => {
            match &**right {
                Expr::Value(value) => match &value.value {
                    Value::SingleQuotedString(key) => key.clone(),
                    _ => expr.to_string(),
                },
                _ => expr.to_string(),
            }
        }
        _ => expr.to_string(),
    }
}

/// The names of a query's columns, unless a `*` hides them.
pub(crate) fn output_names(query: &Query) -> Option<Vec<String>> {
    let names = first_select(query)?.projection.iter().map(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(expr) => Some(name_of(expr)),
        _ => None,
    });
    names.collect()
}

/// Finds the columns of a result in a query whose results all have names.
pub(crate) struct Outputs<'a> {
    /// The columns of what is not part of the query.
    columns_of: &'a dyn Fn(&ObjectName) -> Option<Vec<Column>>,
    ctes: Vec<(String, Vec<Column>)>,
}

/// The relations of one `SELECT`, by the name they are known as.
type Relations = Vec<(String, Vec<Column>)>;

impl<'a> Outputs<'a> {
    pub(crate) fn new(columns_of: &'a dyn Fn(&ObjectName) -> Option<Vec<Column>>) -> Self {
        Self { columns_of, ctes: Vec::new() }
    }

    /// `None`: a `*` hides them.
    pub(crate) fn of_query(&mut self, query: &Query) -> Option<Vec<Column>> {
        let outer = self.ctes.len();
        for cte in parts(query) {
            if let Some(mut columns) = self.of_query(&cte.query) {
                for (column, alias) in columns.iter_mut().zip(&cte.alias.columns) {
                    column.name.clone_from(&alias.name.value);
                }
                self.ctes.push((cte.alias.name.value.clone(), columns));
            }
        }
        let columns = self.of_body(&query.body);
        self.ctes.truncate(outer);
        columns
    }

    fn of_body(&mut self, body: &SetExpr) -> Option<Vec<Column>> {
        match body {
            SetExpr::Select(select) => self.of_select(select),
            SetExpr::Query(query) => self.of_query(query),
            SetExpr::SetOperation { left, right, .. } => {
                let (left, right) = (self.of_body(left)?, self.of_body(right)?);
                let both = left.into_iter().zip(right);
                let both = both.map(|(l, r)| Column {
                    boolean: l.boolean && r.boolean,
                    time: l.time || r.time,
                    ..l
                });
                Some(both.collect())
            }
            _ => None,
        }
    }

    fn of_select(&mut self, select: &Select) -> Option<Vec<Column>> {
        let mut relations = Vec::new();
        for table in &select.from {
            self.bind(table, &mut relations);
        }
        let columns = select.projection.iter().map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } => {
                let boolean = is_boolean(expr, &relations);
                Some(Column { name: alias.value.clone(), boolean, time: is_marked(expr) })
            }
            _ => None,
        });
        columns.collect()
    }

    fn bind(&mut self, table: &TableWithJoins, relations: &mut Relations) {
        let joined = table.joins.iter().map(|join| &join.relation);
        for factor in std::iter::once(&table.relation).chain(joined) {
            match factor {
                TableFactor::Table { name, alias, .. } => {
                    let called = name.to_string();
                    let cte = self.ctes.iter().rev();
                    let cte = cte
                        .into_iter()
                        .find(|(cte, _)| cte.eq_ignore_ascii_case(called.trim_matches('"')));
                    let columns = cte
                        .map(|(_, columns)| columns.clone())
                        .or_else(|| (self.columns_of)(name))
                        .unwrap_or_default();
                    let known_as = alias.as_ref().map_or(called, |it| it.name.value.clone());
                    relations.push((known_as, columns));
                }
                TableFactor::Derived { subquery, alias, .. } => {
                    let columns = self.of_query(subquery).unwrap_or_default();
                    let known_as = alias.as_ref().map_or("", |alias| &alias.name.value);
                    relations.push((known_as.to_owned(), columns));
                }
                TableFactor::NestedJoin { table_with_joins, .. } => {
                    self.bind(table_with_joins, relations);
                }
                _ => {}
            }
        }
    }
}

fn is_boolean(expr: &Expr, relations: &Relations) -> bool {
    use BinaryOperator as Op;
    let is_column = |relation: Option<&Ident>, name: &Ident| {
        relations
            .iter()
            .filter(|(known_as, _)| {
                relation.is_none_or(|relation| relation.value.eq_ignore_ascii_case(known_as))
            })
            .flat_map(|(_, columns)| columns)
            .find(|column| column.name.eq_ignore_ascii_case(&name.value))
            .is_some_and(|column| column.boolean)
    };
    match expr {
        Expr::Value(value) => matches!(value.value, Value::Boolean(_)),
        Expr::Nested(expr) => is_boolean(expr, relations),
        Expr::Identifier(name) => is_column(None, name),
        Expr::CompoundIdentifier(parts) => match &parts[..] {
            [relation, name] => is_column(Some(relation), name),
            _ => false,
        },
        Expr::UnaryOp { op, .. } => *op == UnaryOperator::Not,
        Expr::BinaryOp { op, .. } => matches!(
            op,
            Op::Eq
                | Op::NotEq
                | Op::Lt
                | Op::LtEq
                | Op::Gt
                | Op::GtEq
                | Op::And
                | Op::Or
                | Op::Is
                | Op::IsNot
        ),
        Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::In { .. }
        | Expr::Between { .. }
        | Expr::Like { .. }
        | Expr::Exists { .. } => true,
        Expr::Case { conditions, else_result, .. } => {
            let results = conditions.iter().map(|it| &it.result).chain(else_result.as_deref());
            are_boolean(results, relations)
        }
        Expr::Function(function) => {
            let Some(arguments) = arguments(function) else { return false };
            let values = match (&*function_name(function), &arguments[..]) {
                ("min" | "max" | "coalesce" | "ifnull", all) => all,
                ("ilike", _) => return true,
                ("iif" | "if", [_, results @ ..]) => results,
                ("nullif", [first, _]) => std::slice::from_ref(first),
                ("first_value" | "last_value" | "nth_value" | "lag" | "lead", [first, ..]) => {
                    std::slice::from_ref(first)
                }
                _ => return false,
            };
            are_boolean(values.iter().copied(), relations)
        }
        _ => false,
    }
}

/// Whether some of these are true or false, and the others `NULL`.
fn are_boolean<'e>(mut exprs: impl Iterator<Item = &'e Expr>, relations: &Relations) -> bool {
    let mut any = false;
    let is_null = |expr: &Expr| matches!(expr, Expr::Value(value) if value.value == Value::Null);
    exprs.all(|expr| {
        let boolean = is_boolean(expr, relations);
        any |= boolean;
        boolean || is_null(expr)
    }) && any
}
