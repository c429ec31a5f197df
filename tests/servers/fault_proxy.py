"""An HTTP proxy before the S3 server that breaks chosen requests: the faults that a real network has.

A fault is (pattern on "METHOD /path", how often, what): `status:503`, `lose_reply` (the server has done it, the client
never hears), `hang` (no reply for a long time), `truncate` (half of the body), `flip` (one bit of the body), `slow` (20
bytes per second).
"""

from __future__ import annotations

import http.client
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Fault:
    pattern: str
    times: int
    action: str


@dataclass
class FaultProxy:
    """Use as a context manager; `endpoint` is what clients are given."""

    upstream: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def __enter__(self) -> FaultProxy:
        self._hung = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._hung.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, line: str) -> str:
        with self._lock:
            self.seen.append(line)
            for fault in self.faults:
                if fault.times and re.search(fault.pattern, line):
                    fault.times -= 1
                    return fault.action
        return ""

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                action = proxy.take(f"{self.command} {self.path}")
                if action == "hang":
                    proxy._hung.wait(60)
                if action in {"", "lose_reply", "truncate", "flip", "slow"}:
                    self.answer(*proxy._forward(self, body), action)
                elif action.startswith("status:"):
                    self.answer(int(action[7:]), {}, b"", "")
                else:
                    self.close_connection = True

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = relay  # noqa: N815 - the base class's names

            def answer(self, status: int, headers: dict[str, str], body: bytes, action: str) -> None:
                if action == "lose_reply":
                    self.close_connection = True
                    return
                if action == "flip":
                    body = body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]
                self.send_response_only(status)
                if "Content-Length" not in headers:
                    headers = {**headers, "Content-Length": str(len(body))}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                while action == "slow" and body and not proxy._hung.wait(0.05):
                    self.wfile.write(body[:1])
                    self.wfile.flush()
                    body = body[1:]
                self.wfile.write(body[: len(body) // 2] if action == "truncate" else body)
                self.close_connection = self.close_connection or action == "truncate"

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.upstream.removeprefix("http://"), timeout=30)
        # The Host header is part of the signature: it passes unchanged.
        headers = {name: value for name, value in request.headers.items() if name.lower() not in {"expect"}}
        connection.request(request.command, request.path, body, headers)
        reply = connection.getresponse()
        content = reply.read()
        kept = {
            name: value for name, value in reply.getheaders() if name.lower() not in {"connection", "transfer-encoding"}
        }
        connection.close()
        return reply.status, kept, content
