"""The faults are the ones that they say: a proxy that breaks nothing would let every fault test pass."""

from __future__ import annotations

import http.client
import time
from typing import Any

import pytest

from rembert_ray.storage import s3
from rembert_ray.storage.filesystem import error_code, http_status
from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location
from rembert_ray.storage.put import put_new
from tests.servers.fault_proxy import Fault, FaultProxy


@pytest.fixture
def raw(faults: FaultProxy) -> Any:
    """One request without any client in between."""

    def send(path: str, timeout_s: float = 30) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(faults.endpoint.removeprefix("http://"), timeout=timeout_s)
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read()

    return send


def test_an_error_has_the_body_of_an_s3_error(faults: FaultProxy, s3_folder: Location, raw: Any) -> None:
    faults.faults.append(Fault("/plain", 1, "status:503"))
    faults.faults.append(Fault("^GET", 2, "error:403:AccessDenied"))
    assert raw("/plain") == (503, b"")
    status, body = raw("/any")
    assert status == 403
    assert b"<Code>AccessDenied</Code>" in body
    with pytest.raises(PermissionError) as caught:
        list(s3.list_pages(f"{s3_folder.path}/", is_recursive=True))
    assert (http_status(caught.value), error_code(caught.value)) == (403, "AccessDenied")


def test_a_reset_is_a_reset(faults: FaultProxy, raw: Any) -> None:
    faults.faults.append(Fault("^GET", 1, "reset"))
    with pytest.raises(ConnectionResetError):
        raw("/")


def test_a_slow_reply_is_slow_from_its_first_byte(faults: FaultProxy, raw: Any) -> None:
    faults.faults.append(Fault("/slow", 1, "slow:1000"))
    started = time.monotonic()
    assert raw("/slow")[0] in {403, 404}
    assert time.monotonic() - started > 0.1
    faults.faults.append(Fault("/slower", 1, "slow:2"))
    with pytest.raises(TimeoutError):
        raw("/slower", timeout_s=0.2)


def test_some_requests_pass_before_and_a_share_breaks(faults: FaultProxy, raw: Any) -> None:
    faults.faults.append(Fault("/after", -1, "status:500", after=2))
    assert [raw("/after")[0] == 500 for _ in range(4)] == [False, False, True, True]
    faults.faults.append(Fault("/some", -1, "status:500", share=0.5))
    n_broken = sum(raw("/some")[0] == 500 for _ in range(100))
    assert 25 < n_broken < 75
    assert len(faults.broken) == n_broken + 2


def test_a_listing_lags_or_hides(faults: FaultProxy, s3_folder: Location) -> None:
    names = ["a", "b c+é", "d=1&2"]
    for name in names:
        put_new(s3_folder.child(name), b"")
    assert list_names(s3_folder) == names
    faults.faults.append(Fault("^GET .*list-type", 1, "hide:2"))
    assert list_names(s3_folder) == ["a"]
    faults.faults.append(Fault("^GET .*list-type", 1, "lag:60"))
    assert list_names(s3_folder) == []
    faults.faults.append(Fault("^GET .*list-type", 1, "lag:0"))
    assert list_names(s3_folder) == names
