// POSTs of a given size by Node's own client, each on a connection of its own: which answers were read.

import { readFileSync } from "node:fs";
import { request } from "node:https";

const argument = JSON.parse(process.argv[2]);
const tls = { ca: readFileSync(argument.ca), cert: readFileSync(argument.cert), key: readFileSync(argument.key) };
const body = Buffer.alloc(argument.bytes, "x");

function send() {
  return new Promise((resolve) => {
    const call = request(`https://${argument.authority}${argument.path}`, {
      ...tls, method: "POST", agent: false, headers: { "content-length": body.length }, timeout: 60000,
    });
    let answered = false;
    call.on("response", (response) => {
      response.on("data", () => {});
      response.on("end", () => {
        answered = true;
        resolve({ status: response.statusCode, reason: response.headers["x-tollgate-reason"] ?? null });
        call.destroy();
      });
      response.on("error", (error) => resolve({ error: `response: ${error}` }));
    });
    call.on("error", (error) => answered || resolve({ error: String(error) }));
    call.on("timeout", () => resolve({ error: "timeout" }));
    call.end(body);
  });
}

const answers = [];
for (let sent = 0; sent < argument.times; sent += 1) answers.push(await send());
console.log(JSON.stringify({ answers }));
