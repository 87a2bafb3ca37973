// What the SDKs for Node.js sign and verify, by preset. A delivery is { url, body } with `url` as its
// provider knows it; `sign` gives its headers, `verify` judges what arrived by them.

import { createHmac, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';

import hubspot from '@hubspot/api-client';
import { LinearWebhookClient } from '@linear/sdk/webhooks';
import * as octokit from '@octokit/webhooks-methods';
import { Paddle } from '@paddle/paddle-node-sdk';
import { WebhooksHelper } from 'square';
import * as standardwebhooks from 'standardwebhooks';
import Stripe from 'stripe';
import * as svix from 'svix';
import twilio from 'twilio';

const secrets = JSON.parse(readFileSync(new URL('../secrets.json', import.meta.url)));
const stripe = new Stripe('sk_test_unused');
const paddle = new Paddle('unused');
const linear = new LinearWebhookClient(secrets.linear);

const hmac = (algorithm, secret, content, encoding) =>
  createHmac(algorithm, secret).update(content).digest(encoding);
const seconds = () => Math.floor(Date.now() / 1000);
const form = (body) => Object.fromEntries(new URLSearchParams(body));

/** Whether `judge` neither throws nor says no. */
const holds = async (judge) => {
  try {
    return (await judge()) !== false;
  } catch {
    return false;
  }
};

/** Providers of the Standard Webhooks family differ in the names of their headers. */
const standard = (prefix, webhook) => ({
  sign({ body }) {
    const [id, time] = [`msg_${randomUUID()}`, new Date()];
    return {
      [`${prefix}-id`]: id,
      [`${prefix}-timestamp`]: String(Math.floor(time / 1000)),
      [`${prefix}-signature`]: webhook.sign(id, time, body),
    };
  },
  verify: ({ body, headers }) => holds(() => void webhook.verify(body, headers)),
});

export const providers = {
  github: {
    async sign({ body }) {
      const signature = await octokit.sign(secrets.github, body);
      return { 'X-Hub-Signature-256': signature, 'X-GitHub-Event': 'ping', 'X-GitHub-Delivery': randomUUID() };
    },
    verify: ({ body, headers }) => holds(() => octokit.verify(secrets.github, body, headers['x-hub-signature-256'])),
  },
  'hubspot-v3': {
    // HubSpot signs the URL with some escapes decoded, which its library leaves to its caller.
    query: 'attempt=1&x=y',
    sign({ url, body }) {
      const options = { url, requestBody: body, timestamp: Date.now(), clientSecret: secrets['hubspot-v3'] };
      return {
        'X-HubSpot-Signature-V3': hubspot.Signature.getSignature('POST', 'v3', options),
        'X-HubSpot-Request-Timestamp': String(options.timestamp),
      };
    },
    verify: ({ url, body, headers }) =>
      holds(() =>
        hubspot.Signature.isValid({
          signatureVersion: 'v3',
          signature: headers['x-hubspot-signature-v3'],
          timestamp: Number(headers['x-hubspot-request-timestamp']),
          clientSecret: secrets['hubspot-v3'],
          requestBody: body,
          url,
        }),
      ),
  },
  // Linear, Paddle and Square publish code that verifies, none that signs.
  linear: {
    body: (text) => JSON.stringify({ ...JSON.parse(text), webhookTimestamp: Date.now() }),
    sign: ({ body }) => ({ 'Linear-Signature': hmac('sha256', secrets.linear, body, 'hex'), 'Linear-Delivery': randomUUID() }),
    verify: ({ body, headers }) =>
      holds(() => linear.verify(Buffer.from(body), headers['linear-signature'], JSON.parse(body).webhookTimestamp)),
  },
  paddle: {
    sign({ body }) {
      const time = seconds();
      return { 'Paddle-Signature': `ts=${time};h1=${hmac('sha256', secrets.paddle, `${time}:${body}`, 'hex')}` };
    },
    verify: ({ body, headers }) =>
      holds(() => paddle.webhooks.isSignatureValid(body, secrets.paddle, headers['paddle-signature'])),
  },
  square: {
    sign: ({ url, body }) => ({ 'x-square-hmacsha256-signature': hmac('sha256', secrets.square, url + body, 'base64') }),
    verify: ({ url, body, headers }) =>
      holds(() =>
        WebhooksHelper.verifySignature({
          requestBody: body,
          signatureHeader: headers['x-square-hmacsha256-signature'],
          signatureKey: secrets.square,
          notificationUrl: url,
        }),
      ),
  },
  'standard-webhooks': standard('webhook', new standardwebhooks.Webhook(secrets['standard-webhooks'])),
  stripe: {
    sign: ({ body }) => ({
      'Stripe-Signature': stripe.webhooks.generateTestHeaderString({ payload: body, secret: secrets.stripe }),
    }),
    verify: ({ body, headers }) =>
      holds(() => void stripe.webhooks.constructEvent(body, headers['stripe-signature'], secrets.stripe)),
  },
  svix: standard('svix', new svix.Webhook(secrets.svix)),
  twilio: {
    type: 'application/x-www-form-urlencoded',
    body: () => 'To=%2B15550100&From=%2B15550101&Body=caf%C3%A9+%26+more&Empty=',
    sign: ({ url, body }) => ({
      'X-Twilio-Signature': twilio.getExpectedTwilioSignature(secrets.twilio, url, form(body)),
    }),
    verify: ({ url, body, headers }) =>
      holds(() => twilio.validateRequest(secrets.twilio, headers['x-twilio-signature'], url, form(body))),
  },
};
