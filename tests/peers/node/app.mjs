// The app behind the gateway: judges with the provider's own SDK what arrived, and answers 200 or 418.

import { createServer } from 'node:http';

import { providers } from './sdk.mjs';

const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const url = `https://${request.headers.host}${request.url}`;
  const delivery = { url, headers: request.headers, body: Buffer.concat(parts).toString() };
  const verified = await providers[request.url.split('/')[2].split('?')[0]].verify(delivery);
  response.writeHead(verified ? 200 : 418).end(verified ? 'verified by node' : 'refused by node');
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
