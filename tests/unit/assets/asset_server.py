"""A real HTTP server on this machine that serves bytes well or badly, as told, and notes what it was asked."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Thing:
    """What lies at one path.

    Attributes:
        body: the content.
        statuses: answered first, one a request.
        cuts: the first requests break off after so many bytes of what they send.
        ranges: whether Range is understood.
        wrong_start: answers a Range from another place.
        kind: Content-Type.
        says_length: whether Content-Length is sent.
        stalls: the first requests send nothing for so many seconds.
        headers: further ones, with an error status.
    """

    body: bytes
    statuses: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    wrong_start: bool = False
    kind: str = "application/octet-stream"
    says_length: bool = True
    stalls: list[float] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        place = self.server.place
        path = unquote(urlsplit(self.path).path)
        place.asked.append((self.path, self.headers.get("Range")))
        thing = place.things.get(path)
        if thing is None:
            self.refuse(404, {})
            return
        if thing.stalls:
            place.closing.wait(thing.stalls.pop(0))
        if thing.statuses:
            self.refuse(thing.statuses.pop(0), thing.headers)
        else:
            self.serve(thing)

    def serve(self, thing):
        start, asked = 0, self.headers.get("Range")
        if asked and thing.ranges:
            start = int(asked.removeprefix("bytes=").split("-")[0]) - (1 if thing.wrong_start else 0)
            if start >= len(thing.body):
                self.refuse(416, {})
                return
        body = thing.body[start:]
        self.send_response(206 if asked and thing.ranges else 200)
        self.send_header("Content-Type", thing.kind)
        if asked and thing.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(thing.body) - 1}/{len(thing.body)}")
        if thing.says_length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        cut = thing.cuts.pop(0) if thing.cuts else None
        self.wfile.write(body[:cut])
        if cut is not None or not thing.says_length:
            self.close_connection = True

    def refuse(self, status, headers):
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@dataclass
class Place:
    """The server, from outside."""

    url: str
    things: dict[str, Thing] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def put(self, path, body, **how):
        """Serve bytes; returns their address."""
        self.things[path] = Thing(body, **how)
        return f"{self.url}{path}"


@contextmanager
def serving():
    """Run a server for a while."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.place = Place(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.place
    finally:
        server.place.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
