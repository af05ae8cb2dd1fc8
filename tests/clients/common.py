"""What the client scripts share: their one JSON argument, TLS with a client certificate, and printing a JSON object."""

import json
import ssl
import sys

ARGUMENT = json.loads(sys.argv[1])


def context(protocols=None):
    """TLS that trusts the scenario's CA alone and shows the caller's certificate."""
    tls = ssl.create_default_context(cafile=ARGUMENT["ca"])
    tls.load_cert_chain(ARGUMENT["cert"], ARGUMENT["key"])
    if protocols:
        tls.set_alpn_protocols(protocols)
    return tls


def base_url(path):
    return f"https://{ARGUMENT['authority']}{path}"


def finish(**result):
    print(json.dumps(result))
