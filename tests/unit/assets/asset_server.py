"""A real HTTP server on this machine that serves bytes well or badly, as told, and notes what it was asked."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class Thing:
    """What lies at one path."""

    body: bytes
    statuses: list[int] = field(default_factory=list)  # answered first, one a request
    cuts: list[int] = field(default_factory=list)  # the first requests break off after so many bytes
    stalls: list[float] = field(default_factory=list)  # the first requests send nothing for so many seconds


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        place = self.server.place
        place.asked.append(self.path)
        thing = place.things.get(unquote(self.path))
        if thing is not None and thing.stalls:
            place.closing.wait(thing.stalls.pop(0))
        if thing is None or thing.statuses:
            self.send_error(404 if thing is None else thing.statuses.pop(0))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(thing.body)))
        self.end_headers()
        self.wfile.write(thing.body[: thing.cuts.pop(0) if thing.cuts else None])

    def log_message(self, *_):
        pass


@dataclass
class Place:
    """The server, from outside."""

    url: str
    things: dict[str, Thing] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
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
