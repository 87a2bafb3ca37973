"""An app that keeps books: which delivery came how often. It runs in a process of its own, so that
it costs the senders no time, and misbehaves as told by the delivery itself."""

import asyncio
import collections
import multiprocessing
import socket
import struct

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ERROR = b"HTTP/1.1 500 Error\r\nContent-Length: 2\r\n\r\nno"


class App:
    """Deliveries say in `X-Fault` what shall go wrong: `reset`, `hang`, `error`, `slow`."""

    def __init__(self):
        self.pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=_main, args=(theirs,), daemon=True)
        self.process.start()
        self.port = self.pipe.recv()
        self.url = f"http://127.0.0.1:{self.port}"

    def seen(self):
        """How often each delivery was answered 2xx, and how often any came."""
        self.pipe.send("seen")
        return self.pipe.recv()

    def close(self):
        self.process.kill()
        self.process.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _main(pipe):
    asyncio.run(_serve(pipe))


async def _serve(pipe):
    taken, came = collections.Counter(), collections.Counter()

    async def client(reader, writer):
        try:
            while await _one(reader, writer, taken, came):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0, backlog=1024)
    pipe.send(server.sockets[0].getsockname()[1])

    def asked():
        try:
            pipe.recv()
        except EOFError:
            asyncio.get_running_loop().stop()
            return
        pipe.send((taken, came))

    asyncio.get_running_loop().add_reader(pipe.fileno(), asked)
    await asyncio.Event().wait()


async def _one(reader, writer, taken, came):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    body = await reader.readexactly(int(fields.get("content-length", 0)))
    delivery = fields.get("x-delivery") or body[:64].decode("latin-1")
    came[delivery] += 1
    fault = fields.get("x-fault")
    if fault == "reset":
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    if fault == "hang":
        await asyncio.sleep(3)
        return False
    if fault == "slow":
        await asyncio.sleep(0.3)
    if fault == "error":
        writer.write(ERROR)
    else:
        taken[delivery] += 1
        writer.write(ANSWER)
    await writer.drain()
    return True
