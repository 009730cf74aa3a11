"""A proxy between an SDK and the server: it notes every exchange and spoils the one it is told to.

It holds each request and each answer whole, and passes them on with a length.
"""

import http.client
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What can be done to an exchange.
REFUSE = "the connection breaks before the server sees the request"
LOSE = "the server answers, and the answer is lost"
CUT = "the connection breaks in the middle of the answer"
HOLD_BEFORE = "the request is held until it is released"
HOLD_AFTER = "the answer is held until it is released"


@dataclass
class Exchange:
    """One request and its answer."""

    method: str
    path: str
    sent: int = 0
    status: int | None = None
    answer: bytes = b""

    @property
    def verb(self):
        """`info`, `export` or `sync`."""
        return next((part for part in self.path.split("/") if part in ("info", "export", "sync")), self.path)

    def __str__(self):
        text = self.answer.decode(errors="replace") if len(self.answer) < 300 else ""
        return f"{self.method} {self.path} ({self.sent} B) -> {self.status} ({len(self.answer)} B) {text}".rstrip()


@dataclass
class Fault:
    """What to do to the n-th exchange of a method, counted from now (the first is 1)."""

    method: str
    nth: int
    what: object
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """A running proxy. `url` stands in for the server's."""

    def __init__(self, server_url):
        self.host, port = server_url.removeprefix("http://").split(":")
        self.port = int(port)
        self.exchanges = []
        self.faults = []
        self.lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            do_GET = do_POST = lambda handler: proxy.pass_on(handler)
            log_message = lambda *_: None

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            handle_error = lambda *_: None  # broken connections are the daily bread here

        self.listener = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.listener.server_port}"
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()

    def close(self):
        for fault in self.faults:
            fault.released.set()
        self.listener.shutdown()
        self.listener.server_close()

    def spoil(self, method, nth, what):
        """`what` is one of the faults above, or something to call before the request is passed on."""
        fault = Fault(method, nth, what)
        with self.lock:
            self.faults.append(fault)
        return fault

    def forget(self):
        """Forgets the exchanges so far and the faults to come."""
        with self.lock:
            self.exchanges, self.faults = [], []

    def seen(self, method, verb="sync"):
        """How many such exchanges there were."""
        return sum(1 for one in self.exchanges if one.method == method and one.verb == verb)

    def due(self, method):
        """The fault that this request runs into."""
        with self.lock:
            found = None
            for fault in self.faults:
                if fault.method == method and fault.nth > 0:
                    fault.nth -= 1
                    if fault.nth == 0:
                        found = fault
            return found

    def pass_on(self, handler):
        exchange = Exchange(handler.command, handler.path)
        body = read_body(handler)
        exchange.sent = len(body)
        fault = self.due(exchange.method)
        what = fault.what if fault else None
        if callable(what):
            what()
        if what == HOLD_BEFORE:
            hold(fault)
        if what == REFUSE:
            self.exchanges.append(exchange)
            return hang_up(handler)
        upstream = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            headers = {name: value for name, value in handler.headers.items() if name.lower() not in FRAMING}
            upstream.request(exchange.method, exchange.path, body, headers)
            answer = upstream.getresponse()
            exchange.status, exchange.answer = answer.status, answer.read()
            named = [(name, value) for name, value in answer.getheaders() if name.lower() not in FRAMING]
        except (OSError, http.client.HTTPException):
            self.exchanges.append(exchange)
            return hang_up(handler)
        finally:
            upstream.close()
        self.exchanges.append(exchange)
        if what == HOLD_AFTER:
            hold(fault)
        if what == LOSE:
            return hang_up(handler)
        handler.send_response_only(exchange.status)
        for name, value in named:
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(exchange.answer)))
        handler.end_headers()
        if what == CUT:
            handler.wfile.write(exchange.answer[: len(exchange.answer) // 2])
            return hang_up(handler)
        handler.wfile.write(exchange.answer)


FRAMING = ("connection", "transfer-encoding", "content-length", "expect")
"""Headers of one connection, which the other one has its own of."""


def read_body(handler):
    if "chunked" not in (handler.headers.get("transfer-encoding") or ""):
        return handler.rfile.read(int(handler.headers.get("content-length") or 0))
    body = b""
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


def hold(fault):
    fault.reached.set()
    fault.released.wait(30)


def hang_up(handler):
    handler.close_connection = True
    try:
        handler.connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
