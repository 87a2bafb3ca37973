"""A thousand and more connections that say nothing, half, or a byte a second, each opened anew as soon as it is
closed (SECURITY DS-01 to DS-04): deliveries beside are served, and `/livez` and `/metrics` are answered at once."""

import asyncio
import collections
import multiprocessing
import threading
import time

from harness.app import App
from harness.gateway import Gateway, check, config, eventually, free_port, github_route
from harness.load import Load, account, failures, request, tls_context
from proofs.attackers import HALF_HELLO

NAME = "storm"
ABOUT = "a storm of slow and half-open connections"
SECONDS = 60
EACH = 160
# A probe by an orchestrator waits for a second by default.
P99_MAX = 1.0
# With TLS or without, what is said at first, and then each second.
KINDS = {
    "nothing": (False, b"", b""), "half a ClientHello": (False, HALF_HELLO, b""), "a ClientHello": (False, HALF_HELLO, b"\0"),
    "TLS": (True, b"", b""), "a head": (True, b"POST /github HTTP/1.1\r\nX-A: ", b"a"),
    "HTTP/2": (True, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", b""),
    "half a body": (True, request("half")[:-3], b""), "a body": (True, request("slow", body=b"x" * 1000)[:-900], b"x"),
}


class Storm:
    """Connections of all kinds, in a process of their own."""

    def __init__(self, port, each):
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=_main, args=(port, each, theirs), daemon=True)
        self.process.start()

    def stop(self):
        """How many connections of each kind there were."""
        self.pipe.send("stop")
        opened = self.pipe.recv()
        self.process.join()
        return opened


def _main(port, each, pipe):
    opened = collections.Counter()

    async def storm():
        one_after_the_other = [_again(port, kind, opened) for kind in KINDS for _ in range(each)]
        tasks = [asyncio.create_task(attacker) for attacker in one_after_the_other]
        await asyncio.to_thread(pipe.recv)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(storm())
    pipe.send(opened)


async def _again(port, kind, opened):
    has_tls, first, drip = KINDS[kind]
    context = tls_context() if has_tls else None
    if context:
        context.set_alpn_protocols(["h2" if kind == "HTTP/2" else "http/1.1"])
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        except OSError:
            await asyncio.sleep(1)
            continue
        opened[kind] += 1
        try:
            await _until_closed(reader, writer, first, drip)
        except OSError:
            pass
        finally:
            writer.transport.abort()


async def _until_closed(reader, writer, first, drip):
    writer.write(first)
    while True:
        try:
            if not await asyncio.wait_for(reader.read(4096), 1):
                return
        except TimeoutError:
            writer.write(drip)


class Probe:
    """Asks the admin listener all the time."""

    def __init__(self, gateway):
        self.gateway, self.stopped = gateway, threading.Event()
        self.outcome, self.times = collections.Counter(), {"/livez": [], "/metrics": []}
        self.threads = [
            threading.Thread(target=self._ask, args=asked) for asked in (("/livez", 0.05), ("/metrics", 0.5))
        ]
        for thread in self.threads:
            thread.start()

    def _ask(self, path, pause):
        while not self.stopped.wait(pause):
            began = time.monotonic()
            answer = self.gateway.admin(path, timeout=5)
            self.times[path].append(time.monotonic() - began)
            self.outcome[f"{path} {answer and answer[0]}"] += 1

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        return {path: sorted(times)[int(len(times) * 0.99)] for path, times in self.times.items()}


def prove(scale):
    port, admin = free_port(), free_port()
    with App() as app, Gateway(config(github_route(app), port, admin), admin=admin, events=False) as gateway:
        load = Load(port, kept=1, fresh=1, pause=0.05)
        calm = Probe(gateway)
        time.sleep(10 * scale)
        before, rss, fds = calm.stop(), gateway.rss(), gateway.fds()
        storm = Storm(port, EACH)
        eventually("the storm is there", lambda: gateway.metric("hookward_connections") > EACH * len(KINDS) * 0.9)
        probe = Probe(gateway)
        time.sleep(SECONDS * scale)
        held = int(gateway.metric("hookward_connections"))
        during, highest = probe.stop(), gateway.highest_rss()
        opened = storm.stop()
        outcome, accepted, slowest = load.stop()
        eventually("nobody is connected", lambda: gateway.metric("hookward_connections") == 0, patience=90)
        lost, twice = account(accepted, app)
        line = (
            f"{held} connections held, {sum(opened.values())} opened; beside {sum(outcome.values())} deliveries, failed "
            f"{failures(outcome) or 0}, lost {len(lost)}, twice {len(twice)}, slowest {slowest:.2f} s; p99 in ms, calm and "
            f"in the storm: {_both('/livez', before, during)}, {_both('/metrics', before, during)}; {dict(probe.outcome)}; "
            f"RSS in KiB: before {rss}, highest {highest}, after {gateway.rss()}; descriptors before {fds}, after {gateway.fds()}"
        )
        refused = [what for what in probe.outcome if not what.endswith(" 200")]
        check(not failures(outcome) and not lost and not twice and not refused, line)
        check(max(during.values()) < P99_MAX and set(opened) == set(KINDS), line)
        return line


def _both(path, before, during):
    return f"{path} {before[path] * 1000:.0f} and {during[path] * 1000:.0f}"
