"""A network that is late with a part of what a server sends."""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

SECONDS = 0.5


@contextlib.contextmanager
def late(url: str, words: bytes) -> Iterator[str]:
    """Another address of the server at `url`: an answer pauses for half a second before the line that has these words,
    a regular expression. Other answers overtake it."""

    def copy(there: socket.socket, here: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := there.recv(1 << 16):
                if found := re.search(words, data):
                    line = data.rfind(b"\n", 0, found.start()) + 1
                    here.sendall(data[:line])
                    time.sleep(SECONDS)
                    data = data[line:]
                here.sendall(data)
            here.shutdown(socket.SHUT_WR)

    class Way(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", urlsplit(url).port or 80)) as ahead:
                threading.Thread(target=copy, args=(self.request, ahead), daemon=True).start()
                copy(ahead, self.request)

    class Network(socketserver.ThreadingTCPServer):
        daemon_threads = True  # a browser keeps connections open

    with Network(("127.0.0.1", 0), Way) as network:
        serving = threading.Thread(target=network.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{network.server_address[1]}/"
        finally:
            network.shutdown()
            serving.join()
