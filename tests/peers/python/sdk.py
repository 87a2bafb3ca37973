"""What the SDKs for Python sign and verify, by preset.

`SIGN[name](url, body)` gives a delivery's headers; `VERIFY[name](url, headers, body)` judges what arrived
by them and raises, or returns False, when it does not hold. `url` is as the provider knows it.
"""

import json
import time
import uuid
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import parse_qsl

import standardwebhooks
import stripe
import svix
from slack_sdk.signature import SignatureVerifier
from twilio.request_validator import RequestValidator

SECRETS = json.loads((Path(__file__).parent.parent / "secrets.json").read_text())

slack = SignatureVerifier(SECRETS["slack"])
twilio = RequestValidator(SECRETS["twilio"])
standard = standardwebhooks.Webhook(SECRETS["standard-webhooks"])
svix_webhook = svix.Webhook(SECRETS["svix"])


def form(body):
    return dict(parse_qsl(body.decode(), keep_blank_values=True))


def sign_standard(webhook, prefix, body):
    message, now = f"msg_{uuid.uuid4()}", datetime.now(timezone.utc)
    return {
        f"{prefix}-id": message,
        f"{prefix}-timestamp": str(int(now.timestamp())),
        f"{prefix}-signature": webhook.sign(message, now, body.decode()),
    }


def sign_stripe(_url, body):
    now = int(time.time())
    # The library signs only in its own tests, with the same call that its verification is made of.
    tag = stripe.WebhookSignature._compute_signature(f"{now}.{body.decode()}", SECRETS["stripe"])
    return {"Stripe-Signature": f"t={now},v1={tag}"}


def sign_slack(_url, body):
    now = str(int(time.time()))
    signature = slack.generate_signature(timestamp=now, body=body)
    return {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": signature}


SIGN = {
    "slack": sign_slack,
    "standard-webhooks": lambda _url, body: sign_standard(standard, "webhook", body),
    "stripe": sign_stripe,
    "svix": lambda _url, body: sign_standard(svix_webhook, "svix", body),
    "twilio": lambda url, body: {"X-Twilio-Signature": twilio.compute_signature(url, form(body))},
}

VERIFY = {
    "slack": lambda _url, headers, body: slack.is_valid_request(body, headers),
    "standard-webhooks": lambda _url, headers, body: standard.verify(body.decode(), headers),
    "stripe": lambda _url, headers, body: stripe.WebhookSignature.verify_header(
        body.decode(), headers["stripe-signature"], SECRETS["stripe"], 300
    ),
    "svix": lambda _url, headers, body: svix_webhook.verify(body.decode(), headers),
    "twilio": lambda url, headers, body: twilio.validate(url, form(body), headers["x-twilio-signature"]),
}
