"""The wall clock jumps (SECURITY S-06, T-12) by an hour, by two days and back to 1970, by libfaketime
(Debian: faketime). Verdicts follow it, timers do not, nothing panics, the log warns, what is served
as certificate stays, and a certificate authority that cannot be reached is not asked more often."""

import glob
import hashlib
import hmac
import shutil
import ssl
import tempfile
import time
from pathlib import Path

from harness.app import App
from harness.gateway import SECRET, Gateway, check, config, eventually, free_port, github_route
from harness.load import Load, Wire, account, failures

NAME = "clock"
ABOUT = "jumps of the wall clock"
LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"
HOUR, DAY = 3600, 86400
ORDERS = 'hookward_acme_orders_total{result="failure"}'


def prove(scale):
    libraries = glob.glob(LIBRARY)
    check(libraries, "libfaketime is not installed (Debian: faketime)")
    folder = Path(tempfile.mkdtemp(prefix="hookward-soak-"))
    clock = Clock(folder / "offset")
    env = {
        "LD_PRELOAD": libraries[0], "FAKETIME_TIMESTAMP_FILE": str(clock.file),
        "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    port, admin = free_port(), free_port()
    try:
        with App() as app, Gateway(text(app, port, admin), env=env, admin=admin) as gateway:
            return jumps(gateway, app, port, clock, scale)
    finally:
        shutil.rmtree(folder)


class Clock:
    """The clock of the gateway: so many seconds from ours."""

    def __init__(self, file):
        self.file = file
        self.set(0)

    def set(self, offset):
        following = self.file.with_suffix(".next")
        following.write_text(f"{offset:+d}\n")
        following.rename(self.file)
        self.offset = offset

    def now(self):
        return int(time.time()) + self.offset


def text(app, port, admin):
    routes = github_route(app) + f"""  - name: stripe
    match: {{ path: /stripe }}
    verify: [{{ provider: stripe, secrets: ["value:{SECRET}"] }}]
    upstream: "{app.url}"
  - name: limited
    match: {{ path: /limited }}
    verify: none
    upstream: echo
    rate_limits: [{{ key: client_ip, rate: 1/h, burst: 1 }}]
"""
    ordered = """  ordered:
    address: 127.0.0.1:0
    tls: { acme: { domains: [hooks.example.org], email: ops@example.org, directory: "https://127.0.0.1:1/", cache: DIR/acme } }
"""
    return config(routes, port, admin, listener=ordered)


def stripe(wire, at, name):
    """Status of a delivery that is signed at this time."""
    body = name.encode()
    signed = hmac.new(SECRET.encode(), b"%d.%s" % (at, body), hashlib.sha256).hexdigest()
    head = (
        f"POST /stripe HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Stripe-Signature: t={at},v1={signed}\r\nX-Delivery: {name}\r\n\r\n"
    )
    return wire.exchange(head.encode() + body)


def limited(wire):
    return wire.exchange(b"POST /limited HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")


def jumps(gateway, app, port, clock, scale):
    served = lambda: ssl.get_server_certificate(("127.0.0.1", port))
    certificate, first_at = served(), clock.now()
    # Kept over every jump: its idle time must not end by one.
    wire = Wire(port)
    check(stripe(wire, first_at, "first") == 200, "a delivery before the first jump")
    check((limited(wire), limited(wire)) == (200, 429), "the limit before the first jump")
    load = Load(port, kept=2, fresh=1, pause=0.01, processes=1)
    offsets = [HOUR, -HOUR, 2 * DAY, -2 * DAY, -int(time.time()) + 10, 0]
    judged = warned = 0
    for offset in offsets if scale >= 1 else offsets[-2:]:
        before = clock.offset
        clock.set(offset)
        time.sleep(0.1)
        for at, expected in ((clock.now(), 200), (clock.now() - offset + before, 401)):
            status = stripe(wire, at, f"after {offset} at {at}")
            check(status == expected, f"clock {offset:+d} s, signed at {at}: {status}, not {expected}")
            judged += 1
        check(limited(wire) == 429, f"a limit of one an hour was refilled by a jump of {offset - before:+d} s")
        check(served() == certificate, "another certificate is served")
        # It looks every ten seconds.
        warned += 1
        eventually("a warning", lambda: sum("the wall clock was set" in line for line in gateway.log) >= warned, 15)
    # Signed at the same time as at first, and known as the same delivery: the window did not jump either.
    check(stripe(wire, first_at, "first") == 200, "the first delivery again")
    outcome, accepted, _ = load.stop()
    lost, twice = account(accepted, app)
    orders = int(gateway.metric(ORDERS))
    panics = sum("panicked" in line for line in gateway.log)
    line = (
        f"{warned} jumps, {warned} warnings, {judged} verdicts right, {sum(outcome.values())} deliveries beside, failed "
        f"{failures(outcome) or 0}, lost {len(lost)}, twice {len(twice)}, panics {panics}, orders of a certificate {orders}, "
        f"restarts of tasks {int(gateway.metric('hookward_task_restarts_total'))}"
    )
    check(not failures(outcome) and not lost and not twice and not panics and orders <= 4, line)
    return line
