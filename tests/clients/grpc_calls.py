"""Google's own gRPC: a server behind the gateway and a client in front of it, in all four kinds of calls, with errors, deadlines and cancellation."""

import threading
from concurrent import futures
from pathlib import Path

import grpc
from common import ARGUMENT, finish

SERVICE = "tollgate.test.Echo"
cancelled = threading.Event()


def metadata(context):
    return dict(context.invocation_metadata())


def unary(request, context):
    context.set_trailing_metadata((("x-trailing", "t-" + request[:40].decode()), ("x-echo", metadata(context).get("authorization", ""))))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "said no")
    if request == b"bad-at-once":
        raise RuntimeError("a bug")
    return b"echo " + request


def server_stream(request, context):
    for number in range(int(request)):
        yield b"item %d" % number
    if request == b"3":
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("three is not enough")


def client_stream(requests, _context):
    return b"+".join(requests)


def both(requests, _context):
    for request in requests:
        yield b"re " + request


def endless(_request, context):
    context.add_callback(cancelled.set)
    while context.is_active() and not cancelled.wait(0.05):
        yield b"tick"


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(8))
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Endless": grpc.unary_stream_rpc_method_handler(endless),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    pair = (Path(ARGUMENT["server_key"]).read_bytes(), Path(ARGUMENT["server_cert"]).read_bytes())
    server.add_secure_port(f"127.0.0.1:{ARGUMENT['port']}", grpc.ssl_server_credentials([pair]))
    server.start()
    return server


def channel():
    read = lambda name: Path(ARGUMENT[name]).read_bytes()
    credentials = grpc.ssl_channel_credentials(read("ca"), read("key"), read("cert"))
    options = (("grpc.ssl_target_name_override", "localhost"), ("grpc.default_authority", ARGUMENT["host"]))
    return grpc.secure_channel(ARGUMENT["authority"].replace("localhost", "127.0.0.1"), credentials, options)


def failure(call):
    try:
        got = call()
        return {"got": str(got)}
    except grpc.RpcError as error:
        return {"code": error.code().name, "details": error.details()}


def stream_failure(call):
    items = []
    try:
        for item in call:
            items.append(item.decode())
        return {"items": items}
    except grpc.RpcError as error:
        return {"items": items, "code": error.code().name, "details": error.details()}


def lockstep(method):
    """Each message is sent once the one before was answered: both directions are open at once."""
    answered = threading.Semaphore(1)

    def requests():
        for number in range(4):
            answered.acquire()
            yield b"%d" % number

    items = []
    for item in method(requests(), timeout=20):
        items.append(item.decode())
        answered.release()
    return items


server = serve()
with channel() as wire:
    path = f"/{SERVICE}/"
    answer, call = wire.unary_unary(path + "Unary").with_call(b"hi", timeout=20)
    result = {
        "unary": answer.decode(),
        "trailing": dict(call.trailing_metadata()),
        "failed": failure(lambda: wire.unary_unary(path + "Unary")(b"fail", timeout=20)),
        "bug": failure(lambda: wire.unary_unary(path + "Unary")(b"bad-at-once", timeout=20)),
        "unknown": failure(lambda: wire.unary_unary(path + "None")(b"", timeout=20)),
        "refused": failure(lambda: wire.unary_unary("/other.Service/Unary")(b"", timeout=20)),
        "server_stream": stream_failure(wire.unary_stream(path + "ServerStream")(b"2", timeout=20)),
        "stream_fails": stream_failure(wire.unary_stream(path + "ServerStream")(b"3", timeout=20)),
        "client_stream": wire.stream_unary(path + "ClientStream")(iter([b"a", b"b", b"c"]), timeout=20).decode(),
        "both": lockstep(wire.stream_stream(path + "Both")),
        "large": len(wire.unary_unary(path + "Unary")(b"x" * 3_000_000, timeout=30)),
        "deadline": stream_failure(wire.unary_stream(path + "Endless")(b"", timeout=1)).get("code"),
    }
    result["deadline_seen"] = cancelled.wait(10)
    cancelled.clear()
    endless = wire.unary_stream(path + "Endless")(b"")
    next(endless)
    endless.cancel()
    result["cancel_seen"] = cancelled.wait(10)
server.stop(0)
finish(**result)
