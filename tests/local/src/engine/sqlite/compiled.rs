//! What a query makes of a process.

use std::collections::BTreeSet;

use crate::engine::{EngineError, Mode};
use crate::sql::columns::Column;
use crate::sql::plan::{Dialect, Plan};
use crate::sql::relations::{Catalogue, Relation};
use crate::sql::rewrite::{self, Runnable};
use crate::sql::{self, Homes, Parsed};

/// What a query makes of a process.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    /// The query as it is written. Parsed, it takes a hundred times the memory, so it is parsed again when it
    /// is looked into.
    query: String,
    /// What its names were found to mean when it was run before.
    pub(super) homes: Homes,
    pub(super) columns: Vec<Column>,
    /// The streams and processes that it reads.
    pub(super) reads: BTreeSet<String>,
    /// How its result is added to, or why it cannot be.
    pub(super) plan: Result<Plan, String>,
}

impl Compiled {
    pub(super) fn new(query: &str, catalogue: &dyn Catalogue) -> Result<Self, EngineError> {
        let parsed = sql::parse(query)?;
        let runnable = rewrite::rewrite(&parsed, catalogue)?;
        let columns = runnable.columns.ok_or_else(|| {
            EngineError::Invalid(
                "what a process keeps has names: write its columns in place of *".to_owned(),
            )
        })?;
        check_width(&columns)?;
        let plan = plan(&parsed, catalogue)?;
        let (query, homes) = (query.to_owned(), runnable.homes);
        Ok(Self { query, homes, columns, reads: runnable.reads, plan })
    }

    /// A process that was made earlier, with the columns that it has. If its query is no good any more, it
    /// stays as it is, with the reason, and can be changed and deleted.
    pub(super) fn stored(
        query: &str,
        columns: Vec<Column>,
        homes: Homes,
        catalogue: &dyn Catalogue,
    ) -> Result<(Self, Option<String>), EngineError> {
        let again = || {
            let mut parsed = sql::parse(query)?;
            parsed.homes.clone_from(&homes);
            let Runnable { columns: known, reads, .. } = rewrite::rewrite(&parsed, catalogue)?;
            let plan = plan(&parsed, catalogue)?;
            // What they are called is not changed, only what is known about them.
            let same = |known: &Vec<Column>| {
                known.iter().map(|it| &it.name).eq(columns.iter().map(|it| &it.name))
            };
            let columns = known.filter(same).unwrap_or_else(|| columns.clone());
            let (query, homes) = (query.to_owned(), homes.clone());
            Ok(Self { query, homes, columns, reads, plan })
        };
        match again() {
            Ok(compiled) => Ok((compiled, None)),
            Err(EngineError::Invalid(why)) => {
                let query = "SELECT NULL WHERE false".to_owned();
                let (reads, plan) = (BTreeSet::new(), Err("it cannot be run".to_owned()));
                Ok((Self { query, homes, columns, reads, plan }, Some(why)))
            }
            Err(error) => Err(error),
        }
    }

    /// Its query. Needs the stack for what was defined.
    pub(super) fn parsed(&self) -> Result<Parsed, EngineError> {
        Ok(Parsed { homes: self.homes.clone(), ..sql::parse(&self.query)? })
    }

    /// How its result is added to, if it can be.
    pub(super) fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref().ok()
    }

    pub(super) fn mode(&self) -> Mode {
        if self.plan.is_ok() { Mode::Incremental } else { Mode::Recomputed }
    }
}

/// How many columns a process may have: SQLite has 2,000 in a table, and in a result that names its rows besides.
const MOST_COLUMNS: usize = 1_900;

/// Checks that the rows of a process fit in a table.
pub(super) fn check_width(columns: &[Column]) -> Result<(), EngineError> {
    if columns.len() > MOST_COLUMNS {
        return Err(EngineError::Invalid(format!("a process has at most {MOST_COLUMNS} columns")));
    }
    Ok(())
}

/// How the result of a query is added to, or why it cannot be.
fn plan(parsed: &Parsed, catalogue: &dyn Catalogue) -> Result<Result<Plan, String>, EngineError> {
    Ok(match Plan::new(parsed, Dialect::Sqlite) {
        Ok(plan) => match catalogue.relation(plan.stream())? {
            Relation::Stream { .. } => Ok(plan),
            Relation::Process { .. } => Err("it reads another process".to_owned()),
        },
        Err(why) => Err(why),
    })
}
