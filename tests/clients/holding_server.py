"""Accepts connections, says to each which address it came from (four bytes), and holds it until its peer leaves."""

import json
import select
import socket
import sys

ARGUMENT = json.loads(sys.argv[1])

listener = socket.create_server((ARGUMENT["address"], ARGUMENT["port"]), backlog=4096)
ready, held = select.epoll(), {}
ready.register(listener, select.EPOLLIN)
print("listening", flush=True)
while True:
    for number, _ in ready.poll():
        if number == listener.fileno():
            connection, (host, _) = listener.accept()
            connection.sendall(socket.inet_aton(host))
            held[connection.fileno()] = connection
            ready.register(connection, select.EPOLLIN | select.EPOLLRDHUP)
        else:
            # Nobody sends anything: it is the end.
            held.pop(number).close()
