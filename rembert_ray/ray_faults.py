"""Which Ray a job may run on, found out without importing it.

Ray before 2.60 runs code that the metadata of a Parquet file brings along; the variables `RAY_DATA_AUTOLOAD_*` bring
that back (ray/data/__init__.py, ray/data/_internal/tensor_extensions/arrow.py and object_extensions/arrow.py of 2.60).
"""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, version

from rembert_ray.errors import Fault

OLDEST = (2, 60)
AUTOLOAD = "RAY_DATA_AUTOLOAD_"


def ray_faults() -> list[Fault]:
    """What is wrong with the installed Ray and this process's environment; nothing where there is no Ray.

    The environment of the workers on other nodes is the operator's, and cannot be seen from here.
    """
    found = [
        Fault(
            name, "lets Ray run code that it finds in Parquet files", "unset it, here and on all nodes of the cluster"
        )
        for name in sorted(os.environ)
        if name.startswith(AUTOLOAD)
    ]
    try:
        installed = version("ray")
    except PackageNotFoundError:
        return found
    numbers = re.match(r"(\d+)\.(\d+)", installed)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        what = f"Ray {installed} runs code that it finds in Parquet files"
        found.append(Fault("ray", what, f"install {oldest} or later, here and on all nodes of the cluster"))
    return found
