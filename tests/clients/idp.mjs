// oauth2-mock-server over TLS. `told.json` in the folder says how long tokens live and how the client proves itself;
// every answer is written to `asked.jsonl` with the token that was given. What `mint.json` asks for is made and put into `minted.txt`.
import { randomUUID, verify } from "node:crypto";
import { appendFileSync, existsSync, readFileSync, renameSync, unlinkSync, writeFileSync } from "node:fs";

const [module, port, key, cert, folder] = process.argv.slice(2);
const { OAuth2Server } = await import(module);
const told = () => JSON.parse(readFileSync(`${folder}/told.json`, "utf8"));

function byBasic({ headers }, { id, secret }) {
  const text = Buffer.from((headers.authorization ?? "").replace(/^Basic /, ""), "base64").toString();
  return text.split(":").map(decodeURIComponent).join("\n") === `${id}\n${secret}`;
}

function bySignature({ body }, { id, publicKey, audience }) {
  const [head, claims, signature] = (body.client_assertion ?? "").split(".");
  const said = JSON.parse(Buffer.from(claims ?? "", "base64url").toString() || "{}");
  const now = Date.now() / 1000;
  return (
    body.client_assertion_type === "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" &&
    said.iss === id && said.sub === id && said.aud === audience && said.iat <= now && now < said.exp &&
    verify("sha256", Buffer.from(`${head}.${claims}`), { key: publicKey, dsaEncoding: "ieee-p1363" },
      Buffer.from(signature, "base64url"))
  );
}

const server = new OAuth2Server(key, cert);
let newest = await server.issuer.keys.generate("RS256");
async function mint() {
  if (existsSync(`${folder}/mint.json`)) {
    const { claims, rotate } = JSON.parse(readFileSync(`${folder}/mint.json`, "utf8"));
    unlinkSync(`${folder}/mint.json`);
    if (rotate) {
      newest = await server.issuer.keys.generate("RS256");
    }
    const scopesOrTransform = (_, payload) => Object.assign(payload, claims);
    const token = await server.issuer.buildToken({ kid: newest.kid, scopesOrTransform });
    writeFileSync(`${folder}/minted.new`, token);
    renameSync(`${folder}/minted.new`, `${folder}/minted.txt`);
  }
  setTimeout(mint, 20);
}
server.service.on("beforeTokenSigning", (token) => {
  token.payload.jti = randomUUID();
});
server.service.on("beforeResponse", (answer, request) => {
  const { expiresIn, client } = told();
  const known = client.publicKey ? bySignature(request, client) : byBasic(request, client);
  if (known) {
    answer.body.expires_in = expiresIn;
  } else {
    answer.statusCode = 401;
    answer.body = { error: "invalid_client" };
  }
  const entry = { token: answer.body.access_token ?? null, ends: Date.now() + expiresIn * 1000, scope: request.body.scope };
  appendFileSync(`${folder}/asked.jsonl`, `${JSON.stringify(entry)}\n`);
});
await server.start(Number(port), "127.0.0.1");
await mint();
