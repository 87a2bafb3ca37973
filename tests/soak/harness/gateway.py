"""The built binary as a child process, and what can be read off it."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BINARY = os.environ.get("HOOKWARD", str(ROOT / "target/release/hookward"))
SECRET = "an example secret of 32 characters"
PATIENCE = 30


class Failed(Exception):
    """A proof that does not hold."""


def check(holds, what):
    if not holds:
        raise Failed(what)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(what, condition, patience=PATIENCE):
    """The first true value of `condition`."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < end, f"not within {patience} s: {what}")
        time.sleep(0.02)


def config(routes, port, admin, more="", listener=""):
    """One TLS listener on `port`, an admin listener, and these routes."""
    return f"""version: 1
admin: {{ address: 127.0.0.1:{admin} }}
listeners:
  https:
    address: 127.0.0.1:{port}
    tls: {{ self_signed: [localhost, 127.0.0.1] }}
{listener}{more}
routes:
{routes}"""


def github_route(app, name="github", more=""):
    """A route whose deliveries are signed as GitHub signs."""
    return f"""  - name: {name}
    match: {{ path: /{name} }}
    verify: [{{ provider: github, secrets: ["value:{SECRET}"] }}]
    upstream: "{app.url}"
{more}"""


class Gateway:
    """A running gateway. `wrapper` is a command that starts it; `passed` is a socket as systemd passes it.

    Without `events` the access log goes to a reader that forgets it: to `/dev/null` none would be written."""

    def __init__(self, config_text, wrapper=(), env=None, passed=None, admin=None, events=True):
        self.dir = Path(tempfile.mkdtemp(prefix="hookward-soak-"))
        self.file = self.dir / "hookward.yaml"
        self.file.write_text(config_text.replace("DIR", str(self.dir)))
        self.admin_port = admin
        self.log = []
        self.forgets = None if events else subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.out = open(self.dir / "access.log", "wb") if events else self.forgets.stdin
        environment = {**os.environ, **(env or {})}
        environment.pop("HOOKWARD_CONFIG", None)
        command = [*wrapper, BINARY, "run", "-c", str(self.file)]
        keep = ()
        if passed is not None:
            number = passed.fileno()
            script = f'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&{number} {number}<&-'
            command = ["sh", "-c", script, "sh", *command]
            keep = (number,)
        self.started = time.monotonic()
        self.child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=self.out,
            stderr=subprocess.PIPE, pass_fds=keep,
        )
        threading.Thread(target=self._collect, daemon=True).start()
        eventually("the gateway is ready", self._is_ready)
        self.ready_after = time.monotonic() - self.started

    def _collect(self):
        for line in self.child.stderr:
            self.log.append(line.decode(errors="replace").rstrip())

    def _is_ready(self):
        ended = self.child.poll()
        check(ended is None, f"the gateway ended with {ended}: {self.log[-5:]}")
        return any('"ready"' in line for line in self.log)

    @property
    def pid(self):
        """Of the binary itself, also behind a wrapper that stays."""
        return self.child.pid

    def said(self, text):
        return any(text in line for line in self.log)

    def reload_with(self, text):
        """Replaces the file in one step; the caller sends the signal."""
        text = text.replace("DIR", str(self.dir))
        following = self.file.with_suffix(".next")
        following.write_text(text)
        following.rename(self.file)

    def signal(self, number):
        os.kill(self.pid, number)

    def wait(self, patience=PATIENCE):
        return self.child.wait(patience)

    def stop(self, patience=60):
        """SIGTERM, and its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(patience)

    def is_running(self):
        return self.child.poll() is None

    def close(self):
        if self.is_running():
            self.child.kill()
            self.child.wait()
        self.out.close()
        if self.forgets:
            self.forgets.kill()
            self.forgets.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def admin(self, path, timeout=10):
        """Status and text of an admin page; `None` where nobody answers."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=timeout)
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            return answer.status, text
        return None

    def metrics(self):
        """Every series and its value."""
        answer = self.admin("/metrics")
        check(answer and answer[0] == 200, f"no metrics: {answer}")
        lines = (line.rsplit(" ", 1) for line in answer[1].splitlines() if line and line[0] != "#")
        return {series: float(value) for series, value in lines}

    def metric(self, series):
        return self.metrics().get(series)

    def status(self, field):
        """A number of /proc/PID/status: KiB, or a count."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0])
        raise Failed(f"no {field}")

    def rss(self):
        """KiB that are resident now."""
        return self.status("VmRSS")

    def highest_rss(self):
        return self.status("VmHWM")

    def forget_highest_rss(self):
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def live(self):
        """KiB that are in use by the books of its allocator (glibc), as a debugger asks for them. `rss` counts
        what was in use at the busiest moment as well: the allocator keeps it for the next one."""
        said = len(self.log)
        ask = ["-ex", "set $say = (void (*)(void)) malloc_stats", "-ex", "call $say()"]
        subprocess.run(
            ["gdb", "-p", str(self.pid), "-batch", "-nx", *ask],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
        )
        total = re.compile(r"Total.*?\nin use bytes +=\s*(\d+)", re.DOTALL)
        found = eventually("the allocator tells", lambda: total.search("\n".join(self.log[said:])))
        return int(found[1]) // 1024

    def threads(self):
        return self.status("Threads")

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def events(self):
        """The access log, as far as it was written."""
        for line in (self.dir / "access.log").read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)
