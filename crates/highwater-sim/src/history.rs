//! The history checker: from what devices wrote, were told and saw, whether anything was lost, doubled, reordered,
//! torn or made up. It knows nothing of how the history came about.
//!
//! | rule | a history that breaks it |
//! |---|---|
//! | what is acknowledged is seen by every sync that begins later | [`Broken::Lost`] |
//! | what a device committed stays in its own copy | [`Broken::Lost`] |
//! | what a copy has shown once, it shows ever after | [`Broken::WentBack`] |
//! | every transaction is seen once | [`Broken::Doubled`] |
//! | a writer's transactions are seen in its order | [`Broken::Reordered`] |
//! | if one is seen, so are all earlier ones of its writer | [`Broken::Gap`] |
//! | a transaction is seen whole | [`Broken::Torn`] |
//! | nothing is seen that nobody committed | [`Broken::Invented`] |

use std::collections::{BTreeMap, BTreeSet};

/// A transaction: the number of the device that committed it, and which of its transactions it is, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tx {
    /// Who committed it.
    pub device: u64,
    /// The how-many-th it is.
    pub number: u64,
}

/// A transaction as a reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub tx: Tx,
    /// How many rows it says that it has.
    pub rows: u64,
    /// How many there are.
    pub found: u64,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A device's own SQLite said that a transaction is committed.
    Committed(Tx),
    /// A device begins a sync.
    Began {
        /// Which device.
        device: u64,
    },
    /// A sync succeeded: everything that its device had committed when it began is acknowledged.
    Acked {
        /// Which device.
        device: u64,
    },
    /// Somebody read a whole copy, in the order of its rows.
    Read {
        /// Whose copy.
        device: u64,
        /// Everything in it.
        seen: Vec<Seen>,
    },
}

/// What is wrong with a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// A transaction is missing.
    Lost(Tx),
    /// A transaction was there and is not any more.
    WentBack(Tx),
    /// A transaction is there twice.
    Doubled(Tx),
    /// A transaction comes before an earlier one of its writer.
    Reordered(Tx),
    /// A transaction is there without the one before it.
    Gap(Tx),
    /// A transaction is there in part.
    Torn(Seen),
    /// A transaction is there that was never committed.
    Invented(Tx),
}

/// A broken rule, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The event.
    pub at: usize,
    /// Whose copy.
    pub reader: u64,
    /// What is wrong.
    pub what: Broken,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "event {}, the copy of device {}: {:?}", self.at, self.reader, self.what)
    }
}

/// A history that grows, and what is known from it.
#[derive(Debug, Default)]
pub struct History {
    events: usize,
    /// For each device: its transactions so far.
    committed: BTreeMap<u64, u64>,
    /// For each device: its transactions that are acknowledged.
    acked: BTreeMap<u64, u64>,
    readers: BTreeMap<u64, Reader>,
}

#[derive(Debug, Default)]
struct Reader {
    /// What its sync sends, and what was acknowledged when it began.
    sync: Option<(u64, BTreeMap<u64, u64>)>,
    /// What it must have seen of each writer.
    owed: BTreeMap<u64, u64>,
    /// What it has shown.
    shown: BTreeSet<Tx>,
}

impl History {
    /// Takes in an event.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn add(&mut self, event: &Event) -> Result<(), Violation> {
        self.events += 1;
        match event {
            Event::Committed(tx) => drop(self.committed.insert(tx.device, tx.number)),
            Event::Began { device } => {
                let own = self.committed.get(device).copied().unwrap_or(0);
                let known = self.acked.clone();
                self.readers.entry(*device).or_default().sync = Some((own, known));
            }
            Event::Acked { device } => {
                let reader = self.readers.entry(*device).or_default();
                if let Some((own, known)) = reader.sync.take() {
                    reader.owed.extend(known);
                    let acked = self.acked.entry(*device).or_default();
                    *acked = own.max(*acked);
                }
            }
            Event::Read { device, seen } => {
                let (at, reader) = (self.events - 1, *device);
                self.read(reader, seen).map_err(|what| Violation { at, reader, what })?;
            }
        }
        Ok(())
    }

    /// Judges what a copy shows.
    fn read(&mut self, device: u64, seen: &[Seen]) -> Result<(), Broken> {
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        let mut now = BTreeSet::new();
        for seen in seen {
            let tx = seen.tx;
            if seen.rows != seen.found {
                return Err(Broken::Torn(*seen));
            }
            if tx.number == 0 || tx.number > self.committed.get(&tx.device).copied().unwrap_or(0) {
                return Err(Broken::Invented(tx));
            }
            if !now.insert(tx) {
                return Err(Broken::Doubled(tx));
            }
            let last = last.entry(tx.device).or_default();
            if tx.number < *last {
                return Err(Broken::Reordered(tx));
            }
            if tx.number != *last + 1 {
                return Err(Broken::Gap(tx));
            }
            *last = tx.number;
        }
        let reader = self.readers.entry(device).or_default();
        if let Some(gone) = reader.shown.difference(&now).next() {
            return Err(Broken::WentBack(*gone));
        }
        let own = self.committed.get(&device).map(|own| (device, *own));
        for (writer, owed) in reader.owed.clone().into_iter().chain(own) {
            let number = last.get(&writer).copied().unwrap_or(0);
            if number < owed {
                return Err(Broken::Lost(Tx { device: writer, number: number + 1 }));
            }
        }
        reader.shown = now;
        Ok(())
    }
}

/// Judges a whole history.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(events: &[Event]) -> Result<(), Violation> {
    let mut history = History::default();
    events.iter().try_for_each(|event| history.add(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u64 = 1;
    const B: u64 = 2;

    fn tx(device: u64, number: u64) -> Tx {
        Tx { device, number }
    }

    fn whole(device: u64, number: u64) -> Seen {
        Seen { tx: tx(device, number), rows: 3, found: 3 }
    }

    fn read(device: u64, seen: &[Seen]) -> Event {
        Event::Read { device, seen: seen.to_vec() }
    }

    /// A writes twice and syncs; B writes once, syncs, and sees everything.
    fn good() -> Vec<Event> {
        vec![
            Event::Committed(tx(A, 1)),
            Event::Committed(tx(A, 2)),
            Event::Began { device: A },
            Event::Acked { device: A },
            read(A, &[whole(A, 1), whole(A, 2)]),
            Event::Committed(tx(B, 1)),
            Event::Began { device: B },
            Event::Acked { device: B },
            read(B, &[whole(A, 1), whole(B, 1), whole(A, 2)]),
        ]
    }

    fn last_read_is(seen: &[Seen]) -> Result<(), Broken> {
        let mut events = good();
        events.pop();
        events.push(read(B, seen));
        check(&events).map_err(|violation| violation.what)
    }

    #[test]
    fn a_history_without_faults_is_good() {
        assert_eq!(check(&good()), Ok(()));
    }

    #[test]
    fn an_acknowledged_write_that_is_missing_is_found() {
        assert_eq!(last_read_is(&[whole(A, 1), whole(B, 1)]), Err(Broken::Lost(tx(A, 2))));
        assert_eq!(last_read_is(&[]), Err(Broken::Lost(tx(A, 1))));
    }

    #[test]
    fn a_write_of_ones_own_that_is_missing_is_found() {
        assert_eq!(last_read_is(&[whole(A, 1), whole(A, 2)]), Err(Broken::Lost(tx(B, 1))));
    }

    #[test]
    fn a_write_that_is_there_twice_is_found() {
        let seen = [whole(A, 1), whole(A, 2), whole(B, 1), whole(A, 2)];
        assert_eq!(last_read_is(&seen), Err(Broken::Doubled(tx(A, 2))));
    }

    #[test]
    fn writes_in_another_order_and_with_one_left_out_are_found() {
        let seen = [whole(A, 2), whole(A, 1), whole(B, 1)];
        assert_eq!(last_read_is(&seen), Err(Broken::Gap(tx(A, 2))));
        let mut events = good();
        events.extend([Event::Committed(tx(A, 3)), Event::Committed(tx(A, 4))]);
        events.push(read(B, &[whole(A, 1), whole(A, 2), whole(A, 4), whole(B, 1)]));
        assert_eq!(check(&events).unwrap_err().what, Broken::Gap(tx(A, 4)));
    }

    #[test]
    fn a_write_that_comes_again_after_later_ones_is_found() {
        let mut events = good();
        events.push(Event::Committed(tx(A, 3)));
        let seen = [whole(A, 1), whole(A, 2), whole(A, 3), whole(B, 1), whole(A, 2)];
        events.push(read(B, &seen));
        assert_eq!(check(&events).unwrap_err().what, Broken::Doubled(tx(A, 2)));
    }

    #[test]
    fn half_a_transaction_is_found() {
        let torn = Seen { tx: tx(A, 2), rows: 3, found: 2 };
        assert_eq!(last_read_is(&[whole(A, 1), torn, whole(B, 1)]), Err(Broken::Torn(torn)));
        let more = Seen { tx: tx(A, 2), rows: 3, found: 6 };
        assert_eq!(last_read_is(&[whole(A, 1), more, whole(B, 1)]), Err(Broken::Torn(more)));
    }

    #[test]
    fn a_write_that_nobody_made_is_found() {
        let seen = [whole(A, 1), whole(A, 2), whole(A, 3), whole(B, 1)];
        assert_eq!(last_read_is(&seen), Err(Broken::Invented(tx(A, 3))));
    }

    #[test]
    fn a_copy_that_goes_back_is_found_even_if_nothing_of_it_was_acknowledged() {
        let mut events = vec![Event::Committed(tx(A, 1))];
        events.extend([Event::Began { device: A }, read(B, &[whole(A, 1)]), read(B, &[])]);
        assert_eq!(check(&events).unwrap_err().what, Broken::WentBack(tx(A, 1)));
    }

    #[test]
    fn what_is_acknowledged_while_a_sync_runs_need_not_be_seen_by_it() {
        let mut events = vec![Event::Began { device: B }, Event::Committed(tx(A, 1))];
        events.extend([Event::Began { device: A }, Event::Acked { device: A }, Event::Acked { device: B }]);
        events.push(read(B, &[]));
        assert_eq!(check(&events), Ok(()));
        events.extend([Event::Began { device: B }, Event::Acked { device: B }, read(B, &[])]);
        assert_eq!(check(&events).unwrap_err().what, Broken::Lost(tx(A, 1)));
    }

    #[test]
    fn what_is_written_while_a_sync_runs_is_not_acknowledged_by_it() {
        let mut events = vec![Event::Began { device: A }, Event::Committed(tx(A, 1))];
        events.extend([Event::Acked { device: A }, Event::Began { device: B }, Event::Acked { device: B }]);
        events.push(read(B, &[]));
        assert_eq!(check(&events), Ok(()));
    }
}
