"""OpenAI's Realtime API by its own SDK, before the gateway, and a provider of that API behind it, on `websockets`.

The provider answers as the API does as far as turns go: it detects them by itself unless that is switched off, answers one at a time in the
conversation, and reports the usage that the scenario names.
"""

import asyncio
import base64
import copy
import json
import ssl

from common import ARGUMENT, base_url, context, finish
from openai import AsyncOpenAI
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

SEEN = []
# Turns that the provider started by itself.
UNASKED = []
USAGE = {
    "total_tokens": 160,
    "input_tokens": 100,
    "output_tokens": 60,
    "input_token_details": {
        "text_tokens": 40, "audio_tokens": 60, "image_tokens": 0, "cached_tokens": 30,
        "cached_tokens_details": {"text_tokens": 10, "audio_tokens": 20, "image_tokens": 0},
    },
    "output_token_details": {"text_tokens": 20, "audio_tokens": 40},
}
SPEECH = base64.b64encode(b"speech" * 200).decode()


class Provider:
    """One session."""

    def __init__(self, ws):
        self.ws, self.number, self.running, self.late = ws, 0, {}, None
        self.session = {
            "type": "realtime", "model": "gpt-realtime",
            "audio": {"input": {"turn_detection": {"type": "server_vad", "create_response": True}}},
        }

    async def send(self, kind, **event):
        self.number += 1
        await self.ws.send(json.dumps({"type": kind, "event_id": f"event_{self.number}", **event}))

    async def serve(self):
        await self.send("session.created", session=self.session)
        async for message in self.ws:
            event = json.loads(message)
            SEEN.append(event)
            await self.take(event)

    async def take(self, event):
        kind = event["type"]
        if "refuse" in json.dumps(event):
            await self.refuse(event, "invalid_value")
            if self.late is not None:
                options, self.late = self.late, None
                await self.begin(options)
        elif kind == "session.update":
            merge(self.session, event["session"])
            await self.send("session.updated", session=self.session)
        elif kind == "conversation.item.create":
            await self.send("conversation.item.added", item={**event["item"], "id": "item_1", "status": "completed"})
        elif kind == "input_audio_buffer.append":
            if base64.b64decode(event["audio"]).startswith(b"speech"):
                await self.spoken()
        elif kind == "response.create":
            await self.asked(event)
        elif kind == "response.cancel":
            for name in list(self.running):
                await self.done(name, "cancelled")

    async def spoken(self):
        await self.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_2")
        await self.send("input_audio_buffer.speech_stopped", audio_end_ms=900, item_id="item_2")
        await self.send("input_audio_buffer.committed", previous_item_id=None, item_id="item_2")
        detection = self.session["audio"]["input"]["turn_detection"]
        if detection and detection.get("create_response", True):
            UNASKED.append(detection)
            await self.begin({})

    async def asked(self, event):
        if self.running:
            await self.refuse(event, "conversation_already_has_active_response")
            return
        options = event.get("response") or {}
        if "late" in (options.get("metadata") or {}):
            self.late = options
            return
        await self.begin(options)

    async def refuse(self, event, code):
        await self.send("error", error={"type": "invalid_request_error", "code": code, "message": "no",
                                        "param": None, "event_id": event.get("event_id")})

    async def begin(self, options):
        self.number += 1
        name = f"resp_{self.number}"
        self.running[name] = options
        await self.send("response.created", response={"id": name, "object": "realtime.response",
                                                      "status": "in_progress", "output": [], "usage": None})
        metadata = options.get("metadata") or {}
        sound = "A" * int(metadata.get("sound", 100))
        await self.send("response.output_audio.delta", response_id=name, item_id="item_3", output_index=0,
                        content_index=0, delta=sound)
        if "endless" not in metadata:
            await self.done(name, metadata.get("status", "completed"))

    async def done(self, name, status):
        del self.running[name]
        usage = None if status == "failed" else copy.deepcopy(USAGE)
        output = [{"id": "item_3", "type": "message", "role": "assistant", "content": [{
            "type": "output_audio", "transcript": "{\"type\":\"response.created\"}"}]}]
        await self.send("response.done", response={"id": name, "object": "realtime.response", "status": status,
                                                   "output": output, "usage": usage})


def merge(into, more):
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = value


async def handler(ws):
    SEEN.append({"path": ws.request.path, "protocols": ws.request.headers.get("sec-websocket-protocol")})
    # What is printed is searched for the key.
    with open(ARGUMENT["shown"], "a") as shown:
        shown.write(ws.request.headers.get("authorization", "") + "\n")
    try:
        await Provider(ws).serve()
    except ConnectionClosed:
        pass


def sdk():
    # Whatever the SDK sends as a key is thrown away.
    return AsyncOpenAI(api_key="sk-of-the-caller", base_url=base_url("/up/v1"), max_retries=0)


def session(client, model="gpt-realtime", **options):
    options = {"ssl": context(), "proxy": None, "max_size": None, **options}
    return client.realtime.connect(model=model, websocket_connection_options=options)


async def until(connection, *kinds):
    """Events until one of these comes."""
    events = []
    while not events or events[-1].type not in kinds:
        events.append(await asyncio.wait_for(connection.recv(), 30))
    return events


async def ended(connection):
    """Events until the end, and how that is."""
    events = []
    try:
        while True:
            events.append(await asyncio.wait_for(connection.recv(), 30))
    except ConnectionClosed as closed:
        got = closed.rcvd
        return events, [got.code, got.reason] if got else None


def errors(events):
    return [[event.error.code, event.error.event_id] for event in events if event.type == "error"]


async def turns():
    """Turns of text, until the session is refused one."""
    result = dict(turns=0, deltas=[], errors=[], closed=None)
    async with session(sdk(), subprotocols=["realtime", "openai-insecure-api-key.sk-of-the-caller"]) as connection:
        result["first"] = (await until(connection, "session.created"))[-1].type
        await connection.session.update(session={"type": "realtime", "instructions": "be short", "tools": [
            {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}]})
        await until(connection, "session.updated")
        await connection.conversation.item.create(item={"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "say hello"}]})
        for number in range(ARGUMENT["turns"]):
            await connection.response.create(event_id=f"mine_{number}",
                                             response={"metadata": {"sound": str(ARGUMENT.get("sound", 100))}})
            try:
                events = await until(connection, "response.done", "error")
            except ConnectionClosed as closed:
                result["closed"] = [closed.rcvd.code, closed.rcvd.reason]
                break
            result["errors"] += errors(events)
            result["deltas"] += [len(event.delta) for event in events if event.type.endswith(".delta")]
            if events[-1].type == "error":
                _, result["closed"] = await ended(connection)
                break
            result["turns"] += 1
            result["usage"] = events[-1].response.usage.total_tokens
    return result


async def spoken():
    """Turns that the provider detects."""
    result = dict(turns=0, errors=[], closed=None)
    async with session(sdk()) as connection:
        await until(connection, "session.created")
        # Its own settings of the detection, and then others that leave it out.
        await connection.session.update(session={"type": "realtime", "audio": {"input": {
            "turn_detection": {"type": "server_vad", "threshold": 0.4, "create_response": True}}}})
        await connection.session.update(session={"type": "realtime", "audio": {"input": {"noise_reduction": None}}})
        for _ in range(ARGUMENT["turns"]):
            await connection.input_audio_buffer.append(audio=base64.b64encode(bytes(4800)).decode())
            await connection.input_audio_buffer.append(audio=SPEECH)
            try:
                events = await until(connection, "response.done", "error")
            except ConnectionClosed as closed:
                result["closed"] = [closed.rcvd.code, closed.rcvd.reason]
                break
            result["errors"] += errors(events)
            if events[-1].type == "error":
                _, result["closed"] = await ended(connection)
                break
            result["turns"] += 1
        result["detection"] = [event["session"]["audio"]["input"].get("turn_detection")
                               for event in SEEN if event.get("type") == "session.update"]
    return result


async def refused():
    """What a session may not be told, each with what comes back; it goes on behind that."""
    result = {}
    tries = {
        "model": {"type": "session.update", "session": {"type": "realtime", "model": "gpt-realtime-2"}},
        "transcript": {"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}},
        "mcp": {"type": "session.update", "session": {"tools": [{"type": "mcp", "server_label": "a", "server_url": "https://a.test"}]}},
        "prompt": {"type": "session.update", "session": {"prompt": {"id": "pmpt_1"}}},
        "idle": {"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}}}},
        "kind": {"type": "session.update", "session": {"type": "transcription"}},
        "tools": {"type": "response.create", "response": {"tools": [{"type": "mcp", "server_label": "a"}]}},
        "unknown": {"type": "response.create_many"},
    }
    async with session(sdk()) as connection:
        await until(connection, "session.updated")
        for name, event in tries.items():
            await connection.send({**event, "event_id": name})
            events = await until(connection, "error")
            result[name] = errors(events)[-1]
        await connection.response.create()
        result["after"] = (await until(connection, "response.done", "error"))[-1].type
    for name, message in {"twice": '{"type":"input_audio_buffer.clear","type":"response.create"}',
                          "case": '{"type":"input_audio_buffer.clear","Type":"response.create"}',
                          "text": "no json"}.items():
        async with session(sdk()) as connection:
            await until(connection, "session.updated")
            await connection._connection.send(message)
            result[name] = (await ended(connection))[1]
    for name, path in {"elsewhere": "/up/v1/realtime?call_id=rtc_1&model=gpt-realtime", "none": "/up/v1/realtime",
                       "other": "/up/v1/realtime?model=gpt-realtime-2",
                       "ambiguous": "/up/v1/realtime?model=gpt-realtime&Model=gpt-realtime-2"}.items():
        try:
            async with connect(base_url(path).replace("https", "wss"), ssl=context(), proxy=None):
                result[name] = None
        except InvalidStatus as status:
            result[name] = [status.response.status_code, status.response.headers.get("x-tollgate-reason")]
    return result


async def sly():
    """Settings that the provider refuses, and a message with the name of another."""
    async with session(sdk()) as connection:
        await until(connection, "session.updated")
        await connection.send({"type": "session.update", "event_id": "settings", "session": {
            "type": "realtime", "instructions": "refuse", "max_output_tokens": 1}})
        refused = errors(await until(connection, "error"))
        for options in {}, {"max_output_tokens": None}, {"max_output_tokens": "inf"}, {"max_output_tokens": 9}:
            await connection.send({"type": "response.create", "event_id": "same", "response": options})
            refused += errors(await until(connection, "response.done", "error"))
        # It is asked for, and has not begun when the provider refuses the other message of its name.
        await connection.send({"type": "response.create", "event_id": "same", "response": {"metadata": {"late": "yes"}}})
        await connection.send({"type": "conversation.item.create", "event_id": "same", "item": {
            "type": "message", "role": "user", "content": [{"type": "input_text", "text": "refuse"}]}})
        refused += errors(await until(connection, "response.done"))
    asked = [event for event in SEEN if event.get("type") == "response.create"]
    return dict(refused=refused, caps=[event["response"].get("max_output_tokens") for event in asked],
                names=len({event["event_id"] for event in asked}))


async def hung_up():
    """A caller that closes while it is answered, and one that is gone."""
    client = sdk()
    async with session(client) as connection:
        await connection.response.create(response={"metadata": {"endless": "yes"}})
        await until(connection, "response.output_audio.delta")
    connection = await session(client).enter()
    await connection.response.create(response={"metadata": {"endless": "yes"}})
    await until(connection, "response.output_audio.delta")
    connection._connection.transport.abort()
    async with session(client) as connection:
        await connection.response.create(response={"metadata": {"status": "failed"}})
        status = (await until(connection, "response.done"))[-1].response.status
        # The provider has an answer under way, and refuses another.
        await connection.response.create(response={"metadata": {"endless": "yes"}})
        await until(connection, "response.output_audio.delta")
        await connection.response.create(event_id="second")
        refused = errors(await until(connection, "error"))
    return dict(status=status, refused=refused)


async def held():
    """A turn that goes on until somebody else ends it."""
    async with session(sdk()) as connection:
        await connection.response.create(response={"metadata": {"endless": "yes"}})
        await until(connection, "response.output_audio.delta")
        open(ARGUMENT["opened"], "w").close()
        _, closed = await ended(connection)
    return dict(closed=closed)


async def main():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(ARGUMENT["server_cert"], ARGUMENT["server_key"])
    async with serve(handler, "127.0.0.1", ARGUMENT["port"], ssl=tls, max_size=None, subprotocols=["realtime"],
                     select_subprotocol=lambda _, offered: offered[0] if offered else None):
        said = await globals()[ARGUMENT["role"]]()
        finish(**said, unasked=len(UNASKED), seen=[event if "path" in event else event["type"] for event in SEEN])


asyncio.run(asyncio.wait_for(main(), 120))
