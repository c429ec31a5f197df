"""Which filesystem serves a URL: one fsspec instance per process and settings, and what its errors mean.

Credentials and endpoints come from the environment only, never from a URL, so that a URL can be printed,
pickled and written into a Parquet footer: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or
AWS_PROFILE and its files; AWS_ENDPOINT_URL or AWS_ENDPOINT_URL_S3; AWS_REGION; and FSSPEC_S3_ANON=true to read public
data without any credentials (fsspec reads it when it is imported). This file decides which failures are worth another
attempt (by exception class and HTTP status, never by message text); it reads and writes no data itself. fsspec, which
brings asyncio, is imported by what needs it: `validate` does not.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from rembert_ray.errors import Fault, StorageError, UnusableError, nearest
from rembert_ray.watchdog import beat

LOCAL_SCHEMES = frozenset({"file", "local"})
S3_SCHEMES = frozenset({"s3", "s3a", "s3n"})
RETRY_BUDGET_S = 120.0
LONGEST_RETRY_AFTER_S = 30.0

# What fsspec lists as protocols but are wrappers around another filesystem, or hold no files.
_NO_PLACES = frozenset(
    [
        "async_wrapper",
        "asynclocal",
        "asyncwrapper",
        "blockcache",
        "cached",
        "dask",
        "data",
        "dir",
        "filecache",
        "generic",
        "libarchive",
        "reference",
        "simplecache",
        "tar",
        "zip",
    ]
)
_S3_SETTINGS = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
# S3 reports some failures of the transfer as HTTP 400.
_TRANSIENT_CODES = frozenset({"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"})
_TOO_MANY = frozenset({"SlowDown", "Throttling", "TooManyRequests", "RequestLimitExceeded"})
_TRANSIENT_HTTP = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_DENIED = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the policy of the bucket"
_CHECK_ENDPOINT = "check AWS_ENDPOINT_URL (or the region) and the network"
_GIVE_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; FSSPEC_S3_ANON=true reads public data without any"
)
_REFUSED = ("the credentials are refused", _DENIED)
_WRONG_CLOCK = (
    "the clock of this machine and the clock of the store are too far apart",
    "set this machine's clock (`timedatectl` says whether it is synchronized), then run the same command again",
)
_FULL = ("the quota of the bucket is used up", "free space there, then run the same command again")
_MEANINGS = {
    "InvalidAccessKeyId": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
    "ExpiredToken": _REFUSED,
    "InvalidToken": _REFUSED,
    "RequestTimeTooSkewed": _WRONG_CLOCK,
    "RequestExpired": _WRONG_CLOCK,
    "QuotaExceeded": _FULL,
    "NoSuchBucket": ("no such bucket", "check the bucket's name and AWS_ENDPOINT_URL, or create it"),
}

# By name, because their module is imported lazily.
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})
_TRANSIENT_ERRNO = frozenset({errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT, errno.ESTALE})

_instances: dict[tuple[object, ...], Any] = {}
_instances_lock = threading.Lock()

Result = TypeVar("Result")


def check_scheme(scheme: str, where: str) -> None:
    """Raise `UnusableError` unless fsspec knows `scheme` and its package is installed."""
    # s3fs is a dependency of this package, and takes a second to import.
    if scheme in S3_SCHEMES:
        return
    import fsspec

    known = {*fsspec.available_protocols(), *S3_SCHEMES} - _NO_PLACES
    if scheme not in known:
        raise UnusableError(Fault(where, f"unknown scheme {scheme!r}", nearest(scheme, known)))
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        fix = str(error) or f"install the fsspec package for {scheme}://"
        raise UnusableError(Fault(where, f"no package installed for {scheme}://", fix)) from error


def filesystem_for(scheme: str) -> Any:
    """The fsspec filesystem of `scheme`, made once per process and per AWS settings.

    fsspec's own cache is per thread, which would open one connection pool per thread.
    """
    if scheme in S3_SCHEMES:
        scheme = "s3"
    settings = tuple(os.environ.get(name) for name in _S3_SETTINGS) if scheme == "s3" else ()
    key = (os.getpid(), scheme, *settings)
    with _instances_lock:
        if key not in _instances:
            import fsspec

            options = _s3_options() if scheme == "s3" else {}
            filesystem = fsspec.filesystem(scheme, skip_instance_cache=True, **options)
            if scheme == "s3":
                filesystem.retries = 1
            _instances[key] = filesystem
        return _instances[key]


def _s3_options() -> dict[str, Any]:
    import fsspec

    # One attempt: `retry_transient` is the one place that tries again, with one budget and one message.
    config: dict[str, Any] = {
        "connect_timeout": 5,
        "read_timeout": 30,
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "max_pool_connections": 32,
    }
    # Stores other than AWS answer the new default checksums with errors (HTTP 411 from Ceph's gateway).
    if "AWS_REQUEST_CHECKSUM_CALCULATION" not in os.environ:
        config["request_checksum_calculation"] = "when_required"
    if "AWS_RESPONSE_CHECKSUM_VALIDATION" not in os.environ:
        config["response_checksum_validation"] = "when_required"
    config.update(fsspec.config.conf.get("s3", {}).get("config_kwargs", {}))
    return {"config_kwargs": config, "use_listings_cache": False}


def storage_errors() -> tuple[type[Exception], ...]:
    """The classes that filesystem calls raise, for an `except` clause: OSError, and botocore's once it is in
    use.

    botocore and aiohttp take 0.3 s to import, which local work shall not pay.
    """
    if "botocore" not in sys.modules:
        return (OSError,)
    from botocore.exceptions import BotoCoreError, ClientError

    return (OSError, BotoCoreError, ClientError, *_transient_classes())


def _transient_classes() -> tuple[type[Exception], ...]:
    classes: tuple[type[Exception], ...] = (TimeoutError, ConnectionError)
    if "fsspec" in sys.modules:
        from fsspec.exceptions import FSTimeoutError

        classes += (FSTimeoutError,)
    if "botocore" in sys.modules:
        from botocore import exceptions, parsers

        classes += (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError)
        classes += (parsers.ResponseParserError,)
    if "aiohttp" in sys.modules:
        import aiohttp

        classes += (aiohttp.ClientError,)
    return classes


def _store_reply(error: BaseException) -> dict[str, Any]:
    """The reply of an object store behind an error (botocore's `ClientError.response`), or an empty one."""
    reply: BaseException | None = error
    while reply is not None:
        response = getattr(reply, "response", None)
        if isinstance(response, dict):
            return response
        reply = reply.__cause__
    return {}


def http_status(error: BaseException) -> int | None:
    """The HTTP status behind an error of an object store, or None."""
    status = _store_reply(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def error_code(error: BaseException) -> str:
    """The store's own word for an error (`NoSuchBucket`, `AccessDenied`), or an empty string."""
    return str(_store_reply(error).get("Error", {}).get("Code", ""))


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later: time-outs, broken connections, HTTP 408, 409, 429 and 5xx."""
    status = http_status(error)
    if status is not None:
        return status in _TRANSIENT_HTTP or error_code(error) in _TRANSIENT_CODES
    if isinstance(error, _transient_classes()):
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNO


def retry_transient(call: Callable[[], Result], what: str, budget_s: float = RETRY_BUDGET_S) -> Result:
    """Run `call` until it answers; other errors than transient ones pass through unchanged.

    Waits 0.1 s, 0.2 s, ... at most 10 s, each times a random factor of 0.5 to 1.5; longer when the store says
    `Retry-After`, and at least about a second when it asks for fewer requests. Once `budget_s` seconds are over no new
    attempt starts and `StorageError` is raised, so that all ends at most the deadline of one call later (see `s3`);
    `what` says in its message what was tried.
    """
    started = time.monotonic()
    attempt = 0
    while True:
        attempt += 1
        beat()
        try:
            return call()
        except storage_errors() as error:
            if not is_transient(error):
                raise
            elapsed_s = time.monotonic() - started
            pause_s = _pause_s(attempt, error)
            if elapsed_s + pause_s > budget_s:
                raise StorageError(
                    f"{what}: failed {_times(attempt)} in {elapsed_s:.0f} s, last with "
                    f"{_in_words(error)}. Run the same command again when the storage is back"
                ) from error
            time.sleep(pause_s)


def _pause_s(attempt: int, error: BaseException) -> float:
    wait_s: float = 0.1 * 2 ** min(attempt - 1, 10)
    if http_status(error) == 429 or error_code(error) in _TOO_MANY:
        wait_s = max(1.0, wait_s)
    headers = _store_reply(error).get("ResponseMetadata", {}).get("HTTPHeaders", {})
    asked = str(headers.get("retry-after", ""))
    # A date, the header's other form, is left aside: it would need the store's clock.
    asked_s = min(LONGEST_RETRY_AFTER_S, float(asked)) if asked.isdecimal() else 0.0
    return max(min(10.0, wait_s) * random.uniform(0.5, 1.5), asked_s)


def _in_words(error: BaseException) -> str:
    """An error of a store in one line: `HTTP 503 SlowDown: ...`, or the name of its class."""
    status, code = http_status(error), error_code(error)
    kind = type(error).__name__ if status is None else f"HTTP {status} {'' if code.isdigit() else code}".rstrip()
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{kind}: {said}".rstrip(". \n")


def _times(attempt: int) -> str:
    return "once" if attempt == 1 else f"{attempt} times"


def explain(where: str, error: BaseException) -> Fault:
    """What an error of a filesystem call means to the person who wrote the URL, and what to do about it."""
    status, code = http_status(error), error_code(error)
    said = f" ({code})" if code and not code.isdigit() else ""
    if type(error).__name__ in _NO_CREDENTIALS:
        return Fault(where, "no credentials found", _GIVE_CREDENTIALS)
    if code in _MEANINGS:
        what, fix = _MEANINGS[code]
        return Fault(where, f"{what}{said}", fix)
    if status == 403 or isinstance(error, PermissionError):
        fix = _DENIED if status == 403 else "check the owner and mode of the file and its folders"
        return Fault(where, f"permission denied{said}", fix)
    if status == 404 or isinstance(error, FileNotFoundError):
        return Fault(where, "nothing there", "check the spelling of the path")
    if status in {301, 307, 400}:
        return Fault(where, f"the store refuses the request{said}: {error}", "check AWS_REGION and AWS_ENDPOINT_URL")
    if isinstance(error, _transient_classes()):
        return Fault(where, f"the store does not answer: {_in_words(error)}", _CHECK_ENDPOINT)
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Fault(where, os.strerror(error.errno), "free space or inodes there, then run the same command again")
    return Fault(where, f"{type(error).__name__}: {error}", "check that the storage works and is writable")
