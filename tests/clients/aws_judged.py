"""Uploads in every payload form through the gateway, with a key that no service knows; then straight to the judge with the right key,
whole and tampered with."""

import http.client
import ssl

from aws import Chunks, NOBODY, connection, upload
from common import ARGUMENT, finish

JUDGE = ARGUMENT["judge"]
KEY = (ARGUMENT["id"], ARGUMENT["secret"])
data = b"tollgate " * 20000


def straight(key, path, **how):
    to = http.client.HTTPSConnection(JUDGE, context=ssl.create_default_context(cafile=ARGUMENT["ca"]))
    return Chunks(JUDGE, path, key, data, **how).send(to, path)


def other_signature(body):
    """The second chunk under another signature."""
    at = body.index(b"chunk-signature=", 1000) + len(b"chunk-signature=")
    return body[:at] + b"0" * 64 + body[at + 64 :]


def other_data(body):
    return body.replace(b"tollgate", b"tollgatf", 1)


done = upload("tollgate", "x", data)
path = "/tollgate/trailed"
done["trailed"] = Chunks(ARGUMENT["authority"], path, NOBODY, data, is_trailed=True).send(connection(), f"/up{path}")
judged = {
    "right": straight(KEY, "/tollgate/right"),
    "right, trailed": straight(KEY, "/tollgate/right-trailed", is_trailed=True),
    "nobody": straight(NOBODY, "/tollgate/nobody"),
    "signature": straight(KEY, "/tollgate/signature", tamper=other_signature),
    "data": straight(KEY, "/tollgate/data", tamper=other_data),
}
finish(done=done, judged=judged)
