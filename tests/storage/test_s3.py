"""No call to S3 outlives its deadline, whatever the store does; and one call is one request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rembert_ray.errors import StorageError
from rembert_ray.storage import filesystem, s3
from rembert_ray.storage.filesystem import retry_transient
from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location, delete, exists, read_bytes
from rembert_ray.storage.put import put_new, put_replacing
from tests.servers.fault_proxy import Fault, FaultProxy

CALLS: dict[str, Callable[[Location], Any]] = {
    "put": lambda place: put_new(place, b"x", budget_s=0),
    "replace": lambda place: put_replacing(place, b"x", budget_s=0),
    "head": lambda place: retry_transient(lambda: s3.head(place.path), "head", 0),
    "get": lambda place: retry_transient(lambda: s3.read_range(place.path, 0, 4), "get", 0),
    "list": lambda place: list_names(place.parent, budget_s=0),
    "delete": lambda place: delete(place, budget_s=0),
}


@pytest.mark.parametrize("action", ["hang", "slow:2", "reset", "lose_reply", "status:500", "error:503:SlowDown"])
@pytest.mark.parametrize("name", CALLS)
def test_every_call_ends(
    faults: FaultProxy, s3_folder: Location, monkeypatch: pytest.MonkeyPatch, name: str, action: str
) -> None:
    place = s3_folder.child("x y+ü")
    put_replacing(place, b"data")
    s3_folder.filesystem.invalidate_cache()
    faults.seen.clear()
    monkeypatch.setattr(s3, "CALL_DEADLINE_S", 0.3)
    faults.faults.append(Fault(".", -1, action))
    with pytest.raises(StorageError, match=r"failed once in .*Run the same command again"):
        CALLS[name](place)
    # aiohttp sends a request again when the connection that it had kept open turns out to be gone.
    n_requests = 2 if action in {"reset", "lose_reply"} else 1
    assert len(faults.seen) <= n_requests, "nothing else may try again below"


def test_a_body_that_nobody_reads_is_given_up(
    faults: FaultProxy, s3_folder: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "CALL_DEADLINE_S", 0.3)
    monkeypatch.setattr(s3, "SLOWEST_BYTES_PER_S", 64 * 1024**2)
    faults.faults.append(Fault("^PUT", -1, "deaf"))
    with pytest.raises(StorageError, match="no complete reply to put_object"):
        put_new(s3_folder.child("x"), b"x" * (32 * 1024**2), budget_s=0)
    faults.faults.clear()
    assert not exists(s3_folder.child("x"))


def test_what_breaks_off_in_the_middle_is_read_again(faults: FaultProxy, s3_folder: Location) -> None:
    put_new(s3_folder.child("x"), b"0123456789")
    faults.faults.append(Fault("^GET", 2, "truncate"))
    faults.faults.append(Fault("^GET", 2, "reset"))
    assert read_bytes(s3_folder.child("x")) == b"0123456789"


def refusal(status: int, code: str = "", **headers: str) -> ClientError:
    reply = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers}}
    return ClientError(reply, "PutObject")


def pauses(monkeypatch: pytest.MonkeyPatch, errors: list[Exception]) -> list[float]:
    """The pauses between attempts that fail with these errors, one after the other."""
    slept: list[float] = []
    monkeypatch.setattr(filesystem.time, "sleep", slept.append)
    remaining = iter(errors)

    def call() -> None:
        if (error := next(remaining, None)) is not None:
            raise error

    retry_transient(call, "a call")
    return slept


def test_pauses_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = pauses(monkeypatch, [refusal(500)] * 12)
    assert all(0.05 * 2**n <= pause <= 0.15 * 2**n for n, pause in enumerate(slept[:7]))
    assert all(5 <= pause <= 15 for pause in slept[7:])
    assert len(set(slept)) == 12


def test_what_a_store_asks_for_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = refusal(503, **{"retry-after": "7"})
    too_long, date = refusal(503, **{"retry-after": "86400"}), refusal(503, **{"retry-after": "Wed, 21 Oct 2026"})
    slept = pauses(monkeypatch, [asked, too_long, date, refusal(503, "SlowDown"), refusal(429)])
    assert slept[:2] == [7.0, 30.0]
    assert 0.2 <= slept[2] <= 0.6
    assert all(0.5 <= pause <= 2.4 for pause in slept[3:])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("403:RequestTimeTooSkewed", "the clock of this machine.*timedatectl"),
        ("403:QuotaExceeded", "quota.*free space"),
        ("307:TemporaryRedirect", "the store refuses the request.*AWS_ENDPOINT_URL"),
    ],
)
def test_refusals_that_are_no_matter_of_permission_say_so(
    faults: FaultProxy, s3_folder: Location, code: str, words: str
) -> None:
    faults.faults.append(Fault("^PUT", -1, f"error:{code}"))
    with pytest.raises(StorageError, match=words):
        put_new(s3_folder.child("x"), b"")
