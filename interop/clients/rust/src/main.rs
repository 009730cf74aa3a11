//! The crate `libsql`, driven over standard input: one command a line, one answer a line, both JSON.
//! `interop/README.md` says what the commands are.

use std::io::{BufRead, Write};
use std::time::Instant;

use libsql::{Builder, Connection, Database, Value};
use serde::Deserialize;
use serde_json::{Value as Json, json};

/// What went wrong, as the person at the other end would read it.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Command {
    Open { path: String, url: String, token: String, mode: Mode },
    Script { sql: String },
    Query { sql: String },
    Fill { sql: String, from: i64, to: i64, together: bool },
    Sync,
    Close,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Offline,
    Replica,
}

/// One open database. The connection is made at the first use: opening must not need one.
#[derive(Default)]
struct Session {
    database: Option<Database>,
    connection: Option<Connection>,
}

impl Session {
    async fn obey(&mut self, command: Command) -> Outcome<Json> {
        match command {
            Command::Open { path, url, token, mode } => {
                let database = match mode {
                    Mode::Offline => Builder::new_synced_database(path, url, token).build().await?,
                    Mode::Replica => Builder::new_remote_replica(path, url, token).build().await?,
                };
                self.database = Some(database);
            }
            Command::Script { sql } => {
                self.connection().await?.execute_batch(&sql).await?;
            }
            Command::Query { sql } => return self.query(&sql).await,
            Command::Fill { sql, from, to, together } => self.fill(&sql, from..=to, together).await?,
            Command::Sync => {
                let began = Instant::now();
                let frames = self.database()?.sync().await?.frames_synced();
                return Ok(json!({ "frames": frames, "ms": began.elapsed().as_secs_f64() * 1000.0 }));
            }
            Command::Close => *self = Self::default(),
        }
        Ok(Json::Null)
    }

    fn database(&self) -> Outcome<&Database> {
        self.database.as_ref().ok_or_else(|| "no database is open".into())
    }

    async fn connection(&mut self) -> Outcome<Connection> {
        if self.connection.is_none() {
            self.connection = Some(self.database()?.connect()?);
        }
        self.connection.clone().ok_or_else(|| "no connection".into())
    }

    async fn query(&mut self, sql: &str) -> Outcome<Json> {
        let mut rows = self.connection().await?.query(sql, ()).await?;
        let mut all = Vec::new();
        while let Some(row) = rows.next().await? {
            let values = (0..row.column_count()).map(|column| Ok(plain(row.get_value(column)?)));
            all.push(Json::Array(values.collect::<Outcome<_>>()?));
        }
        Ok(Json::Array(all))
    }

    async fn fill(
        &mut self,
        sql: &str,
        numbers: std::ops::RangeInclusive<i64>,
        together: bool,
    ) -> Outcome<()> {
        let connection = self.connection().await?;
        if together {
            connection.execute("BEGIN", ()).await?;
        }
        let statement = connection.prepare(sql).await?;
        for number in numbers {
            statement.execute([number]).await?;
            statement.reset();
        }
        if together {
            connection.execute("COMMIT", ()).await?;
        }
        Ok(())
    }
}

fn plain(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(number) => json!(number),
        Value::Real(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!({ "bytes": bytes.len() }),
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut session = Session::default();
    for line in std::io::stdin().lock().lines() {
        let outcome = match serde_json::from_str(&line?) {
            Ok(command) => session.obey(command).await,
            Err(error) => Err(error.into()),
        };
        let answer = match outcome {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}
