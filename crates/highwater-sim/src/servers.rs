//! The servers: the real router on a store with faults, and how they stop and start.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use highwater::simulation::{Answered, Asked, Unanswered};
use highwater_auth::{Access, Claims, SigningKey, Timestamp};
use highwater_server::{AuthConfig, Clock, Config, Limits, MergeConfig, Server, SnapshotPolicy, Store};
use highwater_wire::MergePolicy;
use object_store::memory::InMemory;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::plan::Plan;
use crate::store::Door;
use crate::world::{World, lock};

/// How long a client waits for a server that says nothing.
const PATIENCE: Duration = Duration::from_secs(120);

/// For so long after its end a token may still be taken, for clocks differ.
const GRACE: Duration = Duration::from_secs(60);

/// A server that lives.
#[derive(Debug, Clone)]
struct Live {
    server: Server,
    router: axum::Router,
    shut: Arc<AtomicBool>,
    death: Arc<watch::Sender<bool>>,
}

/// All servers of a run, and the disk below them.
#[derive(Debug)]
pub struct Servers {
    world: Arc<World>,
    disk: Arc<InMemory>,
    keys: PathBuf,
    signing: SigningKey,
    live: Mutex<Vec<Option<Live>>>,
}

/// What became of a request.
pub type Answer = std::result::Result<Answered, Unanswered>;

pub(crate) fn unanswered(reason: &str, connecting: bool) -> Unanswered {
    Unanswered { reason: reason.to_owned(), connecting }
}

impl Servers {
    /// All of them, running. Their keys stand in the folder.
    ///
    /// # Errors
    /// When a server cannot start.
    pub fn start(world: &Arc<World>, folder: &Path) -> Result<Self> {
        let secret = SigningKey::generate_secret()?;
        let keys = folder.join("keys");
        highwater_pages::durable::write_atomic(&keys, secret.reveal().as_bytes())?;
        let servers = Self {
            world: Arc::clone(world),
            disk: Arc::default(),
            keys,
            signing: secret,
            live: Mutex::new(vec![None; world.plan.servers]),
        };
        for index in 0..world.plan.servers {
            servers.run(index)?;
        }
        Ok(servers)
    }

    /// How many there are, running or not.
    pub fn count(&self) -> usize {
        lock(&self.live).len()
    }

    /// Starts a server, unless it runs.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn run(&self, index: usize) -> Result<()> {
        let mut live = lock(&self.live);
        let place = live.get_mut(index).context("a server")?;
        if place.is_some() {
            return Ok(());
        }
        let shut = Arc::new(AtomicBool::new(false));
        let door = Door::new(Arc::clone(&self.world), Arc::clone(&self.disk), Arc::clone(&shut));
        let server = Server::open_on(self.config(), Store::on(Arc::new(door)))?;
        let router = server.router();
        *place = Some(Live { server, router, shut, death: Arc::new(watch::channel(false).0) });
        drop(live);
        self.world.say(format!("server {index}: runs"));
        Ok(())
    }

    fn config(&self) -> Config {
        let plan = &self.world.plan;
        let clock = Arc::clone(&self.world);
        let policy =
            if plan.first_push_wins { MergePolicy::FirstPushWins } else { MergePolicy::LastPushWins };
        Config {
            snapshot: SnapshotPolicy { max_files: plan.max_files, ..SnapshotPolicy::default() },
            limits: limits(plan),
            auth: AuthConfig { keys: Some(self.keys.clone()), ..AuthConfig::default() },
            merge: MergeConfig { policy, ..MergeConfig::default() },
            clock: Clock::new(move || clock.clock()),
            ..Config::default()
        }
    }

    /// A token as it is given out at this moment.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn token(&self, device: u64) -> Result<String> {
        let since = self.world.clock().duration_since(std::time::UNIX_EPOCH)?;
        let now = Timestamp(since.as_secs());
        let mut claims = Claims::new(&format!("device {device}"), now);
        claims.expires = Some(now.after(Duration::from_secs(self.world.plan.token_s)));
        claims.grant.databases.push("sim".parse()?);
        claims.grant.access.insert(Access::Create);
        Ok(self.signing.sign(&claims)?.reveal().to_owned())
    }

    /// Kills a server: what it was doing ends where it is.
    pub fn kill(&self, index: usize) {
        let live = lock(&self.live).get_mut(index).and_then(Option::take);
        if let Some(live) = live {
            live.shut.store(true, Ordering::SeqCst);
            live.death.send_replace(true);
            self.world.say(format!("server {index}: dies"));
        }
    }

    /// Stops a server: it finishes what it was doing.
    pub async fn stop(&self, index: usize) {
        let live = lock(&self.live).get_mut(index).and_then(Option::take);
        if let Some(live) = live {
            self.world.say(format!("server {index}: stops"));
            live.server.finish().await;
            live.shut.store(true, Ordering::SeqCst);
            live.death.send_replace(true);
        }
    }

    /// The disk, through a door without faults once the world is calm.
    pub fn store(&self) -> Store {
        Store::on(Arc::new(Door::new(Arc::clone(&self.world), Arc::clone(&self.disk), Arc::default())))
    }

    /// Brings a request to a server, of whose body so much arrives, and its answer back.
    pub async fn deliver(&self, index: usize, asked: &Asked, cut: Option<usize>) -> Answer {
        let live = lock(&self.live).get(index).cloned().flatten();
        let Some(live) = live else {
            return Err(unanswered("connection refused", true));
        };
        let ended = ended(asked, self.world.clock());
        let request = request(asked, cut).map_err(|error| unanswered(&error.to_string(), false))?;
        let router = live.router.clone();
        let mut death = live.death.subscribe();
        // It goes on when nobody waits for it.
        let mut work = tokio::spawn(async move { answer(router, request).await });
        let waiting = async {
            tokio::select! {
                biased;
                answered = &mut work => {
                    answered.unwrap_or_else(|_| Err(unanswered("the server's task panicked", false)))
                }
                _ = death.wait_for(|dead| *dead) => Err(unanswered("connection reset", false)),
            }
        };
        let answer = tokio::time::timeout(PATIENCE, waiting).await;
        let answer = answer.unwrap_or_else(|_| Err(unanswered("nothing moved for 2 minutes", false)));
        if ended && answer.as_ref().is_ok_and(|answered| answered.status.is_success()) {
            self.world.wrong(format!("server {index} does what a token asks for that has ended"));
        }
        answer
    }
}

/// Whether a request carries a token that ended a while ago.
fn ended(asked: &Asked, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(GRACE);
    let token = asked.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| highwater_auth::unverified(value.strip_prefix("Bearer ")?).ok());
    token.and_then(|token| token.claims.expires).is_some_and(|ends| ends < Timestamp(now.as_secs()))
}

/// What is told by real time must not decide anything.
fn limits(plan: &Plan) -> Limits {
    let (small, never) = (plan.small_body, Duration::from_secs(24 * 60 * 60));
    Limits { small_body: small, small_answer: small, merge_timeout: never, ..Limits::default() }
}

fn request(asked: &Asked, cut: Option<usize>) -> Result<http::Request<Body>> {
    let uri: http::Uri = asked.url.parse()?;
    let path = uri.path_and_query().context("a path")?.as_str();
    let mut request = http::Request::builder().method(&asked.method).uri(path);
    if let Some(headers) = request.headers_mut() {
        *headers = asked.headers.clone();
        if !asked.body.is_empty() {
            headers.insert(http::header::CONTENT_LENGTH, asked.body.len().into());
        }
    }
    let body = match cut {
        None if asked.body.is_empty() => Body::empty(),
        None => Body::from(asked.body.clone()),
        Some(bytes) => {
            let part = asked.body.get(..bytes).map(Bytes::copy_from_slice).unwrap_or_default();
            let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            Body::from_stream(futures::stream::iter([Ok(part), Err(broken)]))
        }
    };
    Ok(request.body(body)?)
}

async fn answer(router: axum::Router, request: http::Request<Body>) -> Answer {
    let Ok(response) = router.oneshot(request).await;
    let (head, body) = response.into_parts();
    let (mut chunks, mut whole, mut cut) = (body.into_data_stream(), BytesMut::new(), false);
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => whole.extend_from_slice(&chunk),
            Err(_) => {
                cut = true;
                break;
            }
        }
    }
    Ok(Answered { status: head.status, headers: head.headers, body: whole.freeze(), cut })
}
