//! A store with faults: every server has its own door to the one disk, and a door closes for ever when its server dies.
//!
//! What is assumed of a store, and so holds here: an object appears whole or not at all, a conditional creation
//! has one winner, and what is visible stays. What a dying server had on its way may still arrive after its death. An
//! upload that was not finished leaves a part behind, under its own name.
//!
//! Only what the store is asked to change, and listings, take time here: reads are also asked for from threads on which
//! waiting would stop time.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};

use crate::dice::Dice;
use crate::faults::Fault;
use crate::world::World;

/// A server's door to the disk.
#[derive(Debug, Clone)]
pub struct Door {
    world: Arc<World>,
    disk: Arc<InMemory>,
    shut: Arc<AtomicBool>,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store with faults")
    }
}

impl Door {
    /// A door that is open until `shut` is set.
    pub fn new(world: Arc<World>, disk: Arc<InMemory>, shut: Arc<AtomicBool>) -> Self {
        Self { world, disk, shut }
    }

    fn is_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    /// The dead do nothing, for ever. On threads that must end they fail.
    async fn die(&self) -> Error {
        if self.world.can_wait() {
            std::future::pending::<()>().await;
        }
        failure("the server is dead")
    }

    /// Numbers for this operation, after it took its time. An error if it is not even begun.
    async fn begin(&self, what: &str, object: &str, takes_time: bool) -> Result<Dice> {
        if self.is_shut() {
            return Err(self.die().await);
        }
        let purpose = format!("{what} {}", plain(object));
        let mut dice = self.world.dice(&purpose);
        let ms = dice.between(1, 400);
        let slow = self.world.strikes(Fault::StoreSlow, &mut dice);
        if takes_time && self.world.can_wait() {
            self.world.sleep(if slow { ms * 25 } else { ms }).await;
        }
        if self.world.outage.load(Ordering::SeqCst) {
            return Err(failure("the store is out of order"));
        }
        if !self.is_shut() && self.world.strikes(Fault::StoreFails, &mut dice) {
            self.world.say(format!("store: {purpose} fails"));
            return Err(failure("the store failed"));
        }
        Ok(dice)
    }

    /// Whether a change that was on its way when its server died still arrives.
    async fn arrives(&self, dice: &mut Dice) -> bool {
        if !self.is_shut() {
            return true;
        }
        let arrives = dice.permille(500);
        if arrives && self.world.can_wait() {
            self.world.sleep(dice.between(1, 20_000)).await;
        }
        arrives
    }

    /// After a change: what its server is told.
    async fn told(&self, object: &Path, creates: bool, dice: &mut Dice) -> Result<()> {
        if self.is_shut() {
            return Err(self.die().await);
        }
        if self.world.strikes(Fault::StoreFailsAfter, dice) {
            self.world.say(format!(
                "store: {} was written, and the store says that it failed",
                plain(object.as_ref())
            ));
            return Err(failure("the store failed"));
        }
        if creates && self.world.strikes(Fault::StoreExistsAfter, dice) {
            self.world.say(format!(
                "store: {} was written, and the store says that it exists",
                plain(object.as_ref())
            ));
            return Err(Error::AlreadyExists { path: object.to_string(), source: "it exists".into() });
        }
        if self.world.can_wait() {
            self.world.sleep(dice.between(1, 50)).await;
        }
        if self.is_shut() { Err(self.die().await) } else { Ok(()) }
    }
}

fn failure(what: &'static str) -> Error {
    Error::Generic { store: "simulated", source: what.into() }
}

/// A name without what is random in it.
fn plain(object: &str) -> String {
    match object.split_once("uploads/") {
        Some((before, _)) => format!("{before}uploads/…"),
        None => object.to_owned(),
    }
}

#[async_trait]
impl ObjectStore for Door {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let mut dice = self.begin("put", location.as_ref(), true).await?;
        if !self.arrives(&mut dice).await {
            return Err(self.die().await);
        }
        let creates = matches!(opts.mode, PutMode::Create);
        let put = self.disk.put_opts(location, payload, opts).await?;
        self.world.say(format!("store: {} is written", plain(location.as_ref())));
        self.told(location, creates, &mut dice).await?;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.begin("upload", location.as_ref(), false).await?;
        Ok(Box::new(Upload { door: self.clone(), location: location.clone(), parts: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.begin("get", location.as_ref(), false).await?;
        self.disk.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.begin("read", location.as_ref(), false).await?;
        self.disk.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let door = self.clone();
        let delete = move |location: Path| {
            let door = door.clone();
            async move {
                door.begin("delete", location.as_ref(), false).await?;
                door.disk.delete(&location).await.map(|()| location)
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (door, prefix) = (self.clone(), prefix.cloned());
        let begun = async move {
            let folder = prefix.as_ref().map(ToString::to_string).unwrap_or_default();
            door.begin("list", &folder, true).await?;
            Ok::<_, Error>(door.disk.list(prefix.as_ref()))
        };
        begun.into_stream().try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let folder = prefix.map(ToString::to_string).unwrap_or_default();
        self.begin("list", &folder, true).await?;
        self.disk.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let mut dice = self.begin("copy", to.as_ref(), true).await?;
        if !self.arrives(&mut dice).await {
            return Err(self.die().await);
        }
        let creates = matches!(options.mode, CopyMode::Create);
        self.disk.copy_opts(from, to, options).await?;
        self.world.say(format!("store: {} is written", plain(to.as_ref())));
        self.told(to, creates, &mut dice).await
    }
}

/// An upload in parts.
#[derive(Debug)]
struct Upload {
    door: Door,
    location: Path,
    parts: Vec<PutPayload>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.push(data);
        let (door, location) = (self.door.clone(), self.location.clone());
        async move { door.begin("part", location.as_ref(), false).await.map(drop) }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let mut dice = self.door.begin("complete", self.location.as_ref(), true).await?;
        let mut whole: Vec<u8> = self.parts.iter().flatten().flatten().copied().collect();
        if self.door.is_shut() {
            // What a dead server was writing is left in part.
            whole.truncate(dice.index(whole.len()));
        }
        let put = self.door.disk.put(&self.location, PutPayload::from(whole)).await?;
        self.door.told(&self.location, false, &mut dice).await?;
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}
