//! Takes a result apart: what is a key or an aggregate in it is replaced by columns of the table of groups.

use std::collections::BTreeSet;

use sqlparser::ast::{Expr, Function, Ident, InTarget, Query, Value};

use super::distinct::Distinct;
use super::{Dialect, Key, Merge, State, Use};
use crate::engine::EngineError;
use crate::sql::groups::{Aggregate, aggregate, result_only, same};
use crate::sql::print::{is_raw, raw};
use crate::sql::times;
use crate::sql::tree::{arguments, call, function_name, null};
use crate::sql::visit::{self, Change};

/// An expression about one event: no aggregate, no query, no name of a result.
pub(super) fn check(dialect: Dialect, expr: &Expr, named: &[(Expr, String)]) -> Result<(), String> {
    let mut why = None;
    visit::any_expression(expr, |expr| {
        why = match expr {
            Expr::Identifier(name) if result_only(name, named).is_some() => {
                Some(format!("it uses the result {} where only columns can be", name.value))
            }
            Expr::Function(function) if aggregate(function).is_some() => {
                Some(format!("it has {}() where only columns can be", function_name(function)))
            }
            _ => None,
        };
        why.is_some()
    });
    why.map_or_else(|| check_functions(dialect, expr), Err)
}

/// All functions are known, and there is nothing that is a query of its own.
pub(super) fn check_functions(dialect: Dialect, expr: &Expr) -> Result<(), String> {
    let mut why = None;
    visit::any_expression(expr, |expr| {
        why = what_is_unknown(dialect, expr);
        why.is_some()
    });
    why.map_or(Ok(()), Err)
}

fn what_is_unknown(dialect: Dialect, expr: &Expr) -> Option<String> {
    let why = |is_known: bool, why: &str| (!is_known).then(|| why.to_owned());
    match expr {
        Expr::Function(function) => {
            let name = function_name(function);
            let is_plain = function.over.is_none() && function.filter.is_none();
            let is_known =
                aggregate(function).is_some() || is_plain && dialect.is_of_one_event(&name);
            let what = if function.over.is_some() { "the window function " } else { "" };
            (!is_known).then(|| format!("it calls {what}{name}()"))
        }
        Expr::Subquery(_) | Expr::Exists { .. } => why(false, "it has a subquery"),
        Expr::In { target, .. } => why(matches!(target, InTarget::List(_)), "it has a subquery"),
        // In what order texts come, and which are equal, is another matter there.
        Expr::Collate { .. } => why(false, "it has COLLATE"),
        Expr::Trim { trim_what, trim_characters, .. } => {
            let is_plain = trim_what.is_none() && trim_characters.is_none();
            why(is_plain || dialect.trims_characters(), "it trims other characters")
        }
        Expr::Value(value) => {
            why(!matches!(value.value, Value::Placeholder(_)), "it has a parameter")
        }
        _ => None,
    }
}

/// Takes results apart, and collects what has to be kept for them.
pub(super) struct Split<'a> {
    pub(super) dialect: Dialect,
    pub(super) keys: &'a [Key],
    pub(super) states: Vec<State>,
    pub(super) uses: Vec<Use>,
    pub(super) distinct: Vec<Distinct>,
    /// Why they cannot be taken apart.
    pub(super) why: Option<String>,
}

impl Change for Split<'_> {
    fn enter_query(&mut self, _: &mut Query) -> Result<(), EngineError> {
        self.refuse("it has a subquery".to_owned())
    }

    fn enter_expression(&mut self, expr: &mut Expr) -> Result<(), EngineError> {
        if let Some(key) = self.keys.iter().position(|key| same(&key.expr, expr)) {
            *expr = self.key(key);
            return Ok(());
        }
        // While columns can still be told from what is made of them.
        self.dialect.of_types(expr);
        match expr {
            Expr::Function(function) => match aggregate(function) {
                Some(aggregate) => *expr = self.state(function, aggregate),
                None => {
                    if let Some(why) =
                        what_is_unknown(self.dialect, &Expr::Function(function.clone()))
                    {
                        return self.refuse(why);
                    }
                }
            },
            // A column that is neither aggregated nor grouped by, or one that this function made.
            Expr::Identifier(name) if !is_raw(name) => {
                return self.refuse(format!("{} is neither aggregated nor grouped by", name.value));
            }
            Expr::CompoundIdentifier(_) => {
                return self.refuse(format!("{expr} is neither aggregated nor grouped by"));
            }
            other => {
                if let Some(why) = what_is_unknown(self.dialect, other) {
                    return self.refuse(why);
                }
            }
        }
        Ok(())
    }
}

impl Split<'_> {
    fn refuse(&mut self, why: String) -> Result<(), EngineError> {
        self.why = Some(why.clone());
        Err(EngineError::Invalid(why))
    }

    /// The value of a key, in terms of the table.
    fn key(&mut self, place: usize) -> Expr {
        let key = &self.keys[place];
        if key.is_time {
            // One of the texts of that time: what is a key of the table is made of it.
            let part = call("min", [key.expr.clone()]);
            let state = self.keep(State { part, merge: Merge::Min, time: true });
            return raw(&format!("(a{state}{})", times::COLLATED));
        }
        raw(&self.dialect.value_of_key(&format!("k{place}"), &key.expr))
    }

    /// The number of a state, which is added if it is new.
    fn keep(&mut self, state: State) -> usize {
        self.states.iter().position(|known| *known == state).unwrap_or_else(|| {
            self.states.push(state);
            self.states.len() - 1
        })
    }

    /// What gives the aggregate's value from its states.
    fn state(&mut self, function: &Function, aggregate: Aggregate) -> Expr {
        let named = |name: &str| {
            let mut function = function.clone();
            function.name = vec![Ident::new(name)].into();
            Expr::Function(function)
        };
        let of_times = self.dialect.is_time(&Expr::Function(function.clone()));
        let average = self.dialect.average_of();
        let mut states = Vec::new();
        let mut keep = |part: Expr, merge| {
            let time = of_times && matches!(merge, Merge::Min | Merge::Max);
            states.push(self.keep(State { part, merge, time }));
            states[states.len() - 1]
        };
        let collated = if of_times { times::COLLATED } else { "" };
        let value = match aggregate {
            Aggregate::Count => format!("(a{})", keep(named("count"), Merge::Add)),
            Aggregate::Total => format!("(a{})", keep(named("total"), Merge::Add)),
            Aggregate::Sum => format!("(a{})", keep(named("sum"), Merge::Sum)),
            Aggregate::Min => format!("(a{}{collated})", keep(named("min"), Merge::Min)),
            Aggregate::Max => format!("(a{}{collated})", keep(named("max"), Merge::Max)),
            Aggregate::Average => {
                let (name, merge) = average;
                let total = keep(named(name), merge);
                let count = keep(named("count"), Merge::Add);
                format!("(a{total} / nullif(a{count}, 0))")
            }
            Aggregate::CountDistinct => {
                states.push(self.distinct(function));
                format!("(a{})", states[0])
            }
        };
        self.uses.push(Use { aggregate, states });
        raw(&value)
    }

    /// The state that counts the distinct values of an expression.
    fn distinct(&mut self, function: &Function) -> usize {
        let value = arguments(function).and_then(|arguments| arguments.first().copied().cloned());
        let (value, filter) = (value.unwrap_or_else(null), function.filter.as_deref().cloned());
        let mut known = self.distinct.iter();
        if let Some(known) = known.find(|it| it.value == value && it.filter == filter) {
            return known.state;
        }
        // Of the events alone it is 0: what is new among them is only found in the table of values.
        let part = call("count", [null()]);
        self.states.push(State { part, merge: Merge::Distinct, time: false });
        let state = self.states.len() - 1;
        self.distinct.push(Distinct { value, filter, state });
        state
    }
}

/// Puts what they stand for in the place of names that can only mean a result.
pub(super) struct SpellOut<'a> {
    pub(super) named: &'a [(Expr, String)],
    /// Names that are columns, in lower case: a condition of events mentions them.
    pub(super) columns: BTreeSet<String>,
}

impl Change for SpellOut<'_> {
    fn enter_expression(&mut self, expr: &mut Expr) -> Result<(), EngineError> {
        if let Expr::Identifier(name) = expr
            && !self.columns.contains(&name.value.to_ascii_lowercase())
            && let Some(result) = result_only(name, self.named)
        {
            *expr = Expr::Nested(Box::new(result.clone()));
        }
        Ok(())
    }
}
