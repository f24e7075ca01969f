// BullMQ: `node worker.mjs work CONCURRENCY` works jobs, `node worker.mjs add COUNT BODY` adds them.
import { Queue, Worker } from "bullmq";

const connection = { ...url(process.env.BENCH_REDIS), maxRetriesPerRequest: null };
const [what, number, body] = process.argv.slice(2);

if (what === "work") {
  new Worker("bench", async () => {}, { connection, concurrency: Number(number), removeOnComplete: { count: 0 } });
} else {
  const queue = new Queue("bench", { connection });
  for (let left = Number(number); left > 0; left -= 500) {
    const jobs = Array.from({ length: Math.min(left, 500) }, () => ({ name: "noop", data: { body } }));
    await queue.addBulk(jobs);
  }
  await queue.close();
}

function url(text) {
  const { hostname, port } = new URL(text);
  return { host: hostname, port: Number(port) };
}
