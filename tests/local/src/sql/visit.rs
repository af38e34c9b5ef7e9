//! Walking over queries.
//!
//! sqlparser's visitors are generic: for each type that visits, all that SQL has is compiled anew,
//! which takes minutes. So there is one such type here for looking and one for changing, and who
//! visits is behind a pointer.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Select, TableFactor, ValueWithSpan, Visit, VisitMut, Visitor,
    VisitorMut,
};

/// Whether an expression in `node` is as `is` says.
pub(crate) fn any_expression(node: &impl Visit, mut is: impl FnMut(&Expr) -> bool) -> bool {
    node.visit(&mut Looks(&mut is)).is_break()
}

struct Looks<'a>(&'a mut dyn FnMut(&Expr) -> bool);

impl Visitor for Looks<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if (self.0)(expr) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Shows the queries in `node`, the inner before the outer.
pub(crate) fn queries(node: &impl Visit, shown: &mut dyn FnMut(&Query)) {
    let _ = node.visit(&mut Shown(shown));
}

struct Shown<'a>(&'a mut dyn FnMut(&Query));

impl Visitor for Shown<'_> {
    type Break = ();

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        (self.0)(query);
        ControlFlow::Continue(())
    }
}

/// Names the relations that are read in `node`, each as often as it is.
pub(crate) fn relations(node: &impl Visit, named: &mut dyn FnMut(&str)) {
    let _ = node.visit(&mut Named(named));
}

struct Named<'a>(&'a mut dyn FnMut(&str));

impl Visitor for Named<'_> {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        if let [part] = &name.0[..]
            && let Some(name) = part.as_ident()
        {
            (self.0)(&name.value);
        }
        ControlFlow::Continue(())
    }
}

/// Lets a visitor change `node`. Of its methods, those below are called.
pub(crate) fn change<B>(
    node: &mut impl VisitMut,
    visitor: &mut dyn VisitorMut<Break = B>,
) -> Result<(), B> {
    match node.visit(&mut Changes(visitor)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(stop) => Err(stop),
    }
}

struct Changes<'a, B>(&'a mut dyn VisitorMut<Break = B>);

impl<B> VisitorMut for Changes<'_, B> {
    type Break = B;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<B> {
        self.0.pre_visit_query(query)
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<B> {
        self.0.post_visit_query(query)
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<B> {
        self.0.pre_visit_select(select)
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<B> {
        self.0.post_visit_select(select)
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<B> {
        self.0.pre_visit_table_factor(table)
    }

    fn post_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<B> {
        self.0.post_visit_table_factor(table)
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<B> {
        self.0.pre_visit_expr(expr)
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<B> {
        self.0.post_visit_expr(expr)
    }

    fn pre_visit_ident(&mut self, ident: &mut Ident) -> ControlFlow<B> {
        self.0.pre_visit_ident(ident)
    }

    fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<B> {
        self.0.pre_visit_value(value)
    }
}
