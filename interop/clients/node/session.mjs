// What both JavaScript clients share: commands from standard input, answers to standard output, JSON, one a line.
// interop/README.md says what the commands are.
import { createInterface } from "node:readline";

/** Calls session[command.do](command) for each line. A thrown error is an answer, too. */
export async function serve(session) {
  for await (const line of createInterface({ input: process.stdin })) {
    let answer;
    try {
      const command = JSON.parse(line);
      answer = { ok: (await session[command.do](command)) ?? null };
    } catch (error) {
      answer = { error: String(error?.message ?? error) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
}

/** A value of SQLite as JSON: of a blob only how long it is. */
export function plain(value) {
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) return { bytes: value.byteLength };
  return typeof value === "bigint" ? Number(value) : value;
}
