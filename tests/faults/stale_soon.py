"""Runs `python -m MODULE ARGUMENTS` with a lease that goes stale after two seconds of silence. Not a test itself.

python -m tests.faults.stale_soon PYTHON -m rembert_ray run MANIFEST ...
"""

from __future__ import annotations

import functools
import runpy
import sys

from rembert_ray.storage import lease

lease.Lease.acquire = functools.partial(lease.Lease.acquire, stale_after_s=2.0)  # type: ignore[method-assign]
sys.argv = sys.argv[3:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
