//! The definition that a table shall have, out of three.

use super::catalog::lower;
use super::lines::Track;
use super::text::{ColumnText, Definition, Names, same};

/// A definition, and where its columns come from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(super) definition: Definition,
    /// For each column the one of the head that it is now; none for a new one.
    pub(super) sources: Vec<Option<String>>,
    /// What local changed and the head changed otherwise, as ends of sentences.
    pub(super) lost: Vec<String>,
}

/// The three definitions. The head's is the present one, after columns were renamed in it.
pub(super) struct Three<'a> {
    pub(super) base: &'a Definition,
    pub(super) local: &'a Definition,
    pub(super) head: &'a Definition,
    /// Names of the table and of its columns that local changed.
    pub(super) local_names: &'a Names,
    /// The same of the head, those included that were just renamed in it.
    pub(super) head_names: &'a Names,
    /// The head had the base's definition.
    pub(super) untouched: bool,
}

fn column<'a>(side: &'a Definition, name: Option<&String>) -> Option<&'a ColumnText> {
    let name = lower(name?);
    side.columns.iter().find(|column| lower(&column.name) == name)
}

impl Three<'_> {
    /// Merges them.
    pub(super) fn wanted(&self, tracks: &[Track]) -> Wanted {
        if self.untouched {
            return self.as_local(tracks);
        }
        let mut wanted = Wanted::default();
        for column in &self.head.columns {
            let track = tracks
                .iter()
                .find(|track| track.head.as_ref().is_some_and(|head| lower(head) == lower(&column.name)));
            self.head_column(column, track, &mut wanted);
        }
        for track in tracks.iter().filter(|track| track.head.is_none()) {
            self.local_column(track, &mut wanted);
        }
        self.constraints(&mut wanted);
        wanted
    }

    /// The head has the base's definition: local's it shall be.
    fn as_local(&self, tracks: &[Track]) -> Wanted {
        let source = |column: &ColumnText| {
            let of = |track: &&Track| track.local.as_ref() == Some(&column.name);
            tracks.iter().find(of).and_then(|track| track.head.clone())
        };
        let sources = self.local.columns.iter().map(source).collect();
        Wanted { definition: self.local.clone(), sources, lost: Vec::new() }
    }

    fn head_column(&self, head: &ColumnText, track: Option<&Track>, wanted: &mut Wanted) {
        let base = track.and_then(|track| column(self.base, track.base.as_ref()));
        let local = track.and_then(|track| column(self.local, track.local.as_ref()));
        let mut merged = head.clone();
        match (base, local) {
            (Some(base), Some(local)) => {
                let by_local = !same(&base.rest, &local.rest, self.local_names);
                let by_head = !same(&base.rest, &head.rest, self.head_names);
                if by_local && !by_head {
                    merged.rest.clone_from(&local.rest);
                } else if by_local && !same(&local.rest, &head.rest, &Names::new()) {
                    wanted.lost.push(format!("both changed column {:?}", head.name));
                }
                let renamed = lower(&base.name) != lower(&local.name);
                if renamed && lower(&head.name) == lower(&base.name) {
                    merged.name.clone_from(&local.name);
                } else if renamed && lower(&head.name) != lower(&local.name) {
                    wanted
                        .lost
                        .push(format!("column {:?} is {:?} and {:?}", base.name, local.name, head.name));
                }
            }
            (Some(base), None) => {
                if same(&base.rest, &head.rest, self.head_names) {
                    return;
                }
                wanted.lost.push(format!("column {:?} was dropped there and changed here", head.name));
            }
            (None, Some(local)) if !same(&local.rest, &head.rest, &Names::new()) => {
                wanted.lost.push(format!("both added column {:?}, with different definitions", head.name));
            }
            (None, _) => {}
        }
        wanted.sources.push(Some(head.name.clone()));
        wanted.definition.columns.push(merged);
    }

    /// A column that the head lacks.
    fn local_column(&self, track: &Track, wanted: &mut Wanted) {
        let Some(local) = column(self.local, track.local.as_ref()) else { return };
        if let Some(base) = column(self.base, track.base.as_ref()) {
            let renamed = lower(&base.name) != lower(&local.name);
            if renamed || !same(&base.rest, &local.rest, self.local_names) {
                wanted.lost.push(format!("column {:?} was changed there and dropped here", base.name));
            }
        } else if column(self.head, track.local.as_ref()).is_some() {
            wanted.lost.push(format!("there is another column {:?}", local.name));
        } else {
            wanted.sources.push(None);
            wanted.definition.columns.push(local.clone());
        }
    }

    fn constraints(&self, wanted: &mut Wanted) {
        let Self { base, local, head, local_names, head_names, .. } = self;
        wanted.definition.constraints.clone_from(&head.constraints);
        if !base.same_constraints(local, local_names) {
            if base.same_constraints(head, head_names) {
                wanted.definition.constraints.clone_from(&local.constraints);
            } else if !local.same_constraints(head, &Names::new()) {
                wanted.lost.push("both changed its constraints".to_owned());
            }
        }
        let none = Names::new();
        wanted.definition.options.clone_from(&head.options);
        if !same(&base.options, &local.options, &none) {
            if same(&base.options, &head.options, &none) {
                wanted.definition.options.clone_from(&local.options);
            } else if !same(&local.options, &head.options, &none) {
                wanted.lost.push("both changed its options".to_owned());
            }
        }
    }
}
