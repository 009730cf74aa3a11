//! What the machine needs for the least that has to be done.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// How much is read and written at once.
const PIECE: usize = 1 << 20;

/// Milliseconds since then.
pub(crate) fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

/// Milliseconds to copy a file and make the copy durable. The copy is removed.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<f64> {
    let mut buffer = vec![0; PIECE];
    let began = Instant::now();
    let (mut source, mut copy) = (File::open(from)?, File::create(to)?);
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        copy.write_all(buffer.get(..count).unwrap_or_default())?;
    }
    copy.sync_all()?;
    let took = ms(began);
    drop(copy);
    std::fs::remove_file(to)?;
    Ok(took)
}

/// Milliseconds to read a file once.
pub(crate) fn read(path: &Path) -> Result<f64> {
    let mut buffer = vec![0; PIECE];
    let began = Instant::now();
    let mut source = File::open(path)?;
    while source.read(&mut buffer)? > 0 {}
    Ok(ms(began))
}

/// Milliseconds of a bare round trip of HTTP, on a connection that is open already.
pub(crate) fn round_trip(server: SocketAddr, times: usize) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    let mut answer = [0; 4096];
    let mut all = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n")?;
        let count = stream.read(&mut answer)?;
        all.push(ms(began));
        let answer = answer.get(..count).context("a read within its buffer")?;
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "the server is not well");
    }
    Ok(all)
}
