// POSTs of a given size by Node's own clients, each on a connection of its own, or all on one over HTTP/2: which answers were read.

import { readFileSync } from "node:fs";
import { connect } from "node:http2";
import { request } from "node:https";

const argument = JSON.parse(process.argv[2]);
const tls = { ca: readFileSync(argument.ca), cert: readFileSync(argument.cert), key: readFileSync(argument.key) };
const body = Buffer.alloc(argument.bytes, "x");

function overHttps() {
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

function overHttp2(session) {
  return new Promise((resolve) => {
    const call = session.request({ ":method": "POST", ":path": argument.path, "content-length": body.length });
    let answer = { error: "no answer" };
    call.on("response", (headers) => {
      answer = { status: headers[":status"], reason: headers["x-tollgate-reason"] ?? null };
    });
    call.on("data", () => {});
    call.on("error", (error) => { answer = { error: String(error) }; });
    call.on("close", () => resolve(answer));
    call.end(body);
  });
}

const session = argument.library === "http2" ? connect(`https://${argument.authority}`, tls) : null;
session?.on("error", () => {});
const answers = [];
for (let sent = 0; sent < argument.times; sent += 1) answers.push(await (session ? overHttp2(session) : overHttps()));
session?.destroy();
console.log(JSON.stringify({ answers }));
