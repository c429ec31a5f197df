"""An HTTP proxy before the S3 server that breaks chosen requests: the faults that a real network has.

A fault is a pattern on "METHOD /path?query", how often, and what:

    status:503          that status without a body             hang      no reply for a minute, then the end
    error:503:SlowDown  that status with S3's XML              reset     the connection is reset (RST)
    slow:20             the reply, its headers too, at so      truncate  half of the body, then the end
                        many bytes per second                  flip      one bit of the body is another
    deaf                nobody reads the request's body        lag:5     a listing leaves out what was put through this
    lose_reply          the server has done it, the client               proxy in the last 5 s
                        never hears                            hide:2    a listing leaves out the last 2 keys put
"""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LONG_S = 60.0
_ENTRY = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)


@dataclass
class Fault:
    """`times` -1: for ever. The first `after` matching requests pass; of the others a `share` is broken."""

    pattern: str
    times: int
    action: str
    after: int = 0
    share: float = 1.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are what this is about."""


@dataclass
class FaultProxy:
    """Use as a context manager; `endpoint` is what clients are given."""

    upstream: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    seed: int = 0

    def __enter__(self) -> FaultProxy:
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._random = random.Random(self.seed)
        self._put_at: dict[str, float] = {}
        self._server = _Server(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, line: str) -> str:
        with self._lock:
            self.seen.append(line)
            for fault in self.faults:
                if fault.times and re.search(fault.pattern, line):
                    if fault.after:
                        fault.after -= 1
                    elif self._random.random() < fault.share:
                        fault.times -= 1
                        self.broken.append((line, fault.action))
                        return fault.action
        return ""

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self) -> None:
                action, _, value = proxy.take(f"{self.command} {self.path}").partition(":")
                if action == "deaf":
                    proxy._ended.wait(LONG_S)
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if action == "hang":
                    proxy._ended.wait(LONG_S)
                    self.close_connection = True
                elif action == "reset":
                    self.reset()
                elif action == "status":
                    self.answer(int(value), {}, b"")
                elif action == "error":
                    self.answer_error(*value.split(":"))
                else:
                    self.answer_broken(*proxy._forward(self, body), action, value)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = relay  # noqa: N815 - the base class's names

            def reset(self) -> None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True

            def answer_error(self, status: str, code: str) -> None:
                body = f"<Error><Code>{code}</Code><Message>by the fault proxy</Message></Error>".encode()
                headers = {"Content-Type": "application/xml", "Content-Length": str(len(body))}
                self.answer(int(status), headers, b"" if self.command == "HEAD" else body)

            def answer_broken(self, status: int, headers: dict[str, str], body: bytes, action: str, value: str) -> None:
                if action == "lose_reply":
                    self.close_connection = True
                    return
                if action == "flip" and body:
                    body = body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]
                if action in {"lag", "hide"} and status == 200:
                    body = proxy._without_late_keys(self.path, body, action, float(value))
                    headers["Content-Length"] = str(len(body))
                rate = float(value or 20) if action == "slow" else None
                self.answer(status, headers, body, rate, is_cut=action == "truncate")

            def answer(
                self, status: int, headers: dict[str, str], body: bytes, rate: float | None = None, is_cut: bool = False
            ) -> None:
                if rate is not None:
                    self.wfile = _Slow(self.wfile, rate, proxy._ended)
                self.send_response_only(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if is_cut else body)
                self.close_connection = self.close_connection or is_cut or rate is not None

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        host = self.upstream.removeprefix("http://")
        # The Host header is part of the signature: it passes unchanged.
        headers = {name: value for name, value in request.headers.items() if name.lower() not in {"expect"}}
        with contextlib.closing(http.client.HTTPConnection(host, timeout=30)) as connection:
            connection.request(request.command, request.path, body, headers)
            reply = connection.getresponse()
            content = reply.read()
            kept = {n: value for n, value in reply.getheaders() if n.lower() not in {"connection", "transfer-encoding"}}
        if request.command == "PUT" and reply.status == 200:
            with self._lock:
                path = unquote(urlsplit(request.path).path)
                self._put_at.pop(path, None)
                self._put_at[path] = time.monotonic()
        return reply.status, kept, content

    def _without_late_keys(self, path: str, body: bytes, action: str, value: float) -> bytes:
        bucket = urlsplit(path).path.rstrip("/")
        with self._lock:
            if action == "lag":
                late = {key for key, at in self._put_at.items() if time.monotonic() - at < value}
            else:
                late = set(list(self._put_at)[-int(value) :])

        def keep(entry: re.Match[bytes]) -> bytes:
            key = _KEY.search(entry[0])
            name = "" if key is None else unquote(unescape(key[1].decode()))
            return b"" if f"{bucket}/{name}" in late else entry[0]

        return _ENTRY.sub(keep, body)


class _Slow:
    """A socket's file that takes its time; it stops when the proxy ends."""

    def __init__(self, target: Any, bytes_per_s: float, ended: threading.Event) -> None:
        self._target, self._ended = target, ended
        self._step = max(1, int(bytes_per_s / 20))
        self._pause_s = self._step / bytes_per_s
        self.closed = False

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), self._step):
            if self._ended.wait(self._pause_s):
                return
            self._target.write(data[start : start + self._step])

    def flush(self) -> None:
        self._target.flush()

    def close(self) -> None:
        self._target.close()
        self.closed = True
