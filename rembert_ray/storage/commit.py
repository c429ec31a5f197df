"""The exactly-once commit: a shard's rows become one object, created once, under a name that says which shard
it is.

The object is the commit; there is no marker beside it that could disagree. When the name is taken already,
the footer of the object is read back and decides: ours after a lost reply, another attempt's at the same
shard, or foreign. This file never deletes, replaces or renames a part.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rembert_ray.errors import Fault, ShardError, StorageError, UnusableError
from rembert_ray.storage.digest import content_digest
from rembert_ray.storage.filesystem import RETRY_BUDGET_S, explain, storage_errors
from rembert_ray.storage.listing import file_info, list_names
from rembert_ray.storage.location import Location
from rembert_ray.storage.parquet import encode_parquet, read_footer_values
from rembert_ray.storage.put import put_new

__all__ = [
    "Commit",
    "Part",
    "commit_part",
    "confirm_parts",
    "list_parts",
    "other_identity",
    "parse_part_name",
    "part_name",
]

PART_PREFIX = "part-"
CONFIRM_BUDGET_S = 300.0
CONFIRM_THREADS = 16
FOOTERS_AT_ONCE = 1024
_PART_NAME = re.compile(r"part-(\d{8,})-([0-9a-f]+)\.parquet")
_IDENTITY = ("shard", "fingerprint", "plan_id", "source", "row_start", "n_rows")


@dataclass(frozen=True)
class Part:
    """What one output object is: the shard of a plan, the rows of the input that it holds, and the attempt at
    it.

    `fingerprint` is short lower-case hex; `source` is the URL of the input file; `attempt` is unique for each
    try.
    """

    shard: int
    fingerprint: str
    plan_id: str
    source: str
    row_start: int
    n_rows: int
    attempt: str

    @property
    def name(self) -> str:
        """The object's name."""
        return part_name(self.shard, self.fingerprint)

    def footer(self) -> dict[str, str]:
        """The identity as footer values."""
        return {key: str(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Commit:
    """How a part came to be there.

    `written`: created now. `recovered`: created by this attempt earlier, the reply was lost. `adopted`:
    another attempt at the same shard was first; `differs` says that its values are not bit for bit ours
    (float noise between machines): the first commit is the commit. Sizes and digests are those of the object
    that is there, except that `n_bytes` and `sha256` of an adopted one are empty (0, "").
    """

    location: Location
    outcome: Literal["written", "recovered", "adopted"]
    attempt: str
    n_rows: int
    n_bytes: int
    sha256: str
    content_digest: str
    differs: bool = False


def part_name(shard: int, fingerprint: str) -> str:
    """`part-00000042-<fingerprint>.parquet`."""
    name = f"{PART_PREFIX}{shard:08d}-{fingerprint}.parquet"
    if parse_part_name(name) is None:
        raise ValueError(f"not a part name: {name!r} (shard >= 0, fingerprint in lower-case hex)")
    return name


def parse_part_name(name: str) -> tuple[int, str] | None:
    """(shard, fingerprint) of an object name, None for any other name."""
    match = _PART_NAME.fullmatch(name)
    return None if match is None else (int(match[1]), match[2])


def commit_part(
    output: Location,
    part: Part,
    table: pa.Table,
    footer: Mapping[str, str],
    *,
    budget_s: float = RETRY_BUDGET_S,
) -> Commit:
    """Make the rows of a shard permanent, exactly once, and say how.

    `footer` holds further values for the object's footer (counts, timings, versions). Raises `ShardError`
    when the rows are not the planned number or cannot be encoded, `StorageError` when the store gives out for
    `budget_s` seconds or when the name is held by an object that is not this shard.
    """
    if table.num_rows != part.n_rows:
        raise ShardError(f"shard {part.shard} has {table.num_rows} rows instead of {part.n_rows}: not committed")
    digest = content_digest(table)
    data = encode_parquet(table, {**footer, **part.footer(), "content_digest": digest})
    sha256 = hashlib.sha256(data).hexdigest()
    location = output.child(part.name)
    metadata = {"attempt": part.attempt, "rows": str(part.n_rows), "sha256": sha256}
    if put_new(location, data, metadata, budget_s=budget_s):
        return Commit(location, "written", part.attempt, part.n_rows, len(data), sha256, digest)
    there = _read_back(location, part)
    if there["attempt"] == part.attempt:
        return Commit(location, "recovered", part.attempt, part.n_rows, len(data), sha256, digest)
    winner = there.get("content_digest", "")
    return Commit(location, "adopted", there["attempt"], part.n_rows, 0, "", winner, differs=winner != digest)


def _read_back(location: Location, part: Part) -> dict[str, str]:
    """The footer values of the object that holds the name, once they say that it is this shard."""
    advice = "move it away, or choose another output"
    try:
        there = read_footer_values(location)
    except ShardError as error:
        raise StorageError(f"{location} exists but is not a part of this job: {error}; {advice}") from error
    wrong = other_identity(there, part)
    if wrong or "attempt" not in there:
        raise StorageError(f"{location} exists and is not this shard: {', '.join(wrong)}; {advice}")
    return there


def other_identity(there: Mapping[str, str], part: Part) -> list[str]:
    """In what the footer values of an object say that it is another shard than `part`; the attempt may differ."""
    ours = part.footer()
    return [f"{key} {there.get(key)!r} instead of {ours[key]!r}" for key in _IDENTITY if there.get(key) != ours[key]]


def list_parts(output: Location, fingerprint: str) -> npt.NDArray[np.int64]:
    """The committed shards of a fingerprint, ascending, from one listing. An output that does not exist has
    none.

    Raises `StorageError` when the store refuses or gives out.
    """
    return np.array(sorted(shard for shard, other in _parts(output) if other == fingerprint), np.int64)


def confirm_parts(
    output: Location, fingerprint: str, wanted: npt.NDArray[np.int64], *, budget_s: float = CONFIRM_BUDGET_S
) -> npt.NDArray[np.int64]:
    """The `wanted` shards that are committed, ascending: from one listing, and one look at each that it leaves out.

    Listings may lag behind on some stores (and on NFS); a new object is found by its name at once. Raises
    `StorageError` when the store refuses or gives out, or when not all could be looked at within `budget_s` seconds.
    """
    listed = np.isin(wanted, list_parts(output, fingerprint))
    unlisted = wanted[~listed]
    deadline = time.monotonic() + budget_s

    def look(shard: int) -> bool:
        location = output.child(part_name(shard, fingerprint))
        if time.monotonic() > deadline:
            raise StorageError(
                f"{output}: {len(unlisted)} objects are not in the listing and could not be looked at one by one in "
                f"{budget_s:.0f} s, {location.name} among them. Run the same command again to have the rest looked at"
            )
        try:
            return file_info(location) is not None
        except storage_errors() as error:
            raise StorageError(f"cannot look for {explain(str(location), error)}") from error

    with ThreadPoolExecutor(CONFIRM_THREADS) as pool:
        found = np.fromiter(pool.map(look, unlisted.tolist()), bool, len(unlisted))
    return np.sort(np.concatenate([wanted[listed], unlisted[found]]))


def refuse_parts_of_another_plan(
    output: Location, fingerprint: str, plan_id: str, shards: npt.NDArray[np.int64]
) -> None:
    """Look into the first of these parts: a plan that was lost and made anew from a changed input has other rows in it.

    Raises `UnusableError` when the part belongs to another plan, `StorageError` when the store gives out.
    """
    if not len(shards):
        return
    location = output.child(part_name(int(shards[0]), fingerprint))
    try:
        found = read_footer_values(location).get("plan_id")
    except ShardError as error:
        found = f"none that can be read ({error})"
    if found != plan_id:
        what = f"is a part of the plan {found}, the plan stored here is {plan_id}"
        raise UnusableError(
            Fault(str(location), what, f"see `rembert-ray verify {output}`, or choose a new output.path")
        )


def count_errors(output: Location, fingerprint: str, shards: npt.NDArray[np.int64]) -> int:
    """How many rows of these committed shards have an error. Raises like `part_footers`."""
    return sum(int(footer.get("n_errors", "0")) for footer in part_footers(output, fingerprint, shards))


def part_footers(output: Location, fingerprint: str, shards: npt.NDArray[np.int64]) -> Iterator[dict[str, str]]:
    """The footer values of these committed shards, in this order, read by a few threads.

    Raises `StorageError` when the store gives out, `ShardError` when an object is damaged.
    """
    with ThreadPoolExecutor(CONFIRM_THREADS) as pool:
        for start in range(0, len(shards), FOOTERS_AT_ONCE):
            names = (part_name(shard, fingerprint) for shard in shards[start : start + FOOTERS_AT_ONCE].tolist())
            yield from pool.map(read_footer_values, map(output.child, names))


def _parts(output: Location) -> list[tuple[int, str]]:
    try:
        names = list_names(output, PART_PREFIX)
    except storage_errors() as error:
        raise StorageError(f"cannot list {explain(str(output), error)}") from error
    return [parsed for parsed in map(parse_part_name, names) if parsed is not None]
