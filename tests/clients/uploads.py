"""POSTs of a given size by a real HTTP library, each on a connection of its own, or all on one over HTTP/2: which answers were read."""

from common import ARGUMENT, base_url, context, finish

BODY = b"x" * ARGUMENT["bytes"]
URL = base_url(ARGUMENT["path"])


def by_requests():
    import requests

    with requests.Session() as session:
        session.trust_env = False
        return session.post(URL, data=BODY, cert=(ARGUMENT["cert"], ARGUMENT["key"]), verify=ARGUMENT["ca"], timeout=60)


def by_httpx():
    import httpx

    with httpx.Client(verify=context(), trust_env=False, timeout=60) as client:
        return client.post(URL, content=BODY)


def by_httpx_h2(kept=[]):
    import httpx

    if not kept:
        kept.append(httpx.Client(verify=context(), trust_env=False, timeout=60, http1=False, http2=True))
    return kept[0].post(URL, content=BODY)


class Curl:
    def __init__(self, written):
        self.status_code, reason = written.split(" ", 1)
        self.status_code = int(self.status_code)
        self.headers = {"x-tollgate-reason": reason.strip() or None}


def by_curl(version="--http1.1"):
    import subprocess

    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %header{x-tollgate-reason}", version, "--noproxy", "*"]
    command += ["--cacert", ARGUMENT["ca"], "--cert", ARGUMENT["cert"], "--key", ARGUMENT["key"], "-H", "expect:", "--data-binary", "@-", URL]
    return Curl(subprocess.run(command, input=BODY, capture_output=True, check=True, timeout=60).stdout.decode())


def answer(send):
    try:
        got = send()
        return {"status": got.status_code, "reason": got.headers.get("x-tollgate-reason")}
    except Exception as error:
        return {"error": repr(error)[:300]}


LIBRARIES = {
    "requests": by_requests, "httpx": by_httpx, "curl": by_curl,
    "httpx over HTTP/2": by_httpx_h2, "curl over HTTP/2": lambda: by_curl("--http2"),
}
send = LIBRARIES[ARGUMENT["library"]]
finish(answers=[answer(send) for _ in range(ARGUMENT["times"])])
