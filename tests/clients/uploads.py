"""POSTs of a given size by a real HTTP library, each on a connection of its own: which answers were read."""

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


class Curl:
    def __init__(self, written):
        self.status_code, reason = written.split(" ", 1)
        self.status_code = int(self.status_code)
        self.headers = {"x-tollgate-reason": reason.strip() or None}


def by_curl():
    import subprocess

    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %header{x-tollgate-reason}", "--http1.1", "--noproxy", "*"]
    command += ["--cacert", ARGUMENT["ca"], "--cert", ARGUMENT["cert"], "--key", ARGUMENT["key"], "-H", "expect:", "--data-binary", "@-", URL]
    return Curl(subprocess.run(command, input=BODY, capture_output=True, check=True, timeout=60).stdout.decode())


def answer(send):
    try:
        got = send()
        return {"status": got.status_code, "reason": got.headers.get("x-tollgate-reason")}
    except Exception as error:
        return {"error": repr(error)[:300]}


send = {"requests": by_requests, "httpx": by_httpx, "curl": by_curl}[ARGUMENT["library"]]
finish(answers=[answer(send) for _ in range(ARGUMENT["times"])])
