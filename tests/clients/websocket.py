"""Python's `websockets` on both sides of the gateway: a provider behind it, and a caller in front of it."""

import asyncio
import json
import os
import ssl

from common import ARGUMENT, base_url, context, finish
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

MESSAGES = 10_000


def authorization(ws):
    return ws.request.headers["authorization"]


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def key(ws):
    """The key in one message, over a border of fragments, in a ping between them, and then in the reason of a close."""
    said = authorization(ws)
    await ws.send(said)
    await ws.send(said.encode())
    half = len(said) // 2
    await ws.send([said[:half], said[half:], "!"])

    async def parts():
        yield "a " + said[:half]
        await ws.ping(said[7:])
        yield said[half:]

    await ws.send(parts())
    await ws.close(4001, said[:123])


async def head(ws):
    fields = [[name, value] for name, value in ws.request.headers.raw_items() if name.lower() != "authorization"]
    await ws.send(json.dumps(fields))


async def closes(ws):
    await ws.close(int(ws.request.path.rsplit("/", 1)[1]), "for good")


async def breaks(ws):
    await ws.send("before")
    await asyncio.sleep(0.1)
    ws.transport.abort()


async def wrong(ws):
    """A frame that no server may send: it is masked."""
    ws.transport.write(b"\x81\x81\x00\x00\x00\x00a")
    await ws.wait_closed()


async def large(ws):
    await ws.send(bytes(3 << 20))
    await ws.wait_closed()


async def silent(ws):
    await ws.wait_closed()


ROADS = {"wrong": wrong, "large": large, "silent": silent, "echo": echo, "key": key, "head": head, "close": closes, "break": breaks}


async def handler(ws):
    try:
        await ROADS[ws.request.path.split("/")[1]](ws)
    except ConnectionClosed:
        pass


def dial(path, **more):
    return connect(base_url("/up" + path).replace("https", "wss"), ssl=context(), max_size=None, proxy=None, **more)


async def ended(ws):
    """What comes until the end, and how that is."""
    got = []
    try:
        while True:
            got.append(await asyncio.wait_for(ws.recv(), 30))
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd else None
        return got, code, closed.rcvd.reason if closed.rcvd else ""


async def echoes():
    async with dial("/echo") as ws:
        async def send():
            for number in range(MESSAGES):
                await ws.send(f"message {number}" if number % 2 else b"%d" % number)
        sending = asyncio.create_task(send())
        right = 0
        for number in range(MESSAGES):
            expected = f"message {number}" if number % 2 else b"%d" % number
            right += (await ws.recv()) == expected
        await sending
        large = os.urandom(1 << 20)
        await ws.send(large)
        text = "ü" * (1 << 19)
        same = await ws.recv() == large
        await ws.send(text)
        same = same and await ws.recv() == text
        await ws.send(["frag", "", "ments"])
        fragments = await ws.recv()
        await ws.send("")
        empty = await ws.recv()
        waited = await asyncio.wait_for(await ws.ping(b"is somebody there"), 10)
        extensions = [type(one).__name__ for one in ws.protocol.extensions]
    return dict(right=right, large=same, fragments=fragments, empty=empty, pong=waited >= 0,
                extensions=extensions, code=ws.close_code)


async def reflected():
    async with dial("/key") as ws:
        got, code, reason = await ended(ws)
    return dict(got=[one.decode() if isinstance(one, bytes) else one for one in got], code=code, reason=reason)


async def heads():
    offer = ["realtime", "openai-insecure-api-key.sk-of-the-caller"]
    async with dial("/head", subprotocols=offer) as ws:
        return dict(fields=json.loads(await ws.recv()), chosen=ws.subprotocol)


async def refused(path):
    try:
        async with dial(path):
            return None
    except InvalidStatus as status:
        return [status.response.status_code, status.response.headers.get("x-tollgate-reason")]


async def held():
    """Says something, and waits for the end that somebody else brings about."""
    async with dial("/echo") as ws:
        await ws.send("first")
        first = await ws.recv()
        open(ARGUMENT["opened"], "w").close()
        _, code, reason = await ended(ws)
    return dict(first=first, code=code, reason=reason)


async def ends():
    """How a WebSocket ends for its caller, by what goes wrong."""
    result = {}
    ws = await dial("/echo")
    await ws.send("before")
    await ws.recv()
    ws.transport.abort()
    async with dial("/echo") as ws:
        # Not masked, as a client's has to be.
        ws.transport.write(b"\x81\x01a")
        result["violation"] = (await ended(ws))[1:]
    async with dial("/echo") as ws:
        try:
            await ws.send(bytes(3 << 20))
        except ConnectionClosed:
            pass
        result["large"] = (await ended(ws))[1:]
    for name in ("wrong", "large", "silent"):
        async with dial(f"/{name}") as ws:
            result[f"provider {name}"] = (await ended(ws))[1:]
    async with dial("/echo") as ws:
        try:
            while True:
                await ws.send("again")
                await ws.recv()
                await asyncio.sleep(0.2)
        except ConnectionClosed as closed:
            result["lifetime"] = [closed.rcvd.code, closed.rcvd.reason] if closed.rcvd else None
    return result


async def all_of_it():
    result = await echoes()
    result["key"] = await reflected()
    result["head"] = await heads()
    result["codes"] = []
    for code in (1000, 1001, 1008, 1011, 3000, 4999):
        async with dial(f"/close/{code}") as ws:
            result["codes"].append((await ended(ws))[1])
    async with dial("/break") as ws:
        got, code, _ = await ended(ws)
        result["broken"] = [got, code]
    ws = await dial("/echo")
    await ws.close(4000, "mine")
    result["mine"] = ws.close_code
    result["elsewhere"] = await refused("/other")
    return result


async def main():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(ARGUMENT["server_cert"], ARGUMENT["server_key"])
    async with serve(handler, "127.0.0.1", ARGUMENT["port"], ssl=tls, max_size=None, subprotocols=["realtime"], select_subprotocol=lambda _, offered: offered[0] if offered else None):
        role = ends if "ends" in ARGUMENT else held if "opened" in ARGUMENT else all_of_it
        finish(**(await role()))


asyncio.run(asyncio.wait_for(main(), 120))
