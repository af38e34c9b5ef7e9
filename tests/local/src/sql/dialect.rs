//! What PostgreSQL and `PipelineDB` write in another way than SQLite, put in its words. What it has no words for is refused
//! by its name.

use sqlparser::ast::{
    BinaryOperator, CastKind, CeilFloorKind, DataType, DateTimeField, Distinct, Expr, Function,
    FunctionArg, FunctionArgExpr, FunctionArguments, LimitClause, Offset, OffsetRows, OrderBySort,
    Query, SetExpr, TrimWhereField, UnaryOperator, Value,
};

use super::tree::{argument, binary, call, function_name, negative, number, take, text};
use super::visit;
use crate::engine::EngineError;

/// Functions of `PipelineDB` that cut a time down to a unit, and are named like it.
const UNITS: [&str; 6] = ["second", "minute", "hour", "day", "month", "year"];

/// Lets through what there are words for on every database, and refuses everything else by its name.
pub(crate) fn allow(expr: &Expr) -> Result<(), EngineError> {
    match expr {
        Expr::Cast { kind, data_type, format: None, .. } => {
            if !matches!(kind, CastKind::Cast | CastKind::DoubleColon) {
                return Err(refused(expr));
            }
            if !matches!(data_type, DataType::JSON | DataType::JSONB) && !is_known(data_type) {
                let why = format!("a cast to {data_type} is not supported");
                return Err(EngineError::Invalid(why));
            }
        }
        Expr::Substring { substring_from, .. } => {
            if let Some(Expr::Value(value)) = substring_from.as_deref()
                && matches!(value.value, Value::SingleQuotedString(_))
            {
                return Err(refused(expr));
            }
        }
        Expr::AtTimeZone { time_zone, .. } => match &**time_zone {
            Expr::Value(value) if matches!(&value.value, Value::SingleQuotedString(zone) if zone.eq_ignore_ascii_case("utc")) =>
                {}
            _ => {
                return Err(EngineError::Invalid(
                    "AT TIME ZONE is only supported with 'UTC', which all times are in".to_owned(),
                ));
            }
        },
        // The parser lets it bind looser than PostgreSQL does.
        Expr::BinaryOp { op: BinaryOperator::BitwiseXor, .. } => {
            return Err(EngineError::Invalid(
                "the operator ^ is not supported: write pow(a, b)".to_owned(),
            ));
        }
        Expr::BinaryOp { op, .. } if !has(op) => {
            return Err(EngineError::Invalid(format!("the operator {op} is not supported")));
        }
        Expr::UnaryOp { op, .. } if !matches!(
            op,
            UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not | UnaryOperator::BitwiseNot
        ) => {
            return Err(EngineError::Invalid(format!("the operator {op} is not supported")));
        }
        Expr::Function(function) if !function.within_group.is_empty() => {
            let name = function_name(function);
            if !matches!(&*name, "percentile_cont" | "percentile_disc") {
                return Err(not_within_group(&name));
            }
        }
        Expr::Ceil { field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime), .. }
        | Expr::Floor { field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime), .. }
        | Expr::Like { any: false, .. }
        | Expr::ILike { any: false, .. }
        | Expr::BinaryOp { .. }
        | Expr::UnaryOp { .. }
        | Expr::Function(_)
        | Expr::Extract { .. }
        | Expr::Position { .. }
        | Expr::Trim { .. }
        | Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::In { global: false, .. }
        | Expr::Between { .. }
        | Expr::Collate { .. }
        | Expr::Nested(_)
        | Expr::Value(_)
        | Expr::TypedString(_)
        | Expr::Case { .. }
        | Expr::Exists { .. }
        | Expr::Subquery(_)
        | Expr::Tuple(_)
        // It is part of a sum, or refused once all is translated.
        | Expr::Interval(_) => {}
        _ => return Err(refused(expr)),
    }
    Ok(())
}

/// Translates one expression, whose parts have been.
pub(crate) fn translate(expr: &mut Expr) -> Result<(), EngineError> {
    allow(expr)?;
    let translated = match expr {
        Expr::Cast { kind, data_type, expr: value, .. } => {
            *kind = CastKind::Cast;
            match data_type {
                DataType::JSON => call("json", vec![take(value)]),
                DataType::JSONB => call("jsonb", vec![take(value)]),
                _ => return Ok(()),
            }
        }
        Expr::Extract { field, expr: at, .. } => {
            let field = field.to_string().to_ascii_lowercase();
            call("date_part", vec![text(field), take(at)])
        }
        Expr::Position { expr: part, r#in } => call("instr", vec![take(r#in), take(part)]),
        Expr::Substring { substring_from, special, .. } => {
            // With commas.
            *special = true;
            substring_from.get_or_insert_with(|| Box::new(number("1")));
            return Ok(());
        }
        Expr::Trim { trim_where, trim_what, expr: value, trim_characters }
            if trim_where.is_some() || trim_what.is_some() =>
        {
            let what = trim_what.as_deref_mut().map(take);
            match trim_where {
                Some(TrimWhereField::Leading) => call("ltrim", with(take(value), what)),
                Some(TrimWhereField::Trailing) => call("rtrim", with(take(value), what)),
                Some(TrimWhereField::Both) | None => {
                    (*trim_where, *trim_what) = (None, None);
                    *trim_characters = what.map(|what| vec![what]);
                    return Ok(());
                }
            }
        }
        Expr::AtTimeZone { timestamp, .. } => call("utc", vec![take(timestamp)]),
        Expr::IsUnknown(value) => Expr::IsNull(Box::new(take(value))),
        Expr::IsNotUnknown(value) => Expr::IsNotNull(Box::new(take(value))),
        Expr::Function(function) => match of_function(function)? {
            Some(translated) => translated,
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    *expr = translated;
    Ok(())
}

/// Refuses what no database has words for, or not both of them.
pub(crate) fn allow_query(query: &Query) -> Result<(), EngineError> {
    if let Some(fetch) = &query.fetch {
        if fetch.with_ties || fetch.percent {
            return Err(EngineError::Invalid(format!("{fetch} is not supported")));
        }
        if let Some(LimitClause::LimitOffset { limit: None, .. }) | None = &query.limit_clause {
        } else {
            return Err(EngineError::Invalid("a query has LIMIT or FETCH, not both".to_owned()));
        }
    }
    if let SetExpr::Select(select) = &*query.body
        && let Some(Distinct::On(_)) = select.distinct
    {
        return Err(EngineError::Invalid(
            "DISTINCT ON is not supported: use GROUP BY with min or max".to_owned(),
        ));
    }
    Ok(())
}

/// Translates what a query has around its expressions.
pub(crate) fn translate_query(query: &mut Query) -> Result<(), EngineError> {
    allow_query(query)?;
    if let Some(fetch) = query.fetch.take() {
        let rows = fetch.quantity.unwrap_or_else(|| number("1"));
        if let LimitClause::LimitOffset { limit, .. } =
            query.limit_clause.get_or_insert_with(no_limit)
        {
            *limit = Some(rows);
        }
    }
    if let Some(LimitClause::LimitOffset { limit, offset: Some(Offset { rows, .. }), .. }) =
        &mut query.limit_clause
    {
        *rows = OffsetRows::None;
        // SQLite has no OFFSET without a LIMIT.
        limit.get_or_insert_with(|| negative("1"));
    }
    Ok(())
}

fn no_limit() -> LimitClause {
    LimitClause::LimitOffset { limit: None, offset: None, limit_by: Vec::new() }
}

/// Refuses what would have been translated had it stood elsewhere.
pub(crate) fn check(query: &Query) -> Result<(), EngineError> {
    let mut left = None;
    visit::any_expression(query, |expr| {
        if let Expr::Interval(interval) = expr {
            left = Some(interval.to_string());
        }
        left.is_some()
    });
    left.map_or(Ok(()), |interval| {
        Err(EngineError::Invalid(format!(
            "{interval} can only be added to a time, or taken from one"
        )))
    })
}

fn of_function(function: &mut Function) -> Result<Option<Expr>, EngineError> {
    let name = function_name(function);
    if !function.within_group.is_empty() {
        return percentile(&name, function).map(Some);
    }
    let FunctionArguments::List(list) = &mut function.args else { return Ok(None) };
    if list.args.len() == 1 && UNITS.contains(&&*name) {
        let name = std::mem::replace(&mut function.name, vec!["date_trunc".into()].into());
        list.args.insert(0, argument(text(name.to_string().to_ascii_lowercase())));
    }
    Ok(None)
}

/// `percentile_cont(0.5) WITHIN GROUP (ORDER BY x)` is `percentile_cont(x, 0.5)`.
fn percentile(name: &str, function: &mut Function) -> Result<Expr, EngineError> {
    if let (FunctionArguments::List(list), [order]) =
        (&mut function.args, &mut function.within_group[..])
        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(fraction))] = &mut list.args[..]
    {
        let mut fraction = take(fraction);
        if order.options.sort == Some(OrderBySort::Desc) {
            let fraction_of = Expr::Nested(Box::new(fraction));
            fraction = binary(number("1"), BinaryOperator::Minus, fraction_of);
        }
        list.args = vec![argument(take(&mut order.expr)), argument(fraction)];
        function.within_group.clear();
        return Ok(Expr::Function(function.clone()));
    }
    Err(not_within_group(name))
}

fn not_within_group(name: &str) -> EngineError {
    EngineError::Invalid(format!(
        "{name} WITHIN GROUP is not supported: percentile_cont and percentile_disc are, with one fraction"
    ))
}

/// Whether a cast to a type means the same everywhere.
pub(super) fn is_known(data_type: &DataType) -> bool {
    use DataType as Type;
    matches!(
        data_type,
        Type::Int(_)
            | Type::Integer(_)
            | Type::BigInt(_)
            | Type::SmallInt(_)
            | Type::Int2(_)
            | Type::Int4(_)
            | Type::Int8(_)
            | Type::Text
            | Type::Varchar(_)
            | Type::CharacterVarying(_)
            | Type::Char(_)
            | Type::Character(_)
            | Type::Real
            | Type::Float(_)
            | Type::Float4
            | Type::Float8
            | Type::Double(_)
            | Type::DoublePrecision
            | Type::Numeric(_)
            | Type::Decimal(_)
            | Type::Blob(_)
            | Type::Date
            | Type::Timestamp(..)
            | Type::Datetime(_)
    )
}

fn has(op: &BinaryOperator) -> bool {
    use BinaryOperator as Op;
    matches!(
        op,
        Op::Plus
            | Op::Minus
            | Op::Multiply
            | Op::Divide
            | Op::Modulo
            | Op::StringConcat
            | Op::Gt
            | Op::Lt
            | Op::GtEq
            | Op::LtEq
            | Op::Eq
            | Op::NotEq
            | Op::And
            | Op::Or
            | Op::BitwiseOr
            | Op::BitwiseAnd
            | Op::PGBitwiseShiftLeft
            | Op::PGBitwiseShiftRight
            | Op::Arrow
            | Op::LongArrow
            | Op::Is
            | Op::IsNot
            | Op::Glob
    )
}

fn refused(expr: &Expr) -> EngineError {
    EngineError::Invalid(format!("{expr} is not supported"))
}

fn with(expr: Expr, more: Option<Expr>) -> Vec<Expr> {
    std::iter::once(expr).chain(more).collect()
}
