"""Rolling restarts (SECURITY S-08): two processes share a port by SO_REUSEPORT, or one after the other
serves a socket that the service manager holds. No delivery may fail."""

import socket
import time

from harness.app import App
from harness.gateway import Gateway, check, config, free_port, github_route
from harness.load import Load, account, failures

NAME = "restart"
ABOUT = "rolling restarts under load, by SO_REUSEPORT and by socket activation"


def prove(scale):
    rounds = max(2, int(20 * scale))
    lines = [shared_port(rounds, delay) for delay in ("0s", "1s")]
    lines.append(held_socket(rounds))
    return "; ".join(lines)


def shared_port(rounds, delay):
    port, more = free_port(), f"limits: {{ drain_delay: {delay} }}"
    with App() as app:
        start = lambda: Gateway(config(github_route(app), port, 0, more))
        old = start()
        load = Load(port)
        try:
            for _ in range(rounds):
                time.sleep(0.3)
                new = start()
                status = old.stop()
                old.close()
                check(status == 0, f"exit status {status}")
                old = new
            outcome, accepted, slowest = load.stop()
        finally:
            old.close()
        return judge(f"SO_REUSEPORT, drain_delay {delay}", rounds, outcome, accepted, slowest, app)


def held_socket(rounds):
    with App() as app, socket.create_server(("127.0.0.1", 0), backlog=1024) as held:
        port = held.getsockname()[1]
        start = lambda: Gateway(config(github_route(app), port, 0), passed=held)
        gateway = start()
        load = Load(port)
        try:
            for _ in range(rounds):
                time.sleep(0.3)
                status = gateway.stop()
                gateway.close()
                check(status == 0, f"exit status {status}")
                gateway = start()
            outcome, accepted, slowest = load.stop()
        finally:
            gateway.close()
        return judge("socket activation", rounds, outcome, accepted, slowest, app)


def judge(what, rounds, outcome, accepted, slowest, app):
    lost, twice = account(accepted, app)
    line = (
        f"{what}: {rounds} restarts, {sum(outcome.values())} deliveries, failed {failures(outcome) or 0}, "
        f"lost {len(lost)}, twice {len(twice)}, slowest {slowest:.2f} s"
    )
    check(not failures(outcome) and not lost and not twice, line)
    return line
