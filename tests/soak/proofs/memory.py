"""A memory cgroup of 64 MiB (SECURITY S-18): floods of connections, bodies, handshakes, clients and
deliveries, one after the other. The process is not killed, and a probe beside is served all the time.

Needs root, and a memory controller of cgroup v1 or v2."""

import collections
import contextlib
import itertools
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from harness.app import App
from harness.gateway import Gateway, check, config, free_port, github_route
from harness.load import Wire, request, tls_context

NAME = "memory"
ABOUT = "floods inside a memory cgroup of 64 MiB"
LIMIT = 64 << 20


class Cgroup:
    """A cgroup with a limit of memory and no swap."""

    def __init__(self, limit):
        name = f"hookward-soak-{os.getpid()}"
        one, two = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
        self.is_v1 = (one / "memory.limit_in_bytes").exists()
        check(self.is_v1 or (two / "cgroup.controllers").exists(), "no memory controller")
        self.path = (one if self.is_v1 else two) / name
        if not self.is_v1:
            (two / "cgroup.subtree_control").write_text("+memory")
        self.path.mkdir()
        (self.path / ("memory.limit_in_bytes" if self.is_v1 else "memory.max")).write_text(str(limit))

    def wrapper(self):
        return ["sh", "-c", f'echo $$ >{self.path}/cgroup.procs; exec "$@"', "sh"]

    def highest(self):
        name = "memory.max_usage_in_bytes" if self.is_v1 else "memory.peak"
        return int((self.path / name).read_text())

    def kills(self):
        text = (self.path / ("memory.oom_control" if self.is_v1 else "memory.events")).read_text()
        return int(dict(line.split() for line in text.splitlines()).get("oom_kill", 0))

    def close(self):
        for _ in range(100):
            with contextlib.suppress(OSError):
                return self.path.rmdir()
            time.sleep(0.05)


class Probe:
    """Asks on a kept plain connection, on a fresh TLS one and the admin listener, all the time."""

    def __init__(self, gateway, https, http):
        self.gateway, self.https, self.http = gateway, https, http
        self.outcome, self.times, self.stopped = collections.Counter(), [], threading.Event()
        self.threads = [threading.Thread(target=run) for run in (self._kept, self._admin)]
        for thread in self.threads:
            thread.start()

    def _kept(self):
        wire, number = None, 0
        while not self.stopped.wait(0.05):
            number += 1
            began = time.monotonic()
            try:
                wire = wire or Wire(self.http, False)
                status = wire.exchange(request(f"probe-{number}", "/probe"))
                wire = wire if wire.is_open else None
            except OSError as error:
                status, wire = f"{type(error).__name__} {error}", None
            self.outcome[f"probe {status}"] += 1
            self.times.append(time.monotonic() - began)

    def _admin(self):
        while not self.stopped.wait(0.2):
            answer = self.gateway.admin("/livez", timeout=5)
            self.outcome[f"livez {answer and answer[0]}"] += 1

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        return self.outcome, max(self.times)


def in_threads(count, run):
    """Statuses or errors of `run` in so many threads at once."""
    outcome = collections.Counter()

    def one(number):
        try:
            outcome[run(number)] += 1
        except OSError as error:
            outcome[type(error).__name__] += 1

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def connections(ports, scale):
    """Opened and held, TLS handshake done, some with half a head."""
    held, outcome = [], collections.Counter()
    context = tls_context()
    for number in range(int(2000 * scale)):
        try:
            wire = Wire(ports["https"], context, timeout=5)
            wire.socket.sendall(b"POST /github HTTP/1.1\r\nX-A: " + b"a" * 8000)
            held.append(wire)
            outcome["open"] += 1
        except OSError as error:
            outcome[type(error).__name__] += 1
    time.sleep(1)
    for wire in held:
        wire.close()
    return outcome


def bodies(ports, scale):
    """The largest bodies that the route takes, all at once (SECURITY DS-12)."""
    body = b"x" * (1 << 20)

    def one(number):
        with Wire(ports["http"], False) as wire:
            return wire.exchange(request(f"body-{number}", "/github", body))

    return in_threads(int(300 * scale), one)


def slow_bodies(ports, scale):
    """Bodies that stop in the middle, and go on a byte at a time (SECURITY DS-13)."""
    end = time.monotonic() + 8 * scale

    def one(number):
        body = b"x" * (1 << 20)
        with Wire(ports["https"]) as wire:
            data = request(f"slow-{number}", "/github", body)
            wire.socket.sendall(data[: 200 << 10])
            while time.monotonic() < end:
                wire.socket.sendall(b"x")
                time.sleep(0.5)
            return "held"

    return in_threads(int(300 * scale), one)


def handshakes(ports, scale):
    """Handshakes without a request, as fast as they go (SECURITY DS-05)."""
    end, context = time.monotonic() + 8 * scale, tls_context()

    def one(_):
        count = 0
        while time.monotonic() < end:
            with contextlib.suppress(OSError), Wire(ports["https"], context, timeout=5):
                count += 1
        made.append(count)
        return "done"

    made = []
    in_threads(16, one)
    return collections.Counter({"handshakes": sum(made)})


def clients(ports, scale):
    """Every request from another address, as a trusted proxy tells (SECURITY DS-23)."""
    return _pipelined(ports["http"], int(200_000 * scale), _from_another)


def _from_another(number):
    address = ".".join(str(part) for part in (10, number >> 16 & 255, number >> 8 & 255, number & 255))
    return f"POST /limited HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\nContent-Length: 0\r\n\r\n".encode()


def deliveries(ports, scale):
    """Signed deliveries that all have to be remembered (SECURITY DS-24)."""
    return _pipelined(ports["http"], int(100_000 * scale), lambda number: request(f"d-{number}", "/kept"))


def _pipelined(port, total, make):
    """So many requests on four connections, sixteen ahead of their answers."""

    def one(lane):
        outcome = collections.Counter()
        numbers = iter(range(lane, total, 4))
        wire = Wire(port, False)
        while batch := list(itertools.islice(numbers, 16)):
            wire.socket.sendall(b"".join(map(make, batch)))
            for _ in batch:
                outcome[wire.answer()] += 1
        counted.update(outcome)
        return "done"

    counted = collections.Counter()
    counted.update({what: n for what, n in in_threads(4, one).items() if what != "done"})
    return counted


def streams(ports, scale):
    """The largest heads and bodies on many streams of many HTTP/2 connections, by h2load (Debian: nghttp2-client)."""
    heads = [word for number in range(3) for word in ("-H", f"x-{number}: {'a' * 9000}")]
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"x" * (1 << 20))
        body.flush()
        ran = subprocess.run(
            ["h2load", "-c", "120", "-m", "64", "-n", str(int(12_000 * scale)), "-d", body.name, *heads,
             "-H", "x-hub-signature-256: sha256=" + "0" * 64, f"https://127.0.0.1:{ports['https']}/github"],
            capture_output=True, text=True,
        )
    lines = [line for line in ran.stdout.splitlines() if line.startswith(("requests:", "status codes:"))]
    return collections.Counter({line: 1 for line in lines})


FLOODS = [connections, bodies, slow_bodies, streams, handshakes, clients, deliveries]


def prove(scale, more=""):
    cgroup = Cgroup(LIMIT)
    ports = {"https": free_port(), "http": free_port()}
    admin = free_port()
    try:
        with App() as app:
            routes = (
                github_route(app) + github_route(app, "kept", "    replay: { window: 10m }\n")
                + f'  - {{ name: probe, match: {{ path: /probe }}, verify: none, upstream: "{app.url}" }}\n'
                + "  - { name: limited, match: { path: /limited }, verify: none, upstream: echo,"
                + " rate_limits: [{ key: client_ip, rate: 1/h, burst: 1 }] }\n"
            )
            listener = (
                f"  http: {{ address: 127.0.0.1:{ports['http']}, plaintext: allow,"
                " trusted_proxies: [127.0.0.0/8] }\n"
            )
            text = config(routes, ports["https"], admin, more, listener)
            with Gateway(text, wrapper=cgroup.wrapper(), admin=admin) as gateway:
                return flood(gateway, cgroup, ports, scale)
    finally:
        cgroup.close()


def flood(gateway, cgroup, ports, scale):
    lines = [f"at rest {gateway.rss() >> 10} MiB"]
    highest = []
    for run in FLOODS:
        gateway.forget_highest_rss()
        probe = Probe(gateway, ports["https"], ports["http"])
        try:
            outcome = run(ports, scale)
        finally:
            asked, slowest = probe.stop()
        check(gateway.is_running() and not cgroup.kills(), f"killed by {run.__name__}; before: {'; '.join(lines)}")
        highest.append(gateway.highest_rss() >> 10)
        lines.append(
            f"{run.__name__} {dict(outcome)}: at most {highest[-1]} MiB, now {gateway.rss() >> 10}, probe {dict(asked)}, slowest {slowest:.2f} s"
        )
        refused = sum(count for what, count in asked.items() if what not in ("probe 200", "probe 503", "livez 200"))
        check(not refused, f"the probe failed: {lines[-1]}")
    return (
        f"{'; '.join(lines)}; highest RSS {max(highest)} MiB, "
        f"highest of the cgroup {cgroup.highest() >> 20} MiB of {LIMIT >> 20}, kills {cgroup.kills()}"
    )
