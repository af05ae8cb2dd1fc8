"""Servers that let nobody in without a key: a git server, a Python index and an npm registry, by host, over TLS.

The one argument is {"port", "cert", "key", "git", "basic", "bearer", "seen"}. What was asked for is written to `seen`, a line of JSON each.
"""

import base64
import hashlib
import io
import json
import os
import ssl
import subprocess
import sys
import tarfile
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ARGUMENT = json.loads(sys.argv[1])
BASIC = "Basic " + base64.b64encode(ARGUMENT["basic"].encode()).decode()
BEARER = "Bearer " + ARGUMENT["bearer"]


def wheel():
    files = {
        "tollgate_probe/__init__.py": "",
        "tollgate_probe-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tollgate-probe\nVersion: 1.0\n",
        "tollgate_probe-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tollgate_probe-1.0.dist-info/RECORD": "",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, text in files.items():
            made.writestr(name, text)
    return out.getvalue()


def tarball():
    text = json.dumps({"name": "tollgate-probe", "version": "1.0.0"}).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        info = tarfile.TarInfo("package/package.json")
        info.size = len(text)
        made.addfile(info, io.BytesIO(text))
    return out.getvalue()


WHEEL, TARBALL = wheel(), tarball()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        self.answer(self.body())

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def answer(self, body):
        host = self.headers["Host"].split(":")[0]
        with open(ARGUMENT["seen"], "a") as seen:
            seen.write(json.dumps({"host": host, "path": self.path, "headers": dict(self.headers)}) + "\n")
        wanted = BEARER if host.startswith("npm.") else BASIC
        if self.headers.get("Authorization") != wanted:
            scheme = wanted.split()[0]
            return self.say(401, b"who are you?", {"WWW-Authenticate": f'{scheme} realm="closed"'})
        if host.startswith("git."):
            return self.git(body)
        return self.python() if host.startswith("pypi.") else self.npm()

    def python(self):
        if self.path.endswith(".whl"):
            return self.say(200, WHEEL, {"Content-Type": "application/octet-stream"})
        digest = hashlib.sha256(WHEEL).hexdigest()
        name = "tollgate_probe-1.0-py3-none-any.whl"
        page = f'<html><body><a href="/files/{name}#sha256={digest}">{name}</a></body></html>'
        return self.say(200, page.encode(), {"Content-Type": "text/html"})

    def npm(self):
        if self.path.endswith(".tgz"):
            return self.say(200, TARBALL, {"Content-Type": "application/octet-stream"})
        sums = {
            "shasum": hashlib.sha1(TARBALL).hexdigest(),
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(TARBALL).digest()).decode(),
            "tarball": "https://npm.up.test/tollgate-probe/-/tollgate-probe-1.0.0.tgz",
        }
        version = {"name": "tollgate-probe", "version": "1.0.0", "dist": sums}
        about = {"name": "tollgate-probe", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
        return self.say(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def git(self, body):
        path, _, query = self.path.partition("?")
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": ARGUMENT["git"],
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_USER": "machine",
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        ran = subprocess.run(["git", "http-backend"], input=body, stdout=subprocess.PIPE, env=environment, check=True)
        head, _, rest = ran.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(fields.pop("Status", "200").split()[0])
        self.say(status, rest, fields)

    def say(self, status, body, fields):
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", ARGUMENT["port"]), Handler)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(ARGUMENT["cert"], ARGUMENT["key"])
server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()
