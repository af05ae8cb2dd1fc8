"""A DNS server, by dnslib, that says what a zone file says now, and nothing where that says `drop`.

The file is JSON: {"api.up.test": {"A": ["127.0.0.1"], "AAAA": "drop", "ttl": 1}}. A name that it lacks does not exist; a family
that a name lacks has no addresses; `fail` is SERVFAIL. `negative` is for how many seconds a name that does not exist may be remembered.
Prints a line for each question.
"""

import json
import sys
from pathlib import Path

from dnslib import QTYPE, RCODE, RR
from dnslib.dns import DNSError
from dnslib.server import BaseResolver, DNSLogger, DNSServer

ARGUMENT = json.loads(sys.argv[1])


class Zone(BaseResolver):
    def resolve(self, request, handler):
        zone = json.loads(Path(ARGUMENT["zone"]).read_text())
        name, kind = str(request.q.qname).rstrip("."), QTYPE[request.q.qtype]
        print(kind, name, flush=True)
        reply = request.reply()
        if name not in zone:
            reply.header.rcode = RCODE.NXDOMAIN
            if seconds := zone.get("negative"):
                reply.add_auth(*RR.fromZone(f"test. {seconds} SOA ns.test. hosts.test. 1 2 3 4 {seconds}"))
            return reply
        says = zone[name].get(kind, [])
        if says == "drop":
            # No answer is sent for what raises this.
            raise DNSError("dropped")
        if says == "fail":
            reply.header.rcode = RCODE.SERVFAIL
            return reply
        for address in says:
            reply.add_answer(*RR.fromZone(f"{name}. {zone[name].get('ttl', 60)} {kind} {address}"))
        return reply


server = DNSServer(Zone(), port=ARGUMENT["port"], address="127.0.0.1", logger=DNSLogger("-request,-reply,-error"))
print("listening", flush=True)
server.start()
