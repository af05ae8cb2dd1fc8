"""A provider of WebSocket (Python's `websockets`): sends back what it is sent; at `/key` it says first what it was shown. Each handshake's
fields are a line of its output."""

import asyncio
import json
import ssl
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

ARGUMENT = json.loads(sys.argv[1])


async def handler(ws):
    print("handshake", json.dumps(list(ws.request.headers.raw_items())), flush=True)
    try:
        if ws.request.path == "/key":
            await ws.send(ws.request.headers["authorization"])
        async for message in ws:
            await ws.send(message)
    except ConnectionClosed:
        pass


async def main():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(ARGUMENT["cert"], ARGUMENT["key"])
    async with serve(handler, "127.0.0.1", ARGUMENT["port"], ssl=tls, ping_interval=None):
        await asyncio.Future()


asyncio.run(main())
