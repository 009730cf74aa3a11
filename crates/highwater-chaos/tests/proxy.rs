//! The proxy does what it is told, and the same for the same seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use highwater_chaos::{Faults, Proxy};

/// A server that says back what it hears.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut out = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut &stream, &mut out);
                let _ = out.shutdown(Shutdown::Write);
            });
        }
    });
    addr
}

fn through(faults: Faults, seed: u64) -> Proxy {
    Proxy::start(([127, 0, 0, 1], 0).into(), echo(), faults, seed).unwrap()
}

/// What comes back of ten thousand bytes, or the kind of error.
fn say(proxy: &Proxy) -> Result<Vec<u8>, std::io::ErrorKind> {
    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let data: Vec<u8> = (0..10_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut back = Vec::new();
    let mut run = || {
        stream.write_all(&data)?;
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(&mut back)
    };
    run().map_err(|error| error.kind())?;
    Ok(back)
}

fn all(chance: &str) -> Faults {
    let mut faults = Faults { within: 5_000, ..Faults::default() };
    match chance {
        "reset" => faults.reset = 1.0,
        "half_close" => faults.half_close = 1.0,
        "corrupt" => faults.corrupt = 1.0,
        "blackhole" => faults.blackhole = 1.0,
        _ => {}
    }
    faults
}

#[test]
fn without_faults_everything_passes() {
    let proxy = through(all(""), 1);
    let back = say(&proxy).unwrap();
    assert_eq!(back.len(), 10_000);
    assert!(back.iter().enumerate().all(|(at, byte)| at.to_le_bytes()[0] == *byte));
}

#[test]
fn each_fault_shows() {
    let proxy = through(all("reset"), 1);
    assert!(say(&proxy).is_err());
    assert!(proxy.counts().summary().contains("1 reset"));
    let back = say(&through(all("half_close"), 1)).unwrap();
    assert!(back.len() < 10_000);
    let back = say(&through(all("corrupt"), 1)).unwrap();
    let wrong = back.iter().enumerate().filter(|(at, byte)| at.to_le_bytes()[0] != **byte).count();
    assert_eq!((back.len(), wrong), (10_000, 1));
    let error = say(&through(all("blackhole"), 1)).unwrap_err();
    assert!(matches!(error, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{error:?}");
}

#[test]
fn delay_and_bandwidth_take_their_time() {
    let slow = Faults { delay: Duration::from_millis(60), ..Faults::default() };
    let began = Instant::now();
    say(&through(slow, 1)).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(120));
    let narrow = Faults { bandwidth: Some(50_000), ..Faults::default() };
    let began = Instant::now();
    say(&through(narrow, 1)).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[test]
fn the_same_seed_gives_the_same_fates() {
    let fates = |seed| -> Vec<bool> {
        let proxy = through(Faults { corrupt: 0.5, within: 5_000, ..Faults::default() }, seed);
        let intact = |back: Vec<u8>| back.iter().enumerate().all(|(at, byte)| at.to_le_bytes()[0] == *byte);
        (0..12).map(|_| intact(say(&proxy).unwrap())).collect()
    };
    assert_eq!(fates(3), fates(3));
    assert_ne!(fates(3), fates(4));
}

#[test]
fn nobody_behind_it_is_a_connection_that_ends() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], 0).into(), nobody, Faults::default(), 1).unwrap();
    assert!(say(&proxy).map_or(true, |back| back.is_empty()));
}
