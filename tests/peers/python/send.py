"""Signs with each provider's SDK and delivers through the gateway: send.py GATEWAY_PORT CA_FILE APP...

APP is `node` or `python`, the app behind. Prints a line for each delivery: `ok NAME` or
`not ok NAME: why`.
"""

import http.client
import json
import os
import ssl
import sys

from sdk import SIGN

port, ca, *apps = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)


class Connection(http.client.HTTPSConnection):
    """Connects to the loopback under the name that senders call."""

    def connect(self):
        http.client.HTTPConnection.connect(self)
        self.sock = context.wrap_socket(self.sock, server_hostname="hooks.example.org")


def deliver(path, headers, body):
    connection = Connection("127.0.0.1", int(port))
    connection.request("POST", path, body, {"Host": "hooks.example.org", **headers})
    answer = connection.getresponse()
    found = f"{answer.status} {answer.read().decode()}"
    connection.close()
    return found


def say(name, found, expected):
    print(f"ok {name}" if found.startswith(expected) else f"not ok {name}: {found}, not {expected}", flush=True)


for app in apps:
    supported = os.environ.get(f"{app.upper()}_PROVIDERS", "").split()
    for name, sign in SIGN.items():
        if name not in supported:
            continue
        path = f"/{app}/{name}?attempt=1&x=%2F"
        kind, body = "application/json", json.dumps({"id": f"evt_python_{app}", "object": "event", "text": "café"}, indent=1).encode()
        if name in ("slack", "twilio"):
            kind, body = "application/x-www-form-urlencoded", b"To=%2B15550100&From=%2B15550101&Body=caf%C3%A9+%26+more&Empty="
        headers = {"Content-Type": kind, **sign(f"https://hooks.example.org{path}", body)}
        say(f"python signs {name}, {app} verifies", deliver(path, headers, body), f"200 verified by {app}")
        forged = body.replace(b"a", b"e", 1)
        say(f"python's {name} with another body is refused", deliver(path, headers, forged), "401 {")
