//! Functions: those that a query may call, and what a call becomes.

use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, Ident, OrderByExpr, OrderByOptions, Value,
};

use super::{adapt, as_text, cast_to, comparable, either, numeric, order, own, truth, wrap};
use crate::engine::EngineError;
use crate::sql::tree::{
    argument, arguments_mut, binary, call, case, function_name, null, number, take, text,
};

/// The functions that a query may call: what they do depends on nothing but their arguments and the time, and they
/// give nothing much longer than those.
pub(crate) const FUNCTIONS: [&str; 94] = [
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
    "cume_dist",
    "current_date",
    "current_timestamp",
    "date",
    "date_part",
    "date_trunc",
    "day",
    "dense_rank",
    "exp",
    "extract",
    "first_value",
    "floor",
    "greatest",
    "group_concat",
    "hour",
    "if",
    "ifnull",
    "iif",
    "instr",
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
    "localtimestamp",
    "log",
    "lower",
    "ltrim",
    "max",
    "md5",
    "median",
    "min",
    "minute",
    "mod",
    "month",
    "now",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "percent_rank",
    "percentile",
    "percentile_cont",
    "percentile_disc",
    "pi",
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
    "second",
    "sign",
    "split_part",
    "sqrt",
    "starts_with",
    "statement_timestamp",
    "string_agg",
    "strpos",
    "substr",
    "sum",
    "to_char",
    "total",
    "transaction_timestamp",
    "trim",
    "trunc",
    "upper",
    "utc",
    "year",
];

/// Those whose result changes with time, or at random.
pub(in crate::sql::postgresql) const CLOCKS: [&str; 8] = [
    "clock_timestamp",
    "current_date",
    "current_timestamp",
    "localtimestamp",
    "now",
    "random",
    "statement_timestamp",
    "transaction_timestamp",
];

/// Functions of texts: of one or, those of the second list, of several.
const OF_TEXT: [&str; 10] = [
    "char_length",
    "left",
    "length",
    "lower",
    "md5",
    "octet_length",
    "reverse",
    "right",
    "split_part",
    "upper",
];
const OF_TEXTS: [&str; 8] =
    ["btrim", "concat", "concat_ws", "ltrim", "replace", "rtrim", "starts_with", "strpos"];

/// Functions of numbers, and those that are not defined for all of them, which are ours.
const OF_NUMBER: [&str; 3] = ["ceiling", "sign", "trunc"];
const OF_SOME_NUMBERS: [&str; 6] = ["exp", "ln", "log", "mod", "power", "sqrt"];

/// Functions of `PipelineDB` that cut a time down to a unit, and are named like it.
const UNITS: [&str; 6] = ["second", "minute", "hour", "day", "month", "year"];

/// Units to which a time is cut down, and parts that it has.
const TRUNCATED: [&str; 7] = ["second", "minute", "hour", "day", "week", "month", "year"];
pub(super) const PARTS: [&str; 19] = [
    "century",
    "day",
    "decade",
    "dow",
    "doy",
    "epoch",
    "hour",
    "isodow",
    "isoyear",
    "microsecond",
    "microseconds",
    "millisecond",
    "milliseconds",
    "minute",
    "month",
    "quarter",
    "second",
    "week",
    "year",
];

/// What a call becomes if it is not one of the same function.
pub(super) fn of_function(function: &mut Function) -> Result<Option<Expr>, EngineError> {
    let mut name = function_name(function);
    let wrong = |name: &str| EngineError::Invalid(format!("{name} has other arguments"));
    let renamed = match &*name {
        "pow" => "power",
        "ifnull" => "coalesce",
        "instr" => "strpos",
        "group_concat" => "string_agg",
        "trim" => "btrim",
        "statement_timestamp"
        | "transaction_timestamp"
        | "clock_timestamp"
        | "localtimestamp"
        | "current_timestamp" => {
            return Ok(Some(call("now", [])));
        }
        _ => "",
    };
    if !renamed.is_empty() {
        renamed.clone_into(&mut name);
        function.name = vec![Ident::new(renamed)].into();
    }
    order_in(function);
    let count = arguments_mut(function).count();
    match &*name {
        "sum" | "abs" => arguments_mut(function).for_each(|it| wrap("amount", it)),
        // A plan makes a sum of it and divides that, which of whole numbers would be a whole number.
        "avg" => arguments_mut(function).for_each(|it| {
            *it = cast_to(own("amount", [take(it)]), numeric());
        }),
        "total" => {
            arguments_mut(function).for_each(|it| wrap("amount", it));
            function.name = vec![Ident::new("sum")].into();
            return Ok(either([Expr::Function(function.clone()), number("0")].into_iter()));
        }
        "coalesce" => {
            let values: Vec<Expr> = arguments_mut(function).map(take).collect();
            return Ok(Some(either(values.into_iter()).unwrap_or_else(null)));
        }
        "iif" | "if" => {
            let mut values: Vec<Expr> = arguments_mut(function).map(take).collect();
            if !(2..=3).contains(&values.len()) {
                return Err(wrong(&name));
            }
            let mut values = values.iter_mut();
            let (Some(condition), Some(result)) = (values.next(), values.next()) else {
                return Err(wrong(&name));
            };
            let mut case = case(take(condition), take(result), values.next().map(take));
            adapt(&mut case)?;
            return Ok(Some(case));
        }
        "nullif" => comparable(&mut arguments_mut(function).collect::<Vec<_>>())?,
        "string_agg" => {
            arguments_mut(function).for_each(as_text);
            if let (FunctionArguments::List(list), 1) = (&mut function.args, count) {
                list.args.push(argument(text(",")));
            }
        }
        "round" => arguments_mut(function).take(1).for_each(|it| wrap("amount", it)),
        "substr" => return Ok(Some(part_of_text(arguments_mut(function).map(take).collect()))),
        "utc" if count == 1 => {
            return Ok(arguments_mut(function).next().map(|it| own("time", [take(it)])));
        }
        "date" if count == 1 => {
            let time = arguments_mut(function).next().map(|it| own("time", [take(it)]));
            return Ok(time.map(|time| own("day", [time])));
        }
        "current_date" => return Ok(Some(own("day", [call("now", [])]))),
        "utc" | "date" => return Err(wrong(&name)),
        "pi" => function.name = vec![Ident::new("stride"), Ident::new("pi")].into(),
        unit if count == 1 && UNITS.contains(&unit) => {
            let time = arguments_mut(function).next().map(|it| own("time", [take(it)]));
            return Ok(time.map(|time| call("date_trunc", [text(unit), time])));
        }
        "date_trunc" => {
            check_first("date_trunc", function, &TRUNCATED)?;
            arguments_mut(function).skip(1).for_each(|it| wrap("time", it));
        }
        "date_part" => {
            check_first("date_part", function, &PARTS)?;
            arguments_mut(function).skip(1).for_each(|it| wrap("time", it));
            return Ok(Some(cast_to(Expr::Function(function.clone()), numeric())));
        }
        "random" => return Ok(Some(cast_to(Expr::Function(function.clone()), numeric()))),
        "json_array_length" | "jsonb_array_length" => {
            function.name = vec![Ident::new("stride"), Ident::new("array_length")].into();
            arguments_mut(function).for_each(|it| wrap("json", it));
        }
        "median" | "percentile" | "percentile_cont" | "percentile_disc" => {
            return percentile(&name, function).map(Some);
        }
        known if OF_TEXT.contains(&known) => arguments_mut(function).take(1).for_each(as_text),
        known if OF_TEXTS.contains(&known) => arguments_mut(function).for_each(as_text),
        known if OF_NUMBER.contains(&known) => {
            arguments_mut(function).take(1).for_each(|it| wrap("num", it));
        }
        known if OF_SOME_NUMBERS.contains(&known) => {
            arguments_mut(function).for_each(|it| wrap("num", it));
            function.name = vec![Ident::new("stride"), Ident::new(known)].into();
        }
        _ => {}
    }
    Ok(None)
}

/// A part of a text, from a place in it on; one before the first counts from its end.
pub(super) fn part_of_text(mut arguments: Vec<Expr>) -> Expr {
    let mut rest = arguments.iter_mut();
    rest.next().into_iter().for_each(as_text);
    rest.for_each(|it| wrap("num", it));
    own("substr", arguments)
}

/// The unit that is a function's first argument.
fn check_first(name: &str, function: &mut Function, known: &[&str]) -> Result<(), EngineError> {
    let unit = arguments_mut(function).next();
    match unit.as_deref() {
        Some(Expr::Value(value)) => match &value.value {
            Value::SingleQuotedString(unit) => check_unit(name, unit, known),
            _ => Ok(()),
        },
        _ => Err(EngineError::Invalid(format!("{name} has its unit in quotes"))),
    }
}

/// What a function of several rows orders them by.
fn order_in(function: &mut Function) {
    if let FunctionArguments::List(list) = &mut function.args {
        for clause in &mut list.clauses {
            if let FunctionArgumentClause::OrderBy(by) = clause {
                by.iter_mut().for_each(order);
            }
        }
    }
    if let Some(sqlparser::ast::WindowType::WindowSpec(window)) = &mut function.over {
        window.order_by.iter_mut().for_each(order);
    }
    function.filter.iter_mut().for_each(|it| truth(it));
}

/// `median(x)` and `percentile_cont(x, 0.5)` are `percentile_cont(0.5) WITHIN GROUP (ORDER BY x)`.
fn percentile(name: &str, function: &mut Function) -> Result<Expr, EngineError> {
    let mut arguments: Vec<Expr> = arguments_mut(function).map(take).collect();
    let mut options = OrderByOptions::default();
    if let [order] = &mut function.within_group[..] {
        options = std::mem::take(&mut order.options);
        arguments.insert(0, take(&mut order.expr));
    }
    let whole = if name == "percentile" { 100.0 } else { 1.0 };
    if let Some(Expr::Value(fraction)) = arguments.get(1)
        && let Value::Number(digits, _) = &fraction.value
        && digits.parse().is_ok_and(|number: f64| number > whole)
    {
        let why = format!("a percentile is a number from 0 to {whole}");
        return Err(EngineError::Invalid(why));
    }
    let (value, fraction) = match (name, &mut arguments[..]) {
        ("median", [value]) => (take(value), number("0.5")),
        ("percentile", [value, percent]) => {
            let fraction = binary(take(percent), BinaryOperator::Divide, number("100.0"));
            (take(value), fraction)
        }
        ("percentile_cont" | "percentile_disc", [value, fraction]) => (take(value), take(fraction)),
        _ => return Err(EngineError::Invalid(format!("{name} has one value and one fraction"))),
    };
    let name = if name == "percentile_disc" { name } else { "percentile_cont" };
    function.name = vec![Ident::new(name)].into();
    if let FunctionArguments::List(list) = &mut function.args {
        list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(fraction))];
    }
    let expr = own("num", [value]);
    function.within_group = vec![OrderByExpr { expr, options, with_fill: None }];
    Ok(cast_to(Expr::Function(function.clone()), numeric()))
}

pub(super) fn check_unit(function: &str, unit: &str, known: &[&str]) -> Result<(), EngineError> {
    match known.contains(&&*unit.to_ascii_lowercase()) {
        true => Ok(()),
        false => Err(EngineError::Invalid(format!(
            "{function} knows no {unit:?}, only {}",
            known.join(", ")
        ))),
    }
}
