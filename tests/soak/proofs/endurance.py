"""Half an hour with 5 % faults (SECURITY S-21): the app resets, hangs and answers 500, signatures are wrong,
senders hang up, the configuration is reloaded every 15 s, Redis restarted every minute. Each sender
sends a delivery until it is answered 200. Then each of them has reached the app exactly once, and memory,
descriptors and threads are what they were.

The first third warms up, with five times the reloads and restarts. What an allocator has once taken it keeps, in
pieces, and a rare pile of requests makes it take more: memory at rest reaches its height in steps that come ever
more seldom. Before that, they look like a leak."""

import collections
import random
import shutil
import signal
import subprocess
import tempfile
import time

from harness.app import App
from harness.gateway import Gateway, check, config, eventually, free_port, github_route
from harness.load import Load, Sender, Wire, account, request

NAME = "endurance"
ABOUT = "half an hour with 5 % faults"
SECONDS = 1800
SLOPE_MAX = 1.0
# What goes wrong, how often, and what the first attempt is answered.
FAULTS = {
    "error": (0.010, {500}), "reset": (0.010, {502}), "hang": (0.002, {504}), "slow": (0.008, {200}),
    "forged": (0.008, {401}), "leaves early": (0.004, {None}), "leaves late": (0.004, {None}), "repeats": (0.004, {200}),
}
# Redis is away: 503. The attempt before is still under way: 409.
PATIENT = {409, 503}


class Persistent(Sender):
    """Repeats a delivery until it is answered 200, whatever went wrong at first."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.random = random.Random(self.name)

    def one(self, delivery):
        draw, kind = self.random.random(), None
        for name, (share, _) in FAULTS.items():
            if draw < share:
                kind = name
                break
            draw -= share
        if kind:
            expected = FAULTS[kind][1] | PATIENT
            status = self.faulty(kind, delivery)
            self.note(kind, status, expected)
            if kind == "forged":
                return
        self.until_accepted(delivery)
        if kind == "repeats":
            self.until_accepted(delivery)

    def faulty(self, kind, delivery):
        data = request(delivery)
        if kind == "leaves early":
            return self.attempt(data[:-5], leaves=True)
        if kind == "leaves late":
            return self.attempt(data, leaves=True)
        if kind == "forged":
            return self.attempt(request(delivery, secret="another secret of 32 characters."))
        if kind == "repeats":
            return self.attempt(data)
        return self.attempt(request(delivery, more=[f"X-Fault: {kind}"]))

    def until_accepted(self, delivery):
        for _ in range(200):
            status = self.attempt(request(delivery))
            self.note("good", status, {200} | PATIENT)
            if status == 200:
                return self.accepted.append(delivery)
            time.sleep(0.3)
        self.outcome["unexpected: never accepted"] += 1

    def note(self, kind, status, expected):
        self.outcome[f"{kind} {status}" if status in expected else f"unexpected: {kind} {status}"] += 1

    def attempt(self, data, leaves=False):
        """Status, `None` for a sender that leaves, or what broke."""
        began = time.monotonic()
        try:
            self.wire = self.wire or Wire(self.load.port, self.context)
            if leaves:
                self.wire.socket.sendall(data)
                self.drop()
                return None
            status = self.wire.exchange(data)
        except OSError as error:
            self.drop()
            return f"{type(error).__name__} {error}"
        self.slowest = max(self.slowest, time.monotonic() - began)
        if not (self.keeps and self.wire.is_open):
            self.drop()
        return status


class Redis:
    """Keeps what it is told on disk, so that a restart forgets nothing."""

    def __init__(self):
        self.port, self.folder = free_port(), tempfile.mkdtemp(prefix="hookward-soak-")
        self.start()

    def start(self):
        self.child = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", self.folder,
             "--save", "", "--appendonly", "yes", "--appendfsync", "always"],
            stdout=subprocess.DEVNULL,
        )

    def stop(self):
        self.child.terminate()
        self.child.wait()

    def restart(self):
        self.stop()
        time.sleep(0.5)
        self.start()

    def close(self):
        self.child.kill()
        self.child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def prove(scale):
    redis = Redis()
    try:
        with App() as app:
            return soak(app, redis, SECONDS * scale)
    finally:
        redis.close()


def soak(app, redis, seconds):
    port, admin = free_port(), free_port()

    def text(number):
        more = (
            "    replay: { window: 1h }\n    forward: { timeout: 2s, set_headers: { X-Reload: \"%d\" } }\n"
            "    rate_limits: [{ key: client_ip, rate: 100000/s }]\n" % number
        )
        state = f'state: {{ store: redis, redis: {{ url: "value:redis://127.0.0.1:{redis.port}", timeout: 500ms }} }}'
        return config(github_route(app, more=more), port, admin, state)

    with Gateway(text(0), admin=admin, events=False) as gateway:
        eventually("Redis is there", lambda: gateway.metric("hookward_state_available") == 1)
        run = Run(gateway, redis, port, text)
        warm = run.phase(seconds / 3, pause=0.01, hurry=5)
        before = gateway.live()
        samples = run.phase(seconds * 2 / 3, pause=0.05, hurry=1)
        # Connections to the app that nobody used for a while are closed with the next use.
        rest = gateway.fds()
        return judge(run, app, (warm, samples), (before, gateway.live()), rest)


class Run:
    """Load, reloads and restarts of Redis, and what came of them."""

    def __init__(self, gateway, redis, port, text):
        self.gateway, self.redis, self.port, self.text = gateway, redis, port, text
        self.outcome, self.accepted, self.slowest = collections.Counter(), [], 0.0
        self.reloads = self.restarts = 0

    def phase(self, seconds, pause, hurry):
        """Samples of memory, descriptors and threads under load. Leaves the gateway at rest."""
        load = Load(self.port, kept=6, fresh=1, pause=pause, sender=Persistent)
        samples = []
        began = time.monotonic()
        reload_at, restart_at = 15 / hurry, 60 / hurry
        while (now := time.monotonic() - began) < seconds:
            if now >= reload_at:
                reload_at += 15 / hurry
                self.reload()
            if now >= restart_at:
                restart_at += 60 / hurry
                self.restarts += 1
                self.redis.restart()
            gateway = self.gateway
            samples.append((now, gateway.rss(), gateway.fds(), gateway.threads()))
            time.sleep(2)
        outcome, accepted, slowest = load.stop()
        self.outcome.update(outcome)
        self.accepted += accepted
        self.slowest = max(self.slowest, slowest)
        eventually("nobody is connected", lambda: self.gateway.metric("hookward_connections") == 0)
        eventually("nothing is in flight", lambda: self.gateway.metric("hookward_requests_in_flight") == 0)
        # A thread that loaded a configuration, and what its allocator has at hand, goes after 10 s.
        time.sleep(12)
        return samples

    def reload(self):
        """Every fifth one is refused."""
        self.reloads += 1
        self.gateway.reload_with(self.text(self.reloads) if self.reloads % 5 else "version: 2\n")
        self.gateway.signal(signal.SIGHUP)


def judge(run, app, phases, live, rest):
    warm, samples = phases
    gateway, outcome = run.gateway, run.outcome
    lost, twice = account(run.accepted, app)
    slope = per_hour(samples)
    hours = samples[-1][0] / 3600
    grown = (live[1] - live[0]) / 1024 / hours
    fds = [sample[2] for sample in samples]
    threads = {sample[3] for sample in samples}
    unexpected = {what: count for what, count in outcome.items() if what.startswith("unexpected")}
    faulty = sum(count for what, count in outcome.items() if not what.startswith("good"))
    restarted = int(gateway.metric("hookward_task_restarts_total"))
    half = len(fds) // 2
    line = (
        f"{warm[-1][0]:.0f} s warming up and {samples[-1][0]:.0f} s, {len(run.accepted)} deliveries accepted, {faulty} attempts with a "
        f"fault ({100 * faulty / max(1, len(run.accepted)):.1f} %), {run.reloads} reloads, {run.restarts} restarts of Redis; unexpected "
        f"{unexpected or 0}, lost {len(lost)}, twice {len(twice)}, slowest {run.slowest:.2f} s; in use at rest in KiB: warm {live[0]}, "
        f"last {live[1]}, {grown:+.2f} MiB/h; RSS in KiB: first {warm[0][1]}, warm {samples[0][1]}, last {samples[-1][1]}, highest "
        f"{gateway.highest_rss()}, slope {slope:+.2f} MiB/h; descriptors at most {max(fds[:half])}, later {max(fds[half:])}, without "
        f"load {rest}; threads {sorted(threads)}; tasks restarted {restarted}; {dict(outcome)}"
    )
    check(not unexpected and not lost and not twice and not restarted, line)
    # A short run says nothing of an hour.
    check(max(slope, grown) < SLOPE_MAX or hours * 3600 < SECONDS / 3, f"memory grows: {line}")
    check(max(fds[half:]) <= max(fds[:half]) + 8 and len(threads) <= 3, f"descriptors or threads grow: {line}")
    return line


def per_hour(samples):
    """Slope of the resident memory by least squares, in MiB an hour."""
    count = len(samples)
    mean_time = sum(sample[0] for sample in samples) / count
    mean_rss = sum(sample[1] for sample in samples) / count
    above = sum((time - mean_time) * (rss - mean_rss) for time, rss, *_ in samples)
    below = sum((time - mean_time) ** 2 for time, *_ in samples)
    return above / max(below, 1e-9) * 3600 / 1024
