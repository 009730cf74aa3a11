//! One connection: two directions, each with a thread, and what strikes one of them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Counts, Fate, Faults, Random};

/// A direction that is swallowed is held open for so long at most.
const SWALLOWED: Duration = Duration::from_secs(120);

/// What strikes a direction, and where.
#[derive(Debug, Clone, Copy)]
struct Strike {
    fate: Fate,
    at: u64,
}

fn fate(faults: &Faults, random: &mut Random) -> Strike {
    let chances = [
        (Fate::Reset, faults.reset),
        (Fate::HalfClose, faults.half_close),
        (Fate::Corrupt, faults.corrupt),
        (Fate::Blackhole, faults.blackhole),
    ];
    let fate =
        chances.into_iter().find(|(_, chance)| random.happens(*chance)).map_or(Fate::None, |(fate, _)| fate);
    let at = random.below(faults.within);
    Strike { fate, at: if fate == Fate::Corrupt { faults.corrupt_after + at } else { at } }
}

/// Lets both sides talk, as far as the faults allow.
pub(crate) fn join(
    client: TcpStream,
    server: TcpStream,
    faults: &Faults,
    mut random: Random,
    counts: &Arc<Counts>,
) {
    let strike = fate(faults, &mut random);
    let up = random.below(2) == 0;
    let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
    let nothing = Strike { fate: Fate::None, at: 0 };
    for (from, to, struck) in [(client, server, up), (server_too, client_too, !up)] {
        let pump = Pump {
            from,
            to,
            faults: faults.clone(),
            strike: if struck { strike } else { nothing },
            random: Random::new(random.next()),
            counts: Arc::clone(counts),
            passed: 0,
        };
        // Without a thread the connection just ends.
        let _ = std::thread::Builder::new().name("chaos-pump".to_owned()).spawn(move || pump.run());
    }
}

/// Ends a connection with RST.
pub(crate) fn reset(stream: &TcpStream) {
    // Best effort: whatever fails here, the connection ends.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    // The other direction's thread still holds the socket, so closing it is not enough, and a shutdown is no RST.
    if rustix::net::connect_unspec(stream).is_err() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

struct Pump {
    from: TcpStream,
    to: TcpStream,
    faults: Faults,
    strike: Strike,
    random: Random,
    counts: Arc<Counts>,
    passed: u64,
}

impl Pump {
    fn run(mut self) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = match self.from.read(&mut buffer) {
                Ok(0) => {
                    let _ = self.to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(read) => read,
                Err(_) => return reset(&self.to),
            };
            let Some(bytes) = buffer.get_mut(..read) else { return };
            self.wait(read);
            let end = self.passed + read as u64;
            if self.strike.fate != Fate::None && self.strike.at < end {
                let before = usize::try_from(self.strike.at.saturating_sub(self.passed)).unwrap_or(0);
                if !self.struck(bytes, before) {
                    return;
                }
            }
            self.passed = end;
            if self.to.write_all(bytes).is_err() {
                return reset(&self.from);
            }
        }
    }

    /// What strikes at this byte of what was read. `false`: this direction is at its end.
    fn struck(&mut self, bytes: &mut [u8], at: usize) -> bool {
        self.counts.add(self.strike.fate);
        let began = Instant::now();
        let before = bytes.get(..at).unwrap_or_default();
        match self.strike.fate {
            Fate::None => return true,
            Fate::Corrupt => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.random.below(8);
                }
                self.strike.fate = Fate::None;
                return true;
            }
            Fate::Reset => {
                let _ = self.to.write_all(before);
                reset(&self.to);
                reset(&self.from);
            }
            Fate::HalfClose => {
                let _ = self.to.write_all(before);
                let _ = self.to.shutdown(Shutdown::Write);
                self.swallow();
            }
            Fate::Blackhole => {
                let _ = self.to.write_all(before);
                self.swallow();
                // Not even the end is told.
                std::thread::sleep(SWALLOWED.saturating_sub(began.elapsed()));
                reset(&self.to);
            }
        }
        false
    }

    /// Reads on and forgets, so that the sender believes that all is well.
    fn swallow(&mut self) {
        let began = Instant::now();
        let mut buffer = vec![0; 16 << 10];
        let _ = self.from.set_read_timeout(Some(SWALLOWED));
        while began.elapsed() < SWALLOWED && matches!(self.from.read(&mut buffer), Ok(read) if read > 0) {}
    }

    fn wait(&mut self, bytes: usize) {
        let jitter = u64::try_from(self.faults.jitter.as_micros()).unwrap_or(u64::MAX);
        let mut wait = self.faults.delay + Duration::from_micros(self.random.below(jitter));
        if let Some(rate) = self.faults.bandwidth.filter(|rate| *rate > 0) {
            wait += Duration::from_micros(bytes as u64 * 1_000_000 / rate);
        }
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }
}
