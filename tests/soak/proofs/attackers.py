"""How long somebody who means no good is held, with the limits at their defaults (SECURITY DS-01 to DS-04, H2-20): twenty
of each kind at once, while a probe beside is served."""

import collections
import socket
import threading
import time

from harness.app import App
from harness.gateway import Gateway, check, config, free_port, github_route
from harness.load import Load, Wire, account, failures, request, tls_context

NAME = "attackers"
ABOUT = "how long attackers are held"
EACH = 20
# A ClientHello that says it is longer than it is.
HALF_HELLO = bytes.fromhex("1603010200010001fc0303") + b"\0" * 20
# What is done, and when it is over by the documentation: some seconds are for the machine.
LEEWAY = 3


def prove(scale):
    port = free_port()
    with App() as app, Gateway(config(github_route(app), port, 0)) as gateway:
        load = Load(port, kept=1, fresh=1, pause=0.02, processes=1)
        held = collections.defaultdict(list)
        kinds = {
            "nothing said": (raw, b"", b"", 10), "half a ClientHello": (raw, HALF_HELLO, b"", 10),
            "a ClientHello, a byte a second": (raw, HALF_HELLO, b"\0", 10), "TLS, then nothing": (tls, b"", b"", 10),
            "a head, a byte a second": (tls, b"POST /github HTTP/1.1\r\nX-A: ", b"a", 10),
            "HTTP/2, then nothing": (h2, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", b"", 10),
            "half a body": (tls, request("half")[:-3], b"", 10),
            "a body, a byte a second": (tls, request("slow", body=b"x" * 1000)[:-900], b"x", 10),
            "idle after a delivery": (idle, b"", b"", 75),
        }

        def one(name):
            connect, first, drip, _ = kinds[name]
            with connect(port) as wire:
                wire.settimeout(1)
                began = time.monotonic()
                wire.sendall(first)
                held[name].append(until_closed(wire, drip, began))

        threads = [threading.Thread(target=one, args=(name,)) for name in kinds for _ in range(EACH)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outcome, accepted, slowest = load.stop()
        lost, twice = account(accepted, app)
        parts = [f"{name} {max(held[name]):.1f} s of {kinds[name][3]}" for name in kinds]
        line = (
            f"{EACH} of each held for at most: {', '.join(parts)}; beside {sum(outcome.values())} deliveries, failed "
            f"{failures(outcome) or 0}, lost {len(lost)}, twice {len(twice)}, slowest {slowest:.2f} s"
        )
        check(all(len(held[name]) == EACH and max(held[name]) < kinds[name][3] + LEEWAY for name in kinds), line)
        check(not failures(outcome) and not lost and not twice, line)
        return line


def raw(port):
    return socket.create_connection(("127.0.0.1", port), 10)


def tls(port, protocols=("http/1.1",)):
    context = tls_context()
    context.set_alpn_protocols(protocols)
    return context.wrap_socket(raw(port))


def h2(port):
    return tls(port, ("h2",))


def idle(port):
    wire = Wire(port)
    check(wire.exchange(request(f"before idling {wire.socket.getsockname()}")) == 200, "a delivery")
    return wire.socket


def until_closed(wire, drip, began):
    """Seconds until the other side ends it, whatever it says before."""
    while time.monotonic() - began < 120:
        try:
            if not wire.recv(4096):
                break
        except TimeoutError:
            try:
                wire.sendall(drip)
            except OSError:
                break
        except OSError:
            break
    return time.monotonic() - began
