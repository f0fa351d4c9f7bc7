//! The changes made at run time, on top of the configuration file. Pure.

use std::net::IpAddr;

use crate::model::{Change, Model, Refusal};

/// Run-time changes in the order they were made, without those that a later one made pointless.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    changes: Vec<Change>,
}

/// A base model with an overlay on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    pub model: Model,
    /// The changes that are in `model`.
    pub overlay: Overlay,
    /// The changes that the base, which may have been edited since, does not take any more.
    pub kept_out: Vec<KeptOut>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptOut {
    pub change: Change,
    pub refusal: Refusal,
}

impl Overlay {
    pub fn new(changes: Vec<Change>) -> Self {
        Self { changes }
    }

    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Applies the changes to the model of the configuration file.
    pub fn replay(&self, base: &Model) -> Replay {
        let mut replay = Replay { model: base.clone(), overlay: Self::default(), kept_out: Vec::new() };
        for change in &self.changes {
            match replay.model.apply(change) {
                Ok(model) => {
                    replay.model = model;
                    replay.overlay.changes.push(change.clone());
                }
                Err(refusal) => replay.kept_out.push(KeptOut { change: change.clone(), refusal }),
            }
        }
        replay
    }

    /// This overlay and one more change, which `base` with this overlay takes.
    ///
    /// A later value replaces an earlier one, and removing what the overlay itself added cancels both. Where the
    /// shorter list would not lead to the same model (a backend can only leave while another is there), the
    /// change is appended as it is.
    #[must_use]
    pub fn with(&self, base: &Model, change: &Change) -> Self {
        let mut appended = self.clone();
        appended.changes.push(change.clone());
        let folded = Self { changes: fold(&self.changes, change) };
        let (long, short) = (appended.replay(base), folded.replay(base));
        let same = short.kept_out.is_empty() && short.model == long.model;
        if same { folded } else { appended }
    }
}

/// `earlier` with `change` folded in.
fn fold(earlier: &[Change], change: &Change) -> Vec<Change> {
    let subject = subject(change);
    // What happened to the subject since it last came or went.
    let since = earlier
        .iter()
        .rposition(|earlier| adds_or_removes(earlier) && self::subject(earlier) == subject)
        .unwrap_or(0);
    let added_here = earlier.get(since).is_some_and(|first| adds(first) && self::subject(first) == subject);
    let mut list: Vec<Change> = earlier.to_vec();
    match change {
        Change::AddVip { .. } | Change::AddBackend { .. } => list.push(change.clone()),
        Change::RemoveVip { .. } | Change::RemoveBackend { .. } => {
            let mut index = 0;
            list.retain(|earlier| {
                let stays = index < since || self::subject(earlier) != subject || removes(earlier);
                index += 1;
                stays
            });
            if !added_here {
                list.push(change.clone());
            }
        }
        Change::SetWeight { weight, .. } => {
            if let (true, Some(Change::AddBackend { backend, .. })) = (added_here, list.get_mut(since)) {
                backend.weight = *weight;
            } else {
                replace_or_push(&mut list, since, change);
            }
        }
        Change::SetAdmin { state, .. } => {
            if let (true, Some(Change::AddBackend { backend, .. })) = (added_here, list.get_mut(since)) {
                backend.admin = *state;
            } else {
                replace_or_push(&mut list, since, change);
            }
        }
    }
    list
}

/// Puts `change` in the place of the last one of its kind about the same subject, or at the end.
fn replace_or_push(list: &mut Vec<Change>, since: usize, change: &Change) {
    let kind = std::mem::discriminant(change);
    let same =
        |earlier: &Change| std::mem::discriminant(earlier) == kind && subject(earlier) == subject(change);
    match list.iter().skip(since).rposition(same) {
        Some(place) => list[since + place] = change.clone(),
        None => list.push(change.clone()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Subject<'a> {
    Vip(&'a str),
    Backend(&'a str, IpAddr),
}

fn subject(change: &Change) -> Subject<'_> {
    match change {
        Change::AddVip { vip } => Subject::Vip(&vip.name),
        Change::RemoveVip { name } => Subject::Vip(name),
        Change::AddBackend { pool, backend } => Subject::Backend(pool, backend.address),
        Change::RemoveBackend { pool, address }
        | Change::SetWeight { pool, address, .. }
        | Change::SetAdmin { pool, address, .. } => Subject::Backend(pool, *address),
    }
}

fn adds(change: &Change) -> bool {
    matches!(change, Change::AddVip { .. } | Change::AddBackend { .. })
}

fn removes(change: &Change) -> bool {
    matches!(change, Change::RemoveVip { .. } | Change::RemoveBackend { .. })
}

fn adds_or_removes(change: &Change) -> bool {
    adds(change) || removes(change)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{AdminState, Backend, Fleet, Pool, Protocol, Vip};

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 8, 11, last])
    }

    fn base() -> Model {
        let mut model = Model::new(Fleet::default());
        for (pool, members) in [("web", [1, 2].as_slice()), ("dns", &[3])] {
            let mut pool = Pool::named(pool);
            for last in members {
                pool.insert(Backend::new(address(*last), 10)).expect("a fine backend");
            }
            model.insert_pool(pool).expect("a fine pool");
        }
        model.insert_vip(vip("web4", 80)).expect("a fine VIP");
        model
    }

    fn vip(name: &str, port: u16) -> Vip {
        let address = IpAddr::from([203, 0, 113, 10]);
        Vip { name: name.to_owned(), address, protocol: Protocol::Tcp, port, pool: "web".to_owned() }
    }

    fn weight(last: u8, weight: u16) -> Change {
        Change::SetWeight { pool: "web".to_owned(), address: address(last), weight }
    }

    fn add(last: u8) -> Change {
        Change::AddBackend { pool: "web".to_owned(), backend: Backend::new(address(last), 1) }
    }

    fn remove(last: u8) -> Change {
        Change::RemoveBackend { pool: "web".to_owned(), address: address(last) }
    }

    fn folded(changes: &[Change]) -> Vec<Change> {
        let base = base();
        changes.iter().fold(Overlay::default(), |overlay, change| overlay.with(&base, change)).changes
    }

    #[test]
    fn a_later_weight_replaces_an_earlier_one() {
        assert_eq!(folded(&[weight(1, 5), weight(2, 6), weight(1, 7)]), [weight(1, 7), weight(2, 6)]);
    }

    #[test]
    fn adding_and_removing_the_same_backend_cancel() {
        assert_eq!(folded(&[add(9), weight(9, 4), weight(1, 3), remove(9)]), [weight(1, 3)]);
    }

    #[test]
    fn a_removed_backend_of_the_file_stays_removed() {
        assert_eq!(folded(&[weight(1, 3), remove(1)]), [remove(1)]);
        assert_eq!(folded(&[remove(1), add(1), remove(1)]), [remove(1)]);
    }

    #[test]
    fn the_weight_of_an_added_backend_is_part_of_its_addition() {
        let heavy = Change::AddBackend { pool: "web".to_owned(), backend: Backend::new(address(9), 8) };
        assert_eq!(folded(&[add(9), weight(9, 8)]), [heavy]);
    }

    #[test]
    fn a_cancellation_that_would_empty_the_pool_on_the_way_is_not_made() {
        let moves = [remove(2), add(8), remove(1), add(9), remove(8)];
        let short = folded(&moves);
        let replay = Overlay::new(short).replay(&base());
        assert_eq!(replay.kept_out, []);
        let left: Vec<IpAddr> = replay.model.pools()["web"].backends.keys().copied().collect();
        assert_eq!(left, [address(9)]);
    }

    #[test]
    fn changes_that_the_base_no_longer_takes_are_kept_out_with_their_reason() {
        let overlay = Overlay::new(vec![weight(7, 3), weight(1, 3)]);
        let replay = overlay.replay(&base());
        assert_eq!(replay.overlay.changes(), [weight(1, 3)]);
        let [out] = replay.kept_out.as_slice() else { panic!("one change kept out: {replay:?}") };
        assert_eq!(out.change, weight(7, 3));
        assert!(out.refusal.to_string().contains("10.8.11.7"), "{}", out.refusal);
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let pool = prop_oneof![Just("web".to_owned()), Just("dns".to_owned())];
        let last = 1..=5_u8;
        prop_oneof![
            (pool.clone(), last.clone(), 1..4_u16).prop_map(|(pool, last, weight)| Change::AddBackend {
                pool,
                backend: Backend::new(address(last), weight),
            }),
            (pool.clone(), last.clone())
                .prop_map(|(pool, last)| Change::RemoveBackend { pool, address: address(last) }),
            (pool.clone(), last.clone(), 1..4_u16).prop_map(|(pool, last, weight)| Change::SetWeight {
                pool,
                address: address(last),
                weight,
            }),
            (pool, last, prop::sample::select(&AdminState::ALL[..]))
                .prop_map(|(pool, last, state)| { Change::SetAdmin { pool, address: address(last), state } }),
            (0..3_u8, 80..83_u16)
                .prop_map(|(name, port)| Change::AddVip { vip: vip(&format!("v{name}"), port) }),
            (0..3_u8).prop_map(|name| Change::RemoveVip { name: format!("v{name}") }),
        ]
    }

    proptest! {
        #[test]
        fn the_compacted_overlay_leads_to_the_same_model(changes in prop::collection::vec(any_change(), 0..40)) {
            let base = base();
            let mut model = base.clone();
            let mut overlay = Overlay::default();
            let mut taken = 0;
            for change in &changes {
                if let Ok(next) = model.apply(change) {
                    overlay = overlay.with(&base, change);
                    model = next;
                    taken += 1;
                }
            }
            let replay = overlay.replay(&base);
            prop_assert_eq!(&replay.kept_out, &[]);
            prop_assert_eq!(replay.model, model);
            prop_assert!(overlay.changes().len() <= taken);
        }
    }
}
