"""1,000 reloads by SIGHUP under load (SECURITY S-12), each with another configuration, every tenth one
refused. No delivery may fail; memory and descriptors stay."""

import signal
import time

from harness.app import App
from harness.gateway import Gateway, check, config, eventually, free_port, github_route
from harness.load import Load, account, failures

NAME = "reloads"
ABOUT = "1,000 reloads under load"
GROWTH_KIB = 4096


def prove(scale):
    count = max(20, int(1000 * scale))
    port, admin = free_port(), free_port()
    with App() as app:
        def text(number):
            limit = f"    rate_limits: [{{ key: client_ip, rate: {100_000 + number}/s, burst: 100000 }}]\n"
            header = f"    forward: {{ set_headers: {{ X-Reload: \"{number}\" }} }}\n"
            # Counters of routes that have gone stay: they have the same names each time.
            more = "".join(github_route(app, f"more-{index}") for index in range(number % 7))
            return config(github_route(app, more=limit + header) + more, port, admin)

        with Gateway(text(0), admin=admin) as gateway:
            load = Load(port)
            memory, fds = [], []
            good = bad = 0
            began = time.monotonic()
            for number in range(1, count + 1):
                is_bad = number % 10 == 0
                gateway.reload_with("version: 2\n" if is_bad else text(number))
                gateway.signal(signal.SIGHUP)
                good, bad = good + (not is_bad), bad + is_bad
                eventually(f"reload {number}", lambda: has_loaded(gateway, good, bad))
                if number % 10 == 1:
                    memory.append(gateway.rss())
                    fds.append(gateway.fds())
            took = time.monotonic() - began
            outcome, accepted, slowest = load.stop()
            time.sleep(1)
            end = gateway.fds()
            metrics = gateway.metrics()
            lost, twice = account(accepted, app)
            # The first tenth warms up: connections, buffers of the allocator, the pool to the app.
            warm = memory[max(1, len(memory) // 10):]
            growth = max(warm[-5:]) - max(warm[:5])
            reloads = [int(metrics[f'hookward_config_reloads_total{{result="{result}"}}']) for result in ("success", "failure")]
            line = (
                f"{reloads[0]} reloads and {reloads[1]} refused ones in {took:.0f} s, {sum(outcome.values())} deliveries, "
                f"failed {failures(outcome) or 0}, lost {len(lost)}, twice {len(twice)}, slowest {slowest:.2f} s; RSS in KiB: "
                f"first {memory[0]}, warm {warm[0]}, last {memory[-1]}, highest {gateway.highest_rss()}; "
                f"descriptors: first {fds[0]}, highest {max(fds)}, at the end {end}"
            )
            check(not failures(outcome) and not lost and not twice, line)
            check(growth < GROWTH_KIB and end <= max(fds[:5]) + 4, f"it grows: {line}")
            return line


def has_loaded(gateway, good, bad):
    metrics = gateway.metrics()
    # SIGHUP and the watched folder may each have caused a load of the same file.
    return (
        metrics['hookward_config_reloads_total{result="success"}'] >= good
        and metrics['hookward_config_reloads_total{result="failure"}'] >= bad
    )
