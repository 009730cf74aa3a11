//! The network between one device and the servers, and everything that it does to requests and answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use highwater::simulation::{Answered, Asked};
use highwater_wire::{ErrorBody, ErrorCode};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::dice::Dice;
use crate::faults::{Fault, Layer};
use crate::forge::forge;
use crate::head;
use crate::servers::{Answer, Servers, unanswered};
use crate::world::World;

/// One device's way to the servers.
#[derive(Debug)]
pub struct Network {
    world: Arc<World>,
    servers: Arc<Servers>,
    device: u64,
    /// No way at present.
    pub cut_off: Arc<AtomicBool>,
    /// Whether answers were forged since somebody asked last: then clients may say anything.
    pub forged: bool,
    /// Whether a request was no request any more since then.
    pub no_http: bool,
    /// How many requests were damaged since then.
    pub damaged: u32,
    dice: Dice,
    memory: Dice,
}

impl Network {
    /// A device's.
    #[must_use]
    pub fn new(world: &Arc<World>, servers: &Arc<Servers>, device: u64) -> Self {
        let dice = Dice::of(world.plan.seed, &format!("network of device {device}"));
        let memory = Dice::of(world.plan.seed, &format!("memory on both sides of device {device}"));
        let (world, servers) = (Arc::clone(world), Arc::clone(servers));
        Self {
            world,
            servers,
            device,
            cut_off: Arc::default(),
            forged: false,
            no_http: false,
            damaged: 0,
            dice,
            memory,
        }
    }

    /// Where a request goes on its way; `on_its_way` is called before and after the server had it.
    pub async fn carry(&mut self, mut asked: Asked, mut on_its_way: impl FnMut(&str)) -> Answer {
        let bad_memory = self.world.draw(Layer::Memory, &mut self.memory);
        if bad_memory == Some(Fault::RequestForged) {
            self.spoil(&mut asked.headers, &mut asked.body, "the request");
        }
        let path = asked.url.split_once("sim/").map_or("", |(_, path)| path).to_owned();
        let fault = self.world.draw(Layer::Network, &mut self.dice);
        let said = fault.map(|fault| format!(" ({fault})")).unwrap_or_default();
        self.say(&format!("{} {path}{said}, {} bytes", asked.method, sized(&asked.body)));
        self.wait(5, 300).await;
        if self.cut_off.load(Ordering::SeqCst) {
            self.wait(1000, 10_000).await;
            let connecting = self.dice.permille(500);
            self.say("no network");
            return Err(unanswered("network is unreachable", connecting));
        }
        on_its_way("while the request was on its way");
        let server = self.dice.index(self.servers.count());
        let mut answer = self.with_fault(fault, server, asked).await;
        if let (Ok(answered), Some(Fault::AnswerForged)) = (&mut answer, bad_memory) {
            self.spoil(&mut answered.headers, &mut answered.body, "the answer");
        }
        self.wait(5, 300).await;
        on_its_way("while the answer was on its way");
        match &answer {
            Ok(answered) => self.say(&format!(
                "{} of server {server}, {} bytes{}",
                answered.status.as_u16(),
                sized(&answered.body),
                if answered.cut { ", cut" } else { "" }
            )),
            Err(unanswered) => self.say(&unanswered.reason.clone()),
        }
        answer
    }

    async fn with_fault(&mut self, fault: Option<Fault>, server: usize, mut asked: Asked) -> Answer {
        let lost = Err(unanswered("connection reset", false));
        match fault {
            Some(Fault::RequestLost) => lost,
            Some(Fault::AnswerLost) => {
                drop(self.servers.deliver(server, &asked, None).await);
                lost
            }
            Some(Fault::RequestLate) => {
                self.later(server, asked);
                lost
            }
            Some(Fault::RequestTwice) => {
                let answer = self.servers.deliver(server, &asked, None).await;
                // What found no connection is not under way.
                if !matches!(&answer, Err(unanswered) if unanswered.connecting) {
                    self.later(server, asked);
                }
                answer
            }
            Some(Fault::Slow) => {
                self.wait(1000, 40_000).await;
                self.servers.deliver(server, &asked, None).await
            }
            Some(Fault::RequestCut) => {
                let bytes = self.dice.index(asked.body.len());
                drop(self.servers.deliver(server, &asked, Some(bytes)).await);
                lost
            }
            Some(Fault::AnswerCut) => {
                self.servers.deliver(server, &asked, None).await.map(|answered| self.cut(answered))
            }
            Some(Fault::RequestFlipped) => {
                self.damaged += 1;
                asked.body = self.flip(&asked.body);
                self.servers.deliver(server, &asked, None).await
            }
            Some(Fault::AnswerFlipped) => {
                self.servers.deliver(server, &asked, None).await.map(|answered| self.flipped(answered))
            }
            Some(Fault::RequestHeadFlipped) => match head::request(asked, &mut self.dice) {
                Some(asked) => self.servers.deliver(server, &asked, None).await,
                // What is no HTTP any more is answered before the server sees it.
                None => {
                    // A client believes the second one.
                    self.forged |= std::mem::replace(&mut self.no_http, true);
                    Ok(head::no_http())
                }
            },
            Some(Fault::AnswerHeadFlipped) => {
                let answered = self.servers.deliver(server, &asked, None).await?;
                head::answer(answered, &mut self.dice).ok_or_else(|| unanswered("it is no HTTP", false))
            }
            Some(Fault::Refused) => Ok(self.refusal(&[429, 500, 502, 503, 504])),
            Some(Fault::RefusedAfter) => {
                drop(self.servers.deliver(server, &asked, None).await);
                Ok(self.refusal(&[502, 504]))
            }
            Some(Fault::FalseConflict) => {
                self.forged = true;
                Ok(false_conflict())
            }
            _ => self.servers.deliver(server, &asked, None).await,
        }
    }

    /// Lets a request arrive some time, whatever has become of its sender.
    fn later(&mut self, server: usize, asked: Asked) {
        let (world, servers, device) = (Arc::clone(&self.world), Arc::clone(&self.servers), self.device);
        let ms = self.dice.between(100, 120_000);
        world.late.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            world.sleep(ms).await;
            let answer = servers.deliver(server, &asked, None).await;
            let status = answer.map_or(0, |answered| answered.status.as_u16());
            world.say(format!("device {device}: a late request has arrived: {status}"));
            world.late.fetch_sub(1, Ordering::SeqCst);
        });
    }

    fn cut(&mut self, mut answered: Answered) -> Answered {
        let bytes = self.dice.index(answered.body.len());
        answered.body = answered.body.slice(..bytes);
        answered.cut = true;
        answered
    }

    fn flipped(&mut self, mut answered: Answered) -> Answered {
        self.forged = true;
        answered.body = self.flip(&answered.body);
        answered
    }

    fn flip(&mut self, body: &Bytes) -> Bytes {
        self.forged = true;
        let mut bytes = body.to_vec();
        let at = self.dice.index(bytes.len());
        let bit = self.dice.below(8);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
        bytes.into()
    }

    /// Damages a page, if there are any, so that no checksum tells.
    fn spoil(&mut self, headers: &mut HeaderMap, body: &mut Bytes, whose: &str) {
        if let Some(forged) = forge(headers, body, &mut self.memory) {
            self.say(&format!("{whose} has a damaged page"));
            *body = forged;
            self.forged = true;
            self.damaged += 1;
        }
    }

    /// As proxies answer.
    fn refusal(&mut self, statuses: &[u16]) -> Answered {
        let status = self.dice.pick(statuses).copied().unwrap_or(503);
        let mut headers = HeaderMap::new();
        if self.dice.permille(500) {
            headers.insert(http::header::RETRY_AFTER, self.dice.between(0, 20).into());
        }
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        let body = Bytes::from_static(b"<html><body>Not now.</body></html>");
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        Answered { status, headers, body, cut: false }
    }

    async fn wait(&mut self, from: u64, to: u64) {
        let ms = self.dice.between(from, to);
        self.world.sleep(ms).await;
    }

    fn say(&self, what: &str) {
        self.world.say(format!("device {}: {what}", self.device));
    }
}

fn false_conflict() -> Answered {
    let body = ErrorBody {
        code: ErrorCode::Conflict,
        message: "somebody says that there is a conflict".to_owned(),
        request_id: None,
        conflict: None,
        conflicts: Vec::new(),
        cannot_merge: None,
    };
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = serde_json::to_vec(&body).unwrap_or_default().into();
    Answered { status: StatusCode::CONFLICT, headers, body, cut: false }
}

/// Sizes to about a quarter: random ids and times compress a little better or worse.
fn sized(body: &Bytes) -> usize {
    body.len() / 256 * 256
}
