"""What the operator sees of an error that a worker raised. Needs ray, but no cluster."""

from __future__ import annotations

import pickle

import pytest
from ray.exceptions import RayTaskError

from rembert_ray.errors import Fault, StorageError, UnusableError
from rembert_ray.pipeline import _explain

FAULTS = [Fault("precision", "int8 needs VNNI", "set float32"), Fault("model", "no file")]


@pytest.mark.parametrize("error", [UnusableError(FAULTS), StorageError("the bucket is gone")], ids=["faults", "text"])
@pytest.mark.parametrize("is_wrapped_again", [False, True])
def test_an_error_of_ours_arrives_as_it_was_raised(error, is_wrapped_again):
    told = pickle.loads(pickle.dumps(error))
    told.args = (f"{told.args[0]}\nTo change retry attempts, configure Ray",)  # as Ray does in the worker
    from_ray = RayTaskError("infer", "Traceback ...", pickle.loads(pickle.dumps(told))).as_instanceof_cause()
    if is_wrapped_again:
        outer = RuntimeError("ray.data gave up")
        outer.__cause__ = from_ray
        from_ray = outer
    found = _explain(from_ray)
    assert type(found) is type(error)
    assert found.lines == error.lines
