"""Can this place take the output? Found out by writing, before any work is done.

A store that ignores the create-only condition looks healthy until two runs overlap, so the probe writes the
same name twice and expects the second to be refused. There is no weaker mode for a store that takes it: it is
refused. The probe leaves nothing behind but the folder that the lease uses as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from rembert_ray.errors import Fault, StorageError, UnusableError
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.listing import list_names
from rembert_ray.storage.location import Location, delete, read_bytes
from rembert_ray.storage.put import put_new

CONTROL_FOLDER = "_rembert_ray"
PROBE_BUDGET_S = 5.0


def probe_output(output: Location, *, budget_s: float = PROBE_BUDGET_S) -> list[Fault]:
    """What stands in the way of writing parts to `output`; an empty list when nothing does.

    Costs two puts, a get, a listing and a delete; a store that does not answer is given up after about `budget_s`
    seconds, or the deadline of one call.
    """
    probe = output.child(CONTROL_FOLDER, f"probe-{secrets.token_hex(8)}")
    content = probe.name.encode()
    where = str(output)
    try:
        if not put_new(probe, content, budget_s=budget_s):
            return [Fault(where, "a new object is reported as existing", "check the store's write path")]
        faults = _check_second_put(probe, where, budget_s)
    except UnusableError as error:
        return list(error.faults)
    except StorageError as error:
        return [_cause(where, error)]

    def read() -> None:
        if not faults and read_bytes(probe, budget_s=budget_s) != content:
            faults.append(Fault(where, "what was written does not read back the same", "check the store"))

    # Another listing's truth is not asked for: one that lags behind does no harm.
    faults += _try(read, where, "read", "allow reading (s3:GetObject): results are read back")
    faults += _try(
        lambda: list_names(probe.parent, budget_s=budget_s),
        where,
        "listed",
        "allow listing (s3:ListBucket): resume is one",
    )
    allow_delete = f"allow deleting (s3:DeleteObject) below {CONTROL_FOLDER}/: leases are pruned there"
    return faults + _try(lambda: delete(probe, budget_s=budget_s), where, "deleted", allow_delete)


def _check_second_put(probe: Location, where: str, budget_s: float) -> list[Fault]:
    if put_new(probe, b"second", budget_s=budget_s):
        what = "the store ignores `If-None-Match: *`: two runs would overwrite each other's results"
        return [Fault(where, what, "use a store with conditional writes: AWS S3, Ceph, MinIO, Cloudflare R2")]
    return []


def _try(call: Callable[[], object], where: str, done: str, fix: str) -> list[Fault]:
    """A fault that says what cannot be done with what was written."""
    try:
        call()
    except StorageError as error:
        return [_cause(where, error)]
    except storage_errors() as error:
        return [Fault(where, f"files can be written but not {done}: {explain(where, error).what}", fix)]
    return []


def _cause(where: str, error: StorageError) -> Fault:
    cause = error.__cause__
    return explain(where, cause) if cause is not None else Fault(where, str(error))
