"""Errors travel between processes as they are."""

from __future__ import annotations

import pickle

from rembert_ray.errors import Fault, UnusableError


def test_faults_survive_the_way_from_a_worker():
    error = UnusableError([Fault("precision", "no GPU", "set int8"), Fault("model", "no file")])
    again = pickle.loads(pickle.dumps(error))
    assert again.faults == error.faults
    assert str(again) == "precision: no GPU (set int8)\nmodel: no file"
