"""What the AWS scripts share: boto3 with a key that no service knows, and the uploads that boto3 does not make."""

import hashlib
import hmac
import http.client
import io
import re
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from common import ARGUMENT, context

REGION = ARGUMENT["region"]
CHUNK = 65536
NOBODY = ("AKIAWRONGWRONGWRONG0", "a key that no service knows")


class Stream(io.RawIOBase):
    """A body whose length is known and which cannot be read twice."""

    def __init__(self, data):
        self.data = io.BytesIO(data)
        self.length = len(data)

    def readable(self):
        return True

    def readinto(self, into):
        return self.data.readinto(into)

    def __len__(self):
        return self.length


def client(service, is_hashed=False, is_quiet=True):
    options = {}
    if service == "s3":
        options["s3"] = {"addressing_style": "path", **({"payload_signing_enabled": True} if is_hashed else {})}
        if is_quiet:
            options.update(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=f"https://{ARGUMENT['authority']}/up",
        aws_access_key_id=NOBODY[0],
        aws_secret_access_key=NOBODY[1],
        verify=ARGUMENT["ca"],
        config=Config(client_cert=(ARGUMENT["cert"], ARGUMENT["key"]), retries={"total_max_attempts": 1}, **options),
    )


def code(call):
    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"]
    except ResponseParserError as error:
        # The gateway's own refusal, where the SDK expects XML.
        return re.search('"reason":"([a-z_]+)"', str(error))[1]
    return "ok"


def connection():
    return http.client.HTTPSConnection(ARGUMENT["authority"], context=context())


class Chunks:
    """A body in signed chunks, by the documentation of AWS, for whoever has the key."""

    def __init__(self, host, path, key, data, is_trailed=False, tamper=lambda body: body):
        self.id, secret = key
        self.time = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.scope = f"{self.time[:8]}/{REGION}/s3/aws4_request"
        self.key = f"AWS4{secret}".encode()
        for part in self.scope.split("/"):
            self.key = hmac.digest(self.key, part.encode(), "sha256")
        parts = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)] + [b""]
        trailer = b"x-amz-meta-last:yes\n" if is_trailed else b""
        kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if is_trailed else "")
        signed = {"host": host, "x-amz-content-sha256": kind, "x-amz-date": self.time, "x-amz-decoded-content-length": str(len(data))}
        if is_trailed:
            signed["x-amz-trailer"] = "x-amz-meta-last"
        names = ";".join(sorted(signed))
        lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
        canonical = f"PUT\n{path}\n\n{lines}\n{names}\n{kind}"
        last = self.sign("AWS4-HMAC-SHA256", sha256(canonical.encode()))
        self.headers = {**signed, "content-encoding": "aws-chunked",
                        "authorization": f"AWS4-HMAC-SHA256 Credential={self.id}/{self.scope}, SignedHeaders={names}, Signature={last}"}
        body = b""
        for part in parts:
            last = self.sign("AWS4-HMAC-SHA256-PAYLOAD", f"{last}\n{sha256(b'')}\n{sha256(part)}")
            body += b"%x;chunk-signature=%s\r\n%s%s" % (len(part), last.encode(), part, b"\r\n" if part else b"")
        if is_trailed:
            last = self.sign("AWS4-HMAC-SHA256-TRAILER", f"{last}\n{sha256(trailer)}")
            body += trailer[:-1] + b"\r\nx-amz-trailer-signature:" + last.encode() + b"\r\n"
        self.body = tamper(body + b"\r\n")

    def sign(self, kind, rest):
        return hmac.digest(self.key, f"{kind}\n{self.time}\n{self.scope}\n{rest}".encode(), "sha256").hex()

    def send(self, to, path):
        headers = {name: value for name, value in self.headers.items() if name != "host"}
        to.request("PUT", path, self.body, headers)
        answer = to.getresponse()
        text = answer.read().decode()
        found = re.search("<Message>([^<]*)", text)
        return "ok" if answer.status == 200 else f"{answer.status} {found[1] if found else text}"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def upload(bucket, key, data):
    """The same in every payload form, each as an object of its own."""
    def put(by, form, body, **options):
        return code(lambda: by.put_object(Bucket=bucket, Key=f"{form}/{key}", Body=body, **options))

    done = {
        "hashed": put(client("s3", is_hashed=True), "hashed", data),
        "unsigned": put(client("s3"), "unsigned", data),
        "trailer": put(client("s3", is_quiet=False), "trailer", Stream(data), ChecksumAlgorithm="CRC32"),
    }
    path = f"/{bucket}/chunked"
    done["chunked"] = Chunks(ARGUMENT["authority"], path, NOBODY, data).send(connection(), f"/up{path}")
    return done
