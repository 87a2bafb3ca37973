"""A Redis Cluster of three masters, each with a replica (Debian: redis-server). A master is killed, its replica is
promoted, and the gateway claims again by itself; then another one, and at last all of them at once.

`reject` answers 503 for the keys that nobody has, `local` goes on. Nothing is forwarded twice while a
master is there; what the failover itself loses (its replica may lag) is counted apart."""

import collections
import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from harness.app import App
from harness.gateway import Gateway, check, config, eventually, free_port, github_route
from harness.load import Wire, request

NAME = "cluster"
ABOUT = "failover of a Redis Cluster"


class Node:
    def __init__(self, folder):
        self.port, self.bus = free_port(), free_port()
        self.folder = Path(folder) / str(self.port)
        self.folder.mkdir()
        self.start()

    def start(self):
        self.child = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--cluster-port", str(self.bus),
             "--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no",
             "--cluster-replica-validity-factor", "0", "--save", "", "--dir", str(self.folder)],
            stdout=subprocess.DEVNULL,
        )
        eventually("redis-server answers", lambda: self.ask("PING") == "PONG")

    def ask(self, *words):
        """The answer to an inline command, as text; `None` where nobody answers."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 2) as wire:
            wire.sendall((" ".join(map(str, words)) + "\r\n").encode())
            stream = wire.makefile("rb")
            line = stream.readline().decode().rstrip()
            if line.startswith("$"):
                return stream.read(max(0, int(line[1:]))).decode()
            return line[1:]
        return None

    def kill(self):
        self.child.kill()
        self.child.wait()


def masters(nodes):
    return [node for node in nodes if "role:master" in (node.ask("INFO", "replication") or "")]


def build(folder):
    """Six nodes; the last three follow the first three."""
    nodes = [Node(folder) for _ in range(6)]
    for index, (first, last) in enumerate([(0, 5460), (5461, 10922), (10923, 16383)]):
        check(nodes[index].ask("CLUSTER", "ADDSLOTSRANGE", first, last) == "OK", "slots")
    for index, node in enumerate(nodes):
        node.ask("CONFIG", "SET", "cluster-announce-bus-port", node.bus)
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
    knows_all = lambda node: "cluster_known_nodes:6" in (node.ask("CLUSTER", "INFO") or "")
    eventually("the nodes know each other", lambda: all(map(knows_all, nodes)))
    for master, replica in zip(nodes[:3], nodes[3:]):
        name = master.ask("CLUSTER", "MYID")
        eventually("a replica", lambda: replica.ask("CLUSTER", "REPLICATE", name) == "OK")
    is_ready = lambda node: "cluster_state:ok" in node.ask("CLUSTER", "INFO")
    eventually("the cluster is ready", lambda: all(map(is_ready, nodes)))
    for replica in nodes[3:]:
        eventually("it follows", lambda: "master_link_status:up" in replica.ask("INFO", "replication"))
    return nodes


def prove(scale):
    folder = tempfile.mkdtemp(prefix="hookward-soak-")
    nodes = []
    try:
        nodes = build(folder)
        with App() as app:
            lines = [failover(app, nodes, on_failure) for on_failure in ("reject", "local")]
        return "; ".join(lines)
    finally:
        for node in nodes:
            node.kill()
        shutil.rmtree(folder)


def gateway_of(app, nodes, on_failure):
    admin, port = free_port(), free_port()
    state = (
        f"state: {{ store: redis, redis: {{ url: \"value:redis://127.0.0.1:{nodes[0].port}\", cluster: true, "
        f"timeout: 300ms, on_failure: {on_failure}, prefix: {on_failure} }} }}"
    )
    text = config(github_route(app, more="    replay: { window: 10m }\n"), port, admin, state)
    return port, Gateway(text, admin=admin)


def failover(app, nodes, on_failure):
    port, gateway = gateway_of(app, nodes, on_failure)
    with gateway:
        sender = Sender(port, on_failure)
        eventually("it claims", lambda: sender.send() == 200)
        lines = []
        for number in range(2):
            victim = masters(nodes)[number]
            victim.kill()
            took, statuses = sender.until_all_pass()
            # Where nothing is refused meanwhile, all pass before: a master that comes back in time stays one.
            eventually("its replica leads", lambda: len(masters(nodes)) == 3)
            lines.append(f"a master killed: {dict(statuses)}, all keys served again after {took:.1f} s")
            allowed = {200, 503} if on_failure == "reject" else {200}
            check(set(statuses) <= allowed, f"{on_failure}: {lines[-1]}")
            victim.start()
            eventually("it follows", lambda: "master_link_status:up" in (victim.ask("INFO", "replication") or ""))
        for node in nodes:
            node.kill()
        statuses = collections.Counter(sender.send() for _ in range(50))
        expected = 503 if on_failure == "reject" else 200
        check(statuses[expected] >= 45, f"without any node: {statuses}")
        lines.append(f"all killed: {dict(statuses)}")
        for node in nodes:
            node.start()
        took, statuses = sender.until_all_pass()
        lines.append(f"all back: {dict(statuses)}, served after {took:.1f} s")
        taken, _ = app.seen()
        lost = [name for name in sender.accepted if not taken[name]]
        twice = [name for name in sender.names if taken[name] > 1]
        line = f"{on_failure}: {', '.join(lines)}; {len(sender.names)} deliveries, lost {len(lost)}, twice {len(twice)}"
        check(not lost and not twice, line)
        return line


class Sender:
    """Sends deliveries, each another one, so that their keys lie on every node."""

    def __init__(self, port, name):
        self.port, self.name = port, name
        self.names, self.accepted = [], []

    def send(self):
        name = f"{self.name}-{len(self.names)}"
        self.names.append(name)
        with Wire(self.port) as wire:
            status = wire.exchange(request(name))
        if status == 200:
            self.accepted.append(name)
        return status

    def until_all_pass(self):
        """Until fifty in a row have passed: seconds, and all answers until then."""
        began, statuses, row = time.monotonic(), collections.Counter(), 0
        passed_at = began
        while row < 50:
            check(time.monotonic() - began < 60, f"not again within 60 s: {statuses}")
            status = self.send()
            statuses[status] += 1
            if status == 200:
                row += 1
            else:
                row, passed_at = 0, time.monotonic()
        return passed_at - began, statuses
