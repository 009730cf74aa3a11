// The package `libsql` (the one in the manner of better-sqlite3), driven by interop/run.
import Database from "libsql";
import { plain, serve } from "./session.mjs";

let db;

await serve({
  open({ path, url, token, mode }) {
    db = new Database(path, { syncUrl: url, authToken: token, offline: mode === "offline" });
  },
  script({ sql }) {
    db.exec(sql);
  },
  query({ sql }) {
    return db.prepare(sql).raw().all().map((row) => row.map(plain));
  },
  fill({ sql, from, to, together }) {
    if (together) db.exec("BEGIN");
    const statement = db.prepare(sql);
    for (let number = from; number <= to; number++) statement.run(number);
    if (together) db.exec("COMMIT");
  },
  async sync() {
    const began = performance.now();
    const { frames_synced } = await db.sync();
    return { frames: frames_synced, ms: performance.now() - began };
  },
  close() {
    db.close();
  },
});
