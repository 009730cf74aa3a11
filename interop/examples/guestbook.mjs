import { createClient } from "@libsql/client";

const db = createClient({
  url: "file:guestbook.db",
  syncUrl: process.env.SYNC_URL ?? "http://127.0.0.1:8080/guestbook", // 1. your server and the database's name
  authToken: process.env.SYNC_TOKEN ?? "", // 2. from `highwater token create`, if the server has keys
  offline: true, // 3. write to the local file, sync when you say so
});

await db.sync(); // what others wrote; only the very first one needs the network
await db.execute("CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, name TEXT, message TEXT)");
const [name = "Ada", message = "Hello!"] = process.argv.slice(2);
await db.execute({ sql: "INSERT INTO entries (name, message) VALUES (?, ?)", args: [name, message] });
await db.sync(); // to the server

const { rows } = await db.execute("SELECT name, message FROM entries ORDER BY id");
for (const entry of rows) console.log(`${entry.name}: ${entry.message}`);
db.close();
