"""Can this place take the output? Found out by writing, before any work is done.

A store that ignores the create-only condition looks healthy until two runs overlap, so the probe writes the
same name twice and expects the second to be refused. It leaves nothing behind but the folder that the lease
uses as well.
"""

from __future__ import annotations

import secrets

from rembert_ray.errors import Fault, StorageError, UnusableError
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.location import Location, delete, read_bytes
from rembert_ray.storage.put import put_new

CONTROL_FOLDER = "_rembert_ray"
PROBE_BUDGET_S = 5.0


def probe_output(output: Location, *, budget_s: float = PROBE_BUDGET_S) -> list[Fault]:
    """What stands in the way of writing parts to `output`; an empty list when nothing does.

    Costs two puts, one get and one delete; a store that does not answer is given up after about `budget_s`
    seconds.
    """
    probe = output.child(CONTROL_FOLDER, f"probe-{secrets.token_hex(8)}")
    content = probe.name.encode()
    where = str(output)
    try:
        if not put_new(probe, content, budget_s=budget_s):
            return [Fault(where, "a new object is reported as existing", "check the store's write path")]
        faults = _check_second_put(probe, content, where, budget_s)
        return faults + _check_delete(probe, where)
    except UnusableError as error:
        return list(error.faults)
    except StorageError as error:
        cause = error.__cause__
        return [explain(where, cause) if cause is not None else Fault(where, str(error))]
    except storage_errors() as error:
        return [explain(where, error)]


def _check_delete(probe: Location, where: str) -> list[Fault]:
    try:
        delete(probe)
    except storage_errors() as error:
        what = f"files can be written but not deleted ({explain(where, error).what})"
        return [Fault(where, what, f"allow deleting below {CONTROL_FOLDER}/: leases are pruned there")]
    return []


def _check_second_put(probe: Location, content: bytes, where: str, budget_s: float) -> list[Fault]:
    if put_new(probe, b"second", budget_s=budget_s):
        what = "the store ignores `If-None-Match: *`: two runs would overwrite each other's results"
        return [Fault(where, what, "use a store with conditional writes: AWS S3, Ceph, MinIO, Cloudflare R2")]
    if read_bytes(probe) != content:
        return [Fault(where, "what was written does not read back the same", "check the store")]
    return []
