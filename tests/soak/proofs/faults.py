"""What the machine and the process itself can do (SECURITY DS-09, S-05, S-17, S-19, S-20): descriptors run out, disks
are full, it is aborted and started again, passwords are guessed."""

import base64
import signal
import subprocess
import threading
import time

from harness.app import App
from harness.gateway import BINARY, Gateway, check, config, eventually, free_port, github_route
from harness.load import Wire, request

NAME = "faults"
ABOUT = "descriptors, disks, aborts, guessed passwords"


def prove(scale):
    return "; ".join(run(scale) for run in (descriptors, full_disk, aborts, passwords))


def plain(app, routes="", more=""):
    """A gateway's text with a plain listener beside, and its ports."""
    ports = {"https": free_port(), "http": free_port(), "admin": free_port()}
    listener = f"  http: {{ address: 127.0.0.1:{ports['http']}, plaintext: allow }}\n"
    return config(github_route(app) + routes, ports["https"], ports["admin"], more, listener), ports


def descriptors(scale):
    """With 64 descriptors and 200 connections probes are answered, and afterwards everything is."""
    with App() as app:
        text, ports = plain(app)
        with Gateway(text, wrapper=["prlimit", "--nofile=64"], admin=ports["admin"]) as gateway:
            held = [Wire(ports["http"], False) for _ in range(200)]
            eventually("descriptors have run out", lambda: gateway.said("cannot accept connections"))
            before = ticks(gateway.pid)
            answers = [gateway.admin("/readyz", timeout=5) for _ in range(100)]
            failed = sum(answer is None or answer[0] != 200 for answer in answers)
            time.sleep(2)
            spent = ticks(gateway.pid) - before
            for wire in held:
                wire.close()

            def serves():
                try:
                    with Wire(ports["https"], timeout=5) as wire:
                        return wire.exchange(request("after")) == 200
                except OSError:
                    return False

            eventually("it serves again", serves)
            complaints = sum("cannot accept" in line for line in gateway.log)
            line = f"64 descriptors, 200 connections: {failed} of 100 probes failed, {spent} ticks of CPU, {complaints} lines of log"
            check(not failed and spent < 150 and complaints < 20, line)
            return line


def ticks(pid):
    """Hundredths of a second of CPU."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def full_disk(scale):
    """Nothing is written but the log: when its disk is full, lines are lost and counted, and requests served."""
    with App() as app:
        text, ports = plain(app)
        full = ["sh", "-c", 'exec "$@" >/dev/full', "sh"]
        with Gateway(text, wrapper=full, admin=ports["admin"]) as gateway:
            with Wire(ports["https"]) as wire:
                statuses = {wire.exchange(request(f"full-{number}")) for number in range(500)}
            dropped = "hookward_access_log_dropped_total"
            lost = eventually("lost lines are counted", lambda: gateway.metric(dropped))
            check(statuses == {200}, f"the log's disk is full: {statuses}")
            return f"full disk: 500 deliveries served, {lost:.0f} lines of log lost and counted"


def aborts(scale):
    """Aborted and killed under load, started again on the same port: serves within a second."""
    with App() as app:
        text, ports = plain(app)
        slowest = 0.0
        for number in (signal.SIGABRT, signal.SIGKILL):
            with Gateway(text, admin=ports["admin"]) as gateway:
                slowest = max(slowest, gateway.ready_after)
                with Wire(ports["https"]) as wire:
                    check(wire.exchange(request(f"before-{number}")) == 200, "a delivery before")
                    gateway.signal(number)
                    gateway.wait()
        check(slowest < 1, f"it took {slowest:.2f} s to start")
        return f"aborted, killed and started on its port: serves after {slowest:.2f} s at most"


def passwords(scale):
    """Guessed Argon2id passwords take a thread of their own: a probe beside waits no longer (SECURITY S-19, DS-28)."""
    hashed = subprocess.run(
        [BINARY, "hash-password"], input=b"right\n", capture_output=True, check=True
    ).stdout.decode().strip()
    with App() as app:
        routes = (
            "  - name: basic\n    match: { path: /basic }\n    upstream: echo\n"
            f"    verify: [{{ basic: {{ users: [{{ name: ci, password_hash: \"{hashed}\" }}] }} }}]\n"
        )
        text, ports = plain(app, routes)
        with Gateway(text, admin=ports["admin"]) as gateway:
            quiet = percentile(ports, 300)
            stopped, guesses = threading.Event(), []

            def guess(number):
                wire, count = None, 0
                while not stopped.is_set():
                    pair = base64.b64encode(f"ci:wrong-{number}-{count}".encode()).decode()
                    try:
                        wire = wire if wire and wire.is_open else Wire(ports["http"], False)
                        guesses.append(wire.exchange(
                            f"POST /basic HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {pair}\r\nContent-Length: 0\r\n\r\n".encode()
                        ))
                    except OSError:
                        wire = None
                    count += 1
                    time.sleep(0.002)

            threads = [threading.Thread(target=guess, args=(number,)) for number in range(32)]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            busy = percentile(ports, 300)
            stopped.set()
            for thread in threads:
                thread.join()
            line = (
                f"{len(guesses)} guessed passwords ({sum(status == 200 for status in guesses)} accepted): p99 of a probe "
                f"{busy * 1000:.0f} ms, before {quiet * 1000:.0f} ms"
            )
            check(200 not in guesses and busy < max(0.05, 3 * quiet), line)
            return line


def percentile(ports, count):
    """The 99th of so many deliveries, in seconds."""
    times = []
    with Wire(ports["https"]) as wire:
        for number in range(count):
            began = time.monotonic()
            check(wire.exchange(request(f"probe-{number}")) == 200, "a probe")
            times.append(time.monotonic() - began)
    return sorted(times)[count * 99 // 100]
