// Signs with each provider's SDK and delivers through the gateway:
// send.mjs GATEWAY_PORT CA_FILE APP...   where APP is `node` or `python`, the app behind.
// Prints a line for each delivery: `ok NAME` or `not ok NAME: why`.

import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';

import { providers } from './sdk.mjs';

const [port, ca, ...apps] = process.argv.slice(2);
const agent = new Agent({ ca: readFileSync(ca), keepAlive: true });

const deliver = (path, headers, body) =>
  new Promise((resolve, reject) => {
    const options = { port, host: '127.0.0.1', servername: 'hooks.example.org', agent, path, headers, method: 'POST' };
    request(options, (response) => {
      let text = '';
      response.on('data', (part) => (text += part)).on('end', () => resolve(`${response.statusCode} ${text}`));
    })
      .on('error', reject)
      .end(body);
  });

const say = (name, found, expected) =>
  console.log(found.startsWith(expected) ? `ok ${name}` : `not ok ${name}: ${found}, not ${expected}`);

for (const app of apps) {
  const supported = (process.env[`${app.toUpperCase()}_PROVIDERS`] ?? '').split(' ');
  for (const [name, provider] of Object.entries(providers).filter(([name]) => supported.includes(name))) {
    const path = `/${app}/${name}?${provider.query ?? 'attempt=1&x=%2F'}`;
    const url = `https://hooks.example.org${path}`;
    const text = JSON.stringify({ id: `evt_node_${app}`, object: 'event', text: 'café \u2028 \\u00e9', n: 1.0 }, null, 1);
    const body = provider.body ? provider.body(text) : text;
    const headers = {
      host: 'hooks.example.org',
      'content-type': provider.type ?? 'application/json; charset=utf-8',
      ...(await provider.sign({ url, body })),
    };
    say(`node signs ${name}, ${app} verifies`, await deliver(path, headers, body), `200 verified by ${app}`);
    const forged = body.replace('a', 'e');
    say(`node's ${name} with another body is refused`, await deliver(path, headers, forged), '401 {');
  }
}
agent.destroy();
