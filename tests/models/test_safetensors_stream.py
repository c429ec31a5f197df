"""Files written tensor by tensor are what the library reads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load

from rembert_ray.models.safetensors_stream import DTYPES, LazyTensor, write_stream


@given(st.lists(st.tuples(st.sampled_from(sorted(DTYPES, key=str)), st.lists(st.integers(0, 4), max_size=3))))
def test_the_library_reads_what_was_written(tmp_path_factory, drawn):
    tensors = {f"t{index}": torch.randn(shape).to(dtype) for index, (dtype, shape) in enumerate(drawn)}
    lazy = {
        name: LazyTensor(DTYPES[tensor.dtype], tuple(tensor.shape), tensor.clone) for name, tensor in tensors.items()
    }
    path = tmp_path_factory.mktemp("stream") / "x"
    write_stream(path, lazy)
    content = path.read_bytes()
    found = load(content)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert all(found[name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_a_tensor_must_be_as_announced(tmp_path):
    with pytest.raises(ValueError, match="announced"):
        write_stream(tmp_path / "x", {"a": LazyTensor("F32", (2, 3), lambda: torch.zeros(3, 2))})
