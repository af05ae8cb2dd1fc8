// fetch, as undici has it, with the proxy of the environment and no key. The one argument is {"undici": …, "url": …}.
const { undici, url } = JSON.parse(process.argv[2]);
const { EnvHttpProxyAgent, fetch } = await import(undici);
const dispatcher = new EnvHttpProxyAgent();
const said = {};
for (const at of [url, url.replace("https:", "http:")]) {
  const answer = await fetch(at, { dispatcher });
  said[new URL(at).protocol] = await answer.text();
}
const posted = await fetch(url, { dispatcher, method: "POST", body: "x".repeat(100000) });
said.posted = await posted.text();
console.log(JSON.stringify(said));
await dispatcher.close();
