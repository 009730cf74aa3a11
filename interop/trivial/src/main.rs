//! The least server that answers libSQL's offline writes: what `interop/bench` compares Highwater with.
//!
//! One generation for each database, frames in memory, nothing checked, nothing durable. A push is
//! appended where it says it belongs. It answers what an honest server would answer to a client that
//! is never killed and never alone in a conflict; it is no server for anything else.
//!
//! `trivial-server [ADDRESS]` prints `{"listening": "http://…"}` and serves until it is killed.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// A frame of the write-ahead log: a header of 24 bytes and a page.
const FRAME: usize = 24 + 4096;

/// Whole frames of each database, by its path.
type Databases = Arc<Mutex<HashMap<String, Vec<u8>>>>;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("{{\"listening\": \"http://{}\"}}", listener.local_addr()?);
    let databases = Databases::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let databases = Arc::clone(&databases);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&databases), request));
            // A client that hangs up is no news.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    databases: Databases,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path: Vec<&str> = head.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let response = match (&head.method, path.as_slice()) {
        (&Method::GET, [_, "info"]) => json(StatusCode::OK, "{\"current_generation\":1}".to_owned()),
        (&Method::GET, [_, "export", _]) => Response::new(Full::default()),
        (&Method::GET, [name, "sync", _, start, end]) => pull(&databases, name, start, end),
        (&Method::POST, [name, "sync", _, start, end, ..]) => match body.collect().await {
            Ok(body) => push(&databases, name, start, end, &body.to_bytes()),
            Err(_) => json(StatusCode::BAD_REQUEST, "{}".to_owned()),
        },
        _ => json(StatusCode::NOT_FOUND, "{}".to_owned()),
    };
    Ok(response)
}

fn pull(databases: &Databases, name: &str, start: &str, end: &str) -> Response<Full<Bytes>> {
    let (Ok(start), Ok(end)) = (start.parse::<usize>(), end.parse::<usize>()) else {
        return json(StatusCode::NOT_FOUND, "{}".to_owned());
    };
    let databases = databases.lock().unwrap_or_else(PoisonError::into_inner);
    let frames = databases.get(name).map(Vec::as_slice).unwrap_or_default();
    let to = frames.len().min(end.saturating_sub(1) * FRAME);
    match frames.get(start.saturating_sub(1) * FRAME..to) {
        Some(frames) if !frames.is_empty() => Response::new(Full::new(Bytes::copy_from_slice(frames))),
        _ => json(StatusCode::BAD_REQUEST, "{\"generation\":1}".to_owned()),
    }
}

fn push(databases: &Databases, name: &str, start: &str, end: &str, body: &[u8]) -> Response<Full<Bytes>> {
    let (Ok(start), Ok(end)) = (start.parse::<usize>(), end.parse::<usize>()) else {
        return json(StatusCode::NOT_FOUND, "{}".to_owned());
    };
    let mut databases = databases.lock().unwrap_or_else(PoisonError::into_inner);
    let frames = databases.entry(name.to_owned()).or_default();
    let known = frames.len() / FRAME;
    if start.saturating_sub(1) > known {
        return json(StatusCode::OK, accepted(known));
    }
    frames.truncate(start.saturating_sub(1) * FRAME);
    frames.extend_from_slice(body);
    json(StatusCode::OK, accepted(end.saturating_sub(1)))
}

fn accepted(frames: usize) -> String {
    format!("{{\"status\":\"ok\",\"generation\":1,\"max_frame_no\":{frames},\"baton\":\"b\"}}")
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
