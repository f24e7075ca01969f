// Adds tasks from Node: `node add.mjs QUEUE`. glassq-tasks listens at GLASSQ_TASKS, by default /run/glassq/tasks.sock.
import { request } from "node:http";

const socketPath = process.env.GLASSQ_TASKS ?? "/run/glassq/tasks.sock";
const queue = process.argv[2];

/** The JSON of the answer. Throws where that is no 200; after a 503 it is worth another try. */
function tasks(method, path, message) {
  return new Promise((resolve, reject) => {
    const body = message === undefined ? "" : JSON.stringify(message);
    const headers = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) };
    const sent = request({ socketPath, method, path, headers }, async (answer) => {
      let text = "";
      for await (const part of answer) text += part;
      const document = JSON.parse(text);
      if (answer.statusCode === 200) resolve(document);
      else reject(new Error(`${answer.statusCode} ${document.error?.message ?? text}`));
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

const made = await tasks("POST", `/tasks/${queue}`, { path: "/mail/send", json: { to: "bob" } });
console.log(`added ${made.name}`);

// once only, however often this runs: the name is taken for 9 days after its task
const name = "newsletter-7";
try {
  await tasks("POST", `/tasks/${queue}`, { path: "/mail/newsletter", name, delay: 60 });
} catch (error) {
  if (!error.message.startsWith("409")) throw error;
}
const list = await tasks("GET", `/tasks/${queue}?pageSize=10`);
console.log(`${list.tasks.length} wait`);
