"""A limit on what this process may allocate while it decodes bytes that somebody else wrote.

Linux counts address space, so the limit is one on growth: an allocation beyond it fails with MemoryError (or Arrow's),
and the process goes on. It holds for all threads; that is why it is generous, and short.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

_lock = threading.Lock()
_n_inside = 0
_before = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
_pool_before = pa.default_memory_pool()


@contextmanager
def limited_growth(n_bytes: int) -> Iterator[None]:
    """At most `n_bytes` more than now, until the context ends; of several threads the last ends it.

    Linux only.
    """
    global _n_inside, _before, _pool_before
    with _lock:
        if not _n_inside:
            # Arrow's own allocator keeps the addresses that it has had, so that every bomb would raise the limit.
            _pool_before = pa.default_memory_pool()
            pa.set_memory_pool(pa.system_memory_pool())
            _before = resource.getrlimit(resource.RLIMIT_AS)
            wanted = _address_space_bytes() + n_bytes
            limits = [limit for limit in _before if limit != resource.RLIM_INFINITY]
            resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *limits]), _before[1]))
        _n_inside += 1
    try:
        yield
    finally:
        with _lock:
            _n_inside -= 1
            if not _n_inside:
                resource.setrlimit(resource.RLIMIT_AS, _before)
                pa.set_memory_pool(_pool_before)


def _address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
