// The package `@libsql/client`, driven by interop/run.
import { createClient } from "@libsql/client";
import { plain, serve } from "./session.mjs";

let client;

await serve({
  open({ path, url, token, mode }) {
    client = createClient({ url: `file:${path}`, syncUrl: url, authToken: token, offline: mode === "offline" });
  },
  async script({ sql }) {
    await client.executeMultiple(sql);
  },
  async query({ sql }) {
    const { rows, columns } = await client.execute(sql);
    return rows.map((row) => columns.map((_, index) => plain(row[index])));
  },
  async fill({ sql, from, to, together }) {
    const statements = [];
    for (let number = from; number <= to; number++) statements.push({ sql, args: [number] });
    if (together) await client.batch(statements, "write");
    else for (const statement of statements) await client.execute(statement);
  },
  async sync() {
    const began = performance.now();
    const done = await client.sync();
    return { frames: done?.frames_synced ?? null, ms: performance.now() - began };
  },
  close() {
    client.close();
  },
});
