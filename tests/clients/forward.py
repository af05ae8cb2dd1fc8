"""Python's HTTP libraries as programs use them: proxy and CA come from the environment, and there is no key.

The one argument is {"url": …}. Prints what each library got.
"""

import json
import os
import sys
import urllib.request

import httpx
import requests

URL = json.loads(sys.argv[1])["url"]
got = {
    "requests": requests.get(URL, timeout=30).text,
    "requests, in the clear": requests.get(URL.replace("https:", "http:"), timeout=30).text,
    "session": [requests.Session().post(URL, data=b"x" * 100_000, timeout=30).text for _ in range(2)][-1],
    "httpx": httpx.get(URL, timeout=30).text,
}
# It speaks to a proxy in the clear alone, whatever the proxy's URL says.
if os.environ["https_proxy"].startswith("http:"):
    got["urllib"] = urllib.request.urlopen(URL, timeout=30).read().decode()
print(json.dumps(got))
