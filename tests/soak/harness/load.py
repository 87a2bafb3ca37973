"""Senders: signed deliveries over TLS, on kept and on fresh connections, from processes of their own.

A delivery fails when it gets no answer, or another one than 200. Nothing is tried again: what a
patient sender would repair is counted here."""

import collections
import hashlib
import hmac
import multiprocessing
import os
import signal
import socket
import ssl
import threading
import time

from .gateway import SECRET

TIMEOUT = 15


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def signature(body, secret=SECRET):
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def request(delivery, path="/github", body=None, more=(), secret=SECRET):
    """One POST as GitHub makes it."""
    body = body if body is not None else b'{"id":"%s"}' % delivery.encode()
    fields = [
        f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json",
        f"Content-Length: {len(body)}", f"X-Hub-Signature-256: {signature(body, secret)}",
        f"X-GitHub-Delivery: {delivery}", f"X-Delivery: {delivery}", *more,
    ]
    return "\r\n".join(fields).encode() + b"\r\n\r\n" + body


class Wire:
    """A connection with TLS that reads one answer at a time."""

    def __init__(self, port, context=None, host="127.0.0.1", timeout=TIMEOUT):
        raw = socket.create_connection((host, port), timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket = raw if context is False else (context or tls_context()).wrap_socket(raw)
        except BaseException:
            raw.close()
            raise
        self.rest = b""
        self.is_open = True

    def exchange(self, data):
        """Status of the answer. Honours `Connection: close` as a sender must."""
        self.socket.sendall(data)
        return self.answer()

    def answer(self):
        buffer = self.rest
        while b"\r\n\r\n" not in buffer:
            buffer = self._more(buffer)
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        head = head.lower()
        length = 0
        for line in head.split(b"\r\n")[1:]:
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        while len(buffer) < length:
            buffer = self._more(buffer)
        self.rest = buffer[length:]
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head[9:12])

    def _more(self, buffer):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("closed after a part" if buffer else "closed without an answer")
        return buffer + data

    def close(self):
        self.is_open = False
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Load:
    """Senders at work until told to stop.

    `kept` threads keep their connection as long as the gateway does, `fresh` ones open a new one for
    each delivery. `pause` is the time between two deliveries of one sender."""

    def __init__(self, port, kept=4, fresh=2, pause=0.0, processes=2, path="/github", sender=None):
        self.port, self.path, self.sender = port, path, sender or Sender
        self.kept, self.fresh, self.pause = kept, fresh, pause
        self.stopped = multiprocessing.Event()
        self.pipes, self.processes = [], []
        for _ in range(processes):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=self._process, args=(theirs,), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def _process(self, pipe):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        senders = [
            self.sender(self, f"{os.getpid()}-{number}", number < self.kept)
            for number in range(self.kept + self.fresh)
        ]
        threads = [threading.Thread(target=sender.run) for sender in senders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outcome = collections.Counter()
        for sender in senders:
            outcome.update(sender.outcome)
        accepted = [delivery for sender in senders for delivery in sender.accepted]
        slowest = max(sender.slowest for sender in senders)
        pipe.send((outcome, accepted, slowest))

    def stop(self):
        """Counts by outcome, deliveries that were answered 200, seconds that the slowest took."""
        self.stopped.set()
        outcome, accepted, slowest = collections.Counter(), [], 0.0
        for pipe, process in zip(self.pipes, self.processes):
            counted, taken, longest = pipe.recv()
            process.join()
            outcome.update(counted)
            accepted += taken
            slowest = max(slowest, longest)
        return outcome, accepted, slowest


class Sender:
    """Sends one delivery after the other."""

    def __init__(self, load, name, keeps):
        self.load, self.name, self.keeps = load, name, keeps
        self.outcome, self.accepted, self.slowest = collections.Counter(), [], 0.0
        self.context = tls_context()
        self.wire = None
        self.number = 0

    def run(self):
        while not self.load.stopped.is_set():
            self.number += 1
            self.one(f"{self.name}-{self.number}")
            if self.load.pause:
                self.load.stopped.wait(self.load.pause)
        self.drop()

    def one(self, delivery):
        began = time.monotonic()
        kind = "fresh"
        try:
            if self.wire is None:
                self.wire = Wire(self.load.port, self.context)
            else:
                kind = "kept"
            status = self.wire.exchange(request(delivery, self.load.path))
        except OSError as error:
            self.outcome[f"{kind}: {type(error).__name__} {error}"] += 1
            self.drop()
            return
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.outcome[status] += 1
        if status == 200:
            self.accepted.append(delivery)
        if not (self.keeps and self.wire.is_open):
            self.drop()

    def drop(self):
        if self.wire is not None:
            self.wire.close()
            self.wire = None


def account(accepted, app):
    """How many deliveries that were answered 200 the app never took, and how many it took twice."""
    taken, _ = app.seen()
    lost = [delivery for delivery in accepted if taken[delivery] == 0]
    twice = [delivery for delivery, times in taken.items() if times > 1]
    return lost, twice


def failures(outcome):
    return {what: count for what, count in outcome.items() if what != 200}
