//! Gives every row its owner, under a cap per member, and its standby.

use alloc::{vec, vec::Vec};

use super::{
    Member, NONE, RowMembers, TableSpec,
    hash::order_hash,
    rank::{Contender, Score, contenders},
};

/// Owner and standby of every row. `spec` must be checked: one member or more, no weight of 0, no address
/// twice.
pub(super) fn assign(spec: &TableSpec<'_>) -> Vec<RowMembers> {
    let mut room = caps(spec);
    let mut rows = vec![RowMembers { owner: NONE, standby: NONE }; spec.rows() as usize];
    let contenders = contenders(spec);
    for row in visiting_order(spec) {
        let members = Podium::of_row(spec.seed, row, &contenders, &room).members();
        // The caps add up to at least the number of rows, so every visit finds an owner with room.
        room[usize::from(members.owner)] -= 1;
        rows[row as usize] = members;
    }
    rows
}

/// Rows that each member may own: its exact share, stretched by the slack, rounded up.
fn caps(spec: &TableSpec<'_>) -> Vec<u32> {
    let total: u128 = spec.members.iter().map(|member| u128::from(member.weight)).sum();
    let stretched = u128::from(spec.rows()) * u128::from(1000 + u32::from(spec.slack_permille));
    let cap = |member: &Member| (stretched * u128::from(member.weight)).div_ceil(total * 1000);
    // At most 2^20 rows times 66.535: 27 bits.
    spec.members.iter().map(|member| cap(member) as u32).collect()
}

/// All rows by ascending (order hash, row).
///
/// A late row finds more members full. In plain order that would always be the same end of the table, and a
/// change of caps would move a stretch of neighbouring rows.
pub(super) fn visiting_order(spec: &TableSpec<'_>) -> impl Iterator<Item = u32> + use<> {
    let mut order: Vec<_> = (0..spec.rows()).map(|row| (order_hash(spec.seed, row), row)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, row)| row)
}

/// The three places of one row that matter, found in a single pass over the contenders.
#[derive(Default)]
struct Podium {
    /// Best by rank alone.
    first: Option<Place>,
    /// Second by rank alone.
    second: Option<Place>,
    /// Best of the members that have room.
    open: Option<Place>,
}

#[derive(Clone, Copy)]
struct Place {
    score: Score,
    member: u16,
}

impl Podium {
    fn of_row(seed: u64, row: u32, contenders: &[Contender], room: &[u32]) -> Self {
        let mut podium = Self::default();
        for contender in contenders {
            let place = Place { score: Score::new(contender, seed, row), member: contender.number };
            podium.enter(place, room);
        }
        podium
    }

    /// Contenders enter by ascending address, so on a tie whoever is there keeps the place.
    #[inline]
    fn enter(&mut self, place: Place, room: &[u32]) {
        if place.beats(self.second.as_ref()) {
            if place.beats(self.first.as_ref()) {
                self.second = self.first.replace(place);
            } else {
                self.second = Some(place);
            }
        }
        if place.beats(self.open.as_ref()) && room[usize::from(place.member)] > 0 {
            self.open = Some(place);
        }
    }

    fn members(&self) -> RowMembers {
        let number = |place: Option<Place>| place.map_or(NONE, |place| place.member);
        let (first, owner) = (number(self.first), number(self.open));
        let standby = if owner == first { number(self.second) } else { first };
        RowMembers { owner, standby }
    }
}

impl Place {
    #[inline]
    fn beats(&self, holder: Option<&Self>) -> bool {
        holder.is_none_or(|holder| self.score.beats(&holder.score))
    }
}
