"""Calls to an S3 store, each with a deadline: conditional put, ranged get, head, paged listing, delete.

s3fs supplies the connections; its higher-level methods are not used where they hide what a commit depends on
(listing caches, multipart uploads, replies of two bytes per second that never time out). This file knows
nothing of parts, leases or Parquet, and does not retry: see `filesystem.retry_transient`.

The deadline of a call is 30 s, and for its body as long as 512 KiB/s take. It covers all: name look-up, connection,
TLS, credentials, request, and reading the reply to its last byte, however slowly that comes. Where it is:

    call         put, head, list (each page), delete, and whatever else has a small reply: `timeout` of `call_s3`
    read_range   a ranged get with its body: `timeout` of `sync`; `read` and Parquet reads are made of these

On local disk there is none (a process that waits for a dead NFS server cannot be interrupted): the job's stall
watch ends such a run. Other remote stores are read through fsspec with its own time-outs, and never written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rembert_ray.errors import ShardError
from rembert_ray.storage.filesystem import filesystem_for, http_status

CALL_DEADLINE_S = 30.0
SLOWEST_BYTES_PER_S = 512 * 1024
LARGEST_PUT_BYTES = 5 * 1024**3
READ_STEP_BYTES = 64 * 1024**2


def deadline_s(n_bytes: int) -> float:
    """Seconds that a transfer of `n_bytes` may take before it counts as hung."""
    return CALL_DEADLINE_S + n_bytes / SLOWEST_BYTES_PER_S


def call(method: str, path: str, *, n_bytes: int = 0, **arguments: Any) -> dict[str, Any]:
    """One S3 request for the object `path` ("bucket/key"); the reply as botocore's dict.

    Raises what s3fs raises: FileNotFoundError, PermissionError, OSError with botocore's ClientError as its
    cause; TimeoutError when the reply is not complete after `deadline_s(n_bytes)`.
    """
    from fsspec.exceptions import FSTimeoutError

    bucket, _, key = path.partition("/")
    if not method.startswith("list_"):
        arguments["Key"] = key
    seconds = deadline_s(n_bytes)
    try:
        reply: dict[str, Any] = filesystem_for("s3").call_s3(method, Bucket=bucket, timeout=seconds, **arguments)
    except FSTimeoutError as error:
        raise TimeoutError(f"no complete reply to {method} within {seconds:.0f} s") from error
    return reply


def put(path: str, data: bytes, metadata: Mapping[str, str], *, only_new: bool) -> bool:
    """Put one object in one request; False when `only_new` and an object of that name exists (HTTP 412).

    Never a multipart upload: the condition of its completion is not honoured everywhere.
    """
    if len(data) > LARGEST_PUT_BYTES:
        raise ShardError(f"s3://{path}: {len(data)} bytes are more than one put can hold (5 GiB): use smaller shards")
    condition = {"IfNoneMatch": "*"} if only_new else {}
    try:
        call("put_object", path, n_bytes=len(data), Body=data, Metadata=dict(metadata), **condition)
    except OSError as error:
        if only_new and (isinstance(error, FileExistsError) or http_status(error) == 412):
            return False
        raise
    return True


def head(path: str) -> dict[str, Any]:
    """Size, ETag, user metadata and the reply's headers of one object."""
    return call("head_object", path)


def delete(path: str) -> None:
    """Delete one object; nothing happens when there is none."""
    call("delete_object", path)


def exists(path: str) -> bool:
    """Whether there is an object of this name, or one below it."""
    try:
        head(path)
    except FileNotFoundError:
        page = call("list_objects_v2", path, Prefix=path.partition("/")[2].rstrip("/") + "/", MaxKeys=1)
        return bool(page.get("Contents"))
    return True


def read(path: str) -> bytes:
    """A whole object, in ranges, so that each request has a deadline of minutes."""
    size_bytes = int(head(path)["ContentLength"])
    steps = range(0, size_bytes, READ_STEP_BYTES)
    return b"".join(read_range(path, start, min(start + READ_STEP_BYTES, size_bytes)) for start in steps)


class ObjectChangedError(OSError):
    """An object is no longer what it was when reading began, or when it was planned."""


def read_range(path: str, start: int, stop: int, etag: str = "") -> bytes:
    """Bytes `start` to `stop` (exclusive) of an object.

    Raises `ObjectChangedError` when the object has another ETag than `etag` by now (an empty one is not compared), and
    TimeoutError (worth another attempt) when the reply is shorter.
    """
    if stop <= start:
        return b""
    from fsspec.asyn import sync

    filesystem = filesystem_for("s3")
    seconds = deadline_s(stop - start)
    try:
        data, found = sync(filesystem.loop, _get, filesystem, path, start, stop, timeout=seconds)
    except OSError as error:
        if etag and http_status(error) == 416:
            raise ObjectChangedError(f"it ends before byte {start:,} now") from error
        raise
    if etag and found != etag:
        raise ObjectChangedError(f"ETag {etag} before, {found} now")
    if len(data) != stop - start:
        raise TimeoutError(f"s3://{path}: the reply broke off after {len(data)} of {stop - start} bytes")
    return bytes(data)


async def _get(filesystem: Any, path: str, start: int, stop: int) -> tuple[bytes, str]:
    """The bytes and the ETag of one ranged request."""
    bucket, _, key = path.partition("/")
    reply = await filesystem._call_s3("get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}")
    async with reply["Body"] as body:
        data: bytes = await body.read()
    return data, str(reply.get("ETag", "")).strip('"')


def list_pages(prefix: str, *, is_recursive: bool) -> Iterator[dict[str, Any]]:
    """The pages of a listing of all keys that start with `prefix` ("bucket/key-prefix"), never from a
    cache."""
    _, _, key_prefix = prefix.partition("/")
    arguments: dict[str, Any] = {"Prefix": key_prefix}
    if not is_recursive:
        arguments["Delimiter"] = "/"
    while True:
        page = call("list_objects_v2", prefix, **arguments)
        yield page
        if not page.get("IsTruncated"):
            return
        arguments["ContinuationToken"] = page["NextContinuationToken"]
