//! Walking over queries.
//!
//! sqlparser's visitors are generic: for each type that visits, all that SQL has is compiled anew. So there is one such
//! type here for looking and one for changing, and who visits is behind a pointer.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Select, TableFactor, ValueWithSpan, Visit, VisitMut, Visitor,
    VisitorMut,
};

use super::tree::only_part;
use crate::engine::EngineError;

/// What is come by.
enum Seen<'a> {
    Expression(&'a Expr),
    /// The name of a relation that is read.
    Relation(&'a ObjectName),
    /// After what is in it.
    Query(&'a Query),
}

struct Looks<'a>(&'a mut dyn FnMut(Seen<'_>) -> bool);

impl Looks<'_> {
    fn at(&mut self, seen: Seen<'_>) -> ControlFlow<()> {
        if (self.0)(seen) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Visitor for Looks<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.at(Seen::Expression(expr))
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        self.at(Seen::Relation(name))
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.at(Seen::Query(query))
    }
}

/// Whether an expression in `node` is as `is` says.
pub(crate) fn any_expression(node: &impl Visit, mut is: impl FnMut(&Expr) -> bool) -> bool {
    let mut looks = |seen: Seen<'_>| matches!(seen, Seen::Expression(expr) if is(expr));
    node.visit(&mut Looks(&mut looks)).is_break()
}

/// Shows the queries in `query`, the inner before the outer.
pub(crate) fn queries(query: &Query, mut shown: impl FnMut(&Query)) {
    let mut looks = |seen: Seen<'_>| {
        if let Seen::Query(query) = seen {
            shown(query);
        }
        false
    };
    let _ = query.visit(&mut Looks(&mut looks));
}

/// Names the relations that are read in `query`, each as often as it is.
pub(crate) fn relations(query: &Query, mut named: impl FnMut(&str)) {
    let mut looks = |seen: Seen<'_>| {
        if let Seen::Relation(name) = seen
            && let Some(name) = only_part(name)
        {
            named(&name.value);
        }
        false
    };
    let _ = query.visit(&mut Looks(&mut looks));
}

/// Makes a trait of ours of some methods of a visitor, which return a `Result`.
macro_rules! change {
    ($($method:ident, $visitor_method:ident: $node:ty;)+) => {
        /// Changes what it is shown, unless that is refused.
        pub(crate) trait Change {
            $(fn $method(&mut self, _: &mut $node) -> Result<(), EngineError> {
                Ok(())
            })+
        }

        impl VisitorMut for Changes<'_> {
            type Break = EngineError;

            $(fn $visitor_method(&mut self, node: &mut $node) -> ControlFlow<EngineError> {
                match self.0.$method(node) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => ControlFlow::Break(error),
                }
            })+
        }
    };
}

change! {
    enter_query, pre_visit_query: Query;
    leave_query, post_visit_query: Query;
    enter_select, pre_visit_select: Select;
    leave_select, post_visit_select: Select;
    enter_table, pre_visit_table_factor: TableFactor;
    leave_table, post_visit_table_factor: TableFactor;
    enter_expression, pre_visit_expr: Expr;
    leave_expression, post_visit_expr: Expr;
    name, pre_visit_ident: Ident;
    literal, pre_visit_value: ValueWithSpan;
}

struct Changes<'a>(&'a mut dyn Change);

/// Shows `node`, and all that is in it, to be changed.
pub(crate) fn change(node: &mut impl VisitMut, change: &mut dyn Change) -> Result<(), EngineError> {
    match node.visit(&mut Changes(change)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}
