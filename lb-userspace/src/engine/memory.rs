//! A datapath without a kernel: tables are kept, nothing is forwarded.
//!
//! It answers "which backend would it be" on a machine that is no load balancer, and it is the engine's
//! partner in tests.

use std::sync::Arc;
use std::time::Duration;

use super::boundary::{
    Attachment, Counters, Dataplane, DataplaneError, MapMemory, Published, TablePublished,
};
use super::paths::Paths;
use crate::epochs::{Leaving, Tables};
use crate::model::Model;

#[derive(Debug, Default)]
pub struct MemoryDataplane {
    tables: Tables,
    paths: Paths,
    counters: Counters,
}

impl MemoryDataplane {
    /// The next hops it was last given.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// What was last published.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }
}

impl Dataplane for MemoryDataplane {
    fn publish(
        &mut self,
        _model: &Model,
        tables: &Tables,
        _leaving: &Leaving,
    ) -> Result<Published, DataplaneError> {
        let live = |pool: &String| self.tables.get(pool);
        let changed =
            tables.iter().filter(|(pool, table)| live(pool).is_none_or(|live| !Arc::ptr_eq(live, table)));
        let published = changed
            .map(|(pool, table)| TablePublished {
                pool: pool.clone(),
                build: table.build,
                publish: Duration::ZERO,
                moved_rows: table.moved_rows,
            })
            .collect();
        self.tables.clone_from(tables);
        Ok(Published { tables: published })
    }

    fn set_paths(&mut self, paths: &Paths) -> Result<(), DataplaneError> {
        self.paths.clone_from(paths);
        Ok(())
    }

    fn counters(&self) -> Result<Counters, DataplaneError> {
        Ok(self.counters.clone())
    }

    fn attachments(&self) -> Vec<Attachment> {
        Vec::new()
    }

    fn memory(&self) -> Vec<MapMemory> {
        Vec::new()
    }
}
