"""Checks signatures as providers do, with the standard library alone: requests as they arrived come in, what is right goes out."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl

from common import ARGUMENT, finish


def sign(key, message, algorithm):
    return hmac.new(key, message, algorithm).digest()


def fresh(seconds):
    return abs(datetime.now(UTC).timestamp() - seconds) < 300


def binance(request, key):
    """https://developers.binance.com/docs/binance-spot-api-docs/rest-api/request-security"""
    query, body = request["target"].split("?", 1)[1], base64.b64decode(request["body"])
    signed, signature = query.rsplit("&signature=", 1)
    times = [value for name, value in parse_qsl(signed) if name == "timestamp"]
    assert len(times) == 1 and fresh(int(times[0]) / 1000), times
    assert "signature=" not in signed, signed
    return hmac.compare_digest(sign(key.encode(), signed.encode() + body, hashlib.sha256).hex(), signature)


def coinbase(request, key):
    """https://docs.cdp.coinbase.com/exchange/docs/rest-auth"""
    headers = request["headers"]
    assert fresh(int(headers["cb-access-timestamp"])), headers
    message = headers["cb-access-timestamp"] + request["method"] + request["target"]
    expected = sign(base64.b64decode(key), message.encode() + base64.b64decode(request["body"]), hashlib.sha256)
    return hmac.compare_digest(base64.b64encode(expected).decode(), headers["cb-access-sign"])


def azure(request, key):
    """https://learn.microsoft.com/azure/communication-services/tutorials/hmac-header-tutorial"""
    headers = request["headers"]
    assert fresh(parsedate_to_datetime(headers["x-ms-date"]).timestamp()), headers
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(request["body"])).digest()).decode()
    assert digest == headers["x-ms-content-sha256"], headers
    message = f"{request['method']}\n{request['target']}\n{headers['x-ms-date']};{request['authority']};{digest}"
    signature = base64.b64encode(sign(base64.b64decode(key), message.encode(), hashlib.sha256)).decode()
    expected = f"HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"
    return hmac.compare_digest(expected, headers["authorization"])


def stripe(request, key):
    """https://docs.stripe.com/webhooks#verify-manually"""
    parts = dict(part.split("=", 1) for part in request["headers"]["stripe-signature"].split(","))
    assert fresh(int(parts["t"])), parts
    message = parts["t"].encode() + b"." + base64.b64decode(request["body"])
    return hmac.compare_digest(sign(key.encode(), message, hashlib.sha256).hex(), parts["v1"])


SCHEMES = {"binance": binance, "coinbase": coinbase, "azure": azure, "stripe": stripe}
right = [SCHEMES[request["scheme"]](request, ARGUMENT["keys"][request["scheme"]]) for request in ARGUMENT["requests"]]
wrong = [SCHEMES[request["scheme"]](request, ARGUMENT["wrong"]) for request in ARGUMENT["requests"]]
finish(right=right, wrong=wrong)
