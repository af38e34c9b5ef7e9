//! The small parts of a syntax tree: names, literals, functions and their arguments.

use sqlparser::ast::{
    BinaryOperator, Cte, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, Query, UnaryOperator, Value,
};

/// A name that has one part.
pub(crate) fn only_part(name: &ObjectName) -> Option<&Ident> {
    match &name.0[..] {
        [part] => part.as_ident(),
        _ => None,
    }
}

/// The parts of a query that have names.
pub(crate) fn parts(query: &Query) -> impl Iterator<Item = &Cte> {
    query.with.iter().flat_map(|with| &with.cte_tables)
}

/// The name of a function, in lower case and without quotes.
pub(crate) fn function_name(function: &Function) -> String {
    only_part(&function.name).map(|name| name.value.to_ascii_lowercase()).unwrap_or_default()
}

/// The arguments of a function, unless there is a name or a wildcard among them.
pub(crate) fn arguments(function: &Function) -> Option<Vec<&Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let arguments = list.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    arguments.collect()
}

/// The arguments of a function, without names and wildcards.
pub(crate) fn arguments_mut(function: &mut Function) -> impl Iterator<Item = &mut Expr> {
    let list = match &mut function.args {
        FunctionArguments::List(list) => Some(list),
        _ => None,
    };
    list.into_iter().flat_map(|list| &mut list.args).filter_map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    })
}

/// An argument without a name.
pub(crate) fn argument(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

/// A call of the function of this name.
pub(crate) fn call(name: &str, arguments: impl IntoIterator<Item = Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.into_iter().map(argument).collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// Puts an expression into a call of a function of one argument.
pub(crate) fn wrap(name: &str, expr: &mut Expr) {
    *expr = call(name, [take(expr)]);
}

/// The expression, which leaves `NULL` behind.
pub(crate) fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, null())
}

pub(crate) fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

/// A text as a literal.
pub(crate) fn text(text: impl Into<String>) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.into()).into())
}

/// A number as a literal.
pub(crate) fn number(digits: impl Into<String>) -> Expr {
    Expr::Value(Value::Number(digits.into(), false).into())
}

pub(crate) fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// A number with a minus before it.
pub(crate) fn negative(digits: impl Into<String>) -> Expr {
    Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(number(digits)) }
}

/// One result or another.
#[cfg(feature = "postgres")]
pub(crate) fn case(condition: Expr, result: Expr, otherwise: Option<Expr>) -> Expr {
    Expr::Case {
        case_token: sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
        end_token: sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
        operand: None,
        conditions: vec![sqlparser::ast::CaseWhen { condition, result }],
        else_result: otherwise.map(Box::new),
    }
}
