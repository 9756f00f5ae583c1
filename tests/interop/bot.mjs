// A bot on @kapso/whatsapp-cloud-api, unchanged but for the base URL: tests/webhooks.rs plays the server and the person on the other side.
//
// Its arguments: the directory that has the library in node_modules, and one JSON object. It prints a line of JSON for each thing that
// happened.

import http from "node:http";
import { createRequire } from "node:module";

const require = createRequire(`${process.argv[2]}/`);
const { WhatsAppClient } = require("@kapso/whatsapp-cloud-api");
const { normalizeWebhook, verifySignature } = require("@kapso/whatsapp-cloud-api/server");

const world = JSON.parse(process.argv[3]);
const { bot: phoneNumberId, person: to, secret: appSecret } = world;
// A picture of one pixel.
const PNG = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);
const say = (line) => console.log(JSON.stringify(line));
const wa = new WhatsAppClient({ baseUrl: world.base, accessToken: world.token });

const got = new Set();
let done;
const finished = new Promise((resolve) => (done = resolve));
const happened = (what) => {
  got.add(what);
  if (["sent", "delivered", "read", "message"].every((each) => got.has(each))) done();
};

async function take(payload) {
  const { messages, statuses } = normalizeWebhook(payload);
  for (const { status, id } of statuses) {
    say({ status, id });
    happened(status);
  }
  for (const message of messages) {
    say({ message: { from: message.from, text: message.text.body, context: message.context.id } });
    await wa.messages.markRead({ phoneNumberId, messageId: message.id });
    await wa.messages.sendText({ phoneNumberId, to: message.from, body: "echo", contextMessageId: message.id });
    happened("message");
  }
}

const server = http.createServer(async (request, response) => {
  const query = new URL(request.url, "http://x").searchParams;
  if (request.method === "GET") {
    const isRight = query.get("hub.verify_token") === "vt";
    response.writeHead(isRight ? 200 : 403).end(isRight ? query.get("hub.challenge") : "");
    return;
  }
  const rawBody = Buffer.concat(await request.toArray());
  const isSigned = verifySignature({ appSecret, rawBody, signatureHeader: request.headers["x-hub-signature-256"] });
  response.writeHead(isSigned ? 200 : 401).end();
  if (isSigned) await take(JSON.parse(rawBody));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const url = `http://127.0.0.1:${server.address().port}/hook`;

const registered = await fetch(`${world.base}/v1/webhook`, {
  method: "PUT",
  headers: { authorization: `Bearer ${world.token}` },
  body: JSON.stringify({ url, verify_token: "vt", secret: appSecret }),
});
if (!registered.ok) throw new Error(await registered.text());

const sent = await wa.messages.sendText({ phoneNumberId, to, body: "hi äöå 😀" });
say({ sent: sent.messages[0].id });
if (world.image) {
  const file = new Blob([PNG], { type: "image/png" });
  const { id } = await wa.media.upload({ phoneNumberId, type: "image/png", file, fileName: "a.png" });
  const image = await wa.messages.sendImage({ phoneNumberId, to, image: { id, caption: "us" } });
  say({ sent: image.messages[0].id });
}
await finished;
const headers = { "x-hub-signature-256": `sha256=${"0".repeat(64)}` };
const forged = await fetch(url, { method: "POST", headers, body: "{}" });
say({ forged: forged.status });
process.exit(0);
