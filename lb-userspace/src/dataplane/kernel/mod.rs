//! The datapath in the kernel: an XDP program on each uplink and its maps.

mod attach;
mod events;
mod holder;
pub(crate) mod maps;
mod own;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use lb_common::address::Address;
use tracing::warn;

use self::attach::Attached;
use self::maps::Maps;
use super::image::{Image, Numbers};
use crate::config::Settings;
use crate::engine::boundary::{
    Attachment, Counters, Dataplane, DataplaneError, MapMemory, Published, TablePublished,
};
use crate::engine::paths::Paths;
use crate::epochs::{Leaving, PoolTable, Tables};
use crate::model::Model;

/// Loads the program and attaches it to the configured interfaces. Nothing is forwarded before the first publish.
pub fn attach(settings: &Settings) -> Result<Box<dyn Dataplane>, DataplaneError> {
    let (maps, attached) = attach::load_and_attach(settings, |object| {
        let mut maps = Maps::take(object)?;
        maps.set_tunnel_sources(&settings.tunnel_sources)?;
        Ok(maps)
    })?;
    Ok(Box::new(KernelDataplane {
        attached,
        maps,
        numbers: Numbers::new(),
        sources: settings.source.clone(),
        model: Model::default(),
        leaving: Leaving::new(),
        paths: Paths::new(),
        image: Image::default(),
        tables: Tables::new(),
    }))
}

struct KernelDataplane {
    /// Programs stay attached for as long as this lives.
    attached: Attached,
    maps: Maps,
    numbers: Numbers,
    sources: Vec<IpAddr>,
    model: Model,
    leaving: Leaving,
    paths: Paths,
    /// What the maps hold now, rows apart.
    image: Image,
    /// The live tables.
    tables: Tables,
}

impl KernelDataplane {
    /// Swaps in a table; no packet sees a mixture of it and its predecessor.
    fn publish_table(
        &mut self,
        pool: &str,
        table: &Arc<PoolTable>,
    ) -> Result<TablePublished, DataplaneError> {
        let started = Instant::now();
        let numbers = &self.numbers;
        let handle = |address: Address| {
            let handle = numbers.backends.get(&(pool.to_owned(), address.to_ip())).unwrap_or(0);
            u16::try_from(handle).unwrap_or(0)
        };
        let index = numbers.tables.get(&pool.to_owned()).unwrap_or(0);
        self.maps.swap_table(index, &table.rows(handle))?;
        self.tables.insert(pool.to_owned(), Arc::clone(table));
        Ok(TablePublished {
            pool: pool.to_owned(),
            build: table.build,
            publish: started.elapsed(),
            moved_rows: table.moved_rows,
        })
    }

    /// In the order in which no packet meets a reference to something that is not there: what is pointed to comes
    /// before what points, and goes after it.
    fn try_publish(&mut self, tables: &Tables, next: &Image) -> Result<Published, DataplaneError> {
        self.maps.write_next_hops(&self.image.next_hops, &next.next_hops)?;
        self.maps.write_backends(&self.image.backends, &next.backends)?;
        let mut published = Published::default();
        for (pool, table) in tables {
            if !self.tables.get(pool).is_some_and(|live| Arc::ptr_eq(live, table)) {
                published.tables.push(self.publish_table(pool, table)?);
            }
        }
        self.maps.write_vips(&self.image, next)?;
        self.maps.clear_backends(&self.image.backends, &next.backends)?;
        self.tables.retain(|pool, _| tables.contains_key(pool));
        Ok(published)
    }

    /// Puts the maps back after a publication that failed half-way.
    fn roll_back(&mut self, before: &Tables, next: &Image) {
        let image = self.image.clone();
        // The maps hold something between the two images: write over both.
        let mut between = image.clone();
        between.next_hops.extend(next.next_hops.iter().map(|(index, entry)| (*index, *entry)));
        between.backends.extend(next.backends.iter().map(|(handle, entry)| (*handle, *entry)));
        between.vips.extend(next.vips.iter().map(|(key, entry)| (*key, *entry)));
        self.image = between;
        if let Err(error) = self.try_publish(before, &image) {
            warn!(error = %crate::engine::chain(&error), "the previous state could not be written back in full");
        }
        self.image = image;
    }
}

impl Dataplane for KernelDataplane {
    fn publish(
        &mut self,
        model: &Model,
        tables: &Tables,
        leaving: &Leaving,
    ) -> Result<Published, DataplaneError> {
        own::refuse(model)?;
        let before = self.tables.clone();
        let recycled = self.numbers.assign(model, tables, &before)?;
        self.maps.zero_counters(&recycled)?;
        let next = self.numbers.image(model, leaving, &self.paths, &self.sources)?;
        match self.try_publish(tables, &next) {
            Ok(published) => {
                self.model = model.clone();
                self.leaving = leaving.clone();
                self.image = next;
                Ok(published)
            }
            Err(error) => {
                self.roll_back(&before, &next);
                Err(error)
            }
        }
    }

    fn set_paths(&mut self, paths: &Paths) -> Result<(), DataplaneError> {
        let next = self.numbers.image(&self.model, &self.leaving, paths, &self.sources)?;
        self.maps.write_next_hops(&self.image.next_hops, &next.next_hops)?;
        self.maps.write_backends(&self.image.backends, &next.backends)?;
        self.image = next;
        self.paths = paths.clone();
        Ok(())
    }

    fn counters(&self) -> Result<Counters, DataplaneError> {
        let mut counters = Counters { reasons: self.maps.reasons()?, ..Counters::default() };
        for vip in self.model.vips().keys() {
            if let Some(index) = self.numbers.vips.get(vip) {
                counters.vips.insert(vip.clone(), self.maps.vip_count(index)?);
            }
        }
        for (pool, table) in &self.tables {
            for address in table.members.keys() {
                let name = (pool.clone(), *address);
                if let Some(handle) = self.numbers.backends.get(&name) {
                    counters.backends.insert(name, self.maps.backend_count(handle)?);
                }
            }
        }
        Ok(counters)
    }

    fn attachments(&self) -> Vec<Attachment> {
        self.attached.attachments()
    }

    fn memory(&self) -> Vec<MapMemory> {
        let rows: Vec<u64> = self.model.pools().values().map(|pool| u64::from(pool.rows())).collect();
        maps::memory(&rows)
    }
}
