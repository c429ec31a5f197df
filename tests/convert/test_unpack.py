"""What the child process makes of files: good ones, damaged ones, and ones that want to run code."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rembert_ray.convert.isolation import unpack_isolated
from rembert_ray.convert.unpack import check_torch, unpack
from rembert_ray.errors import UnusableError


class Evil:
    """Makes a folder when it is unpickled without protection."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
def test_a_hostile_pickle_runs_in_no_process(tmp_path, is_zip):
    file, trace = tmp_path / "pytorch_model.bin", tmp_path / "trace"
    torch.save({"a": torch.ones(2), "b": Evil(trace)}, file, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(UnusableError, match=r"more than tensors \(it refers to posix\.mkdir\)"):
        unpack_isolated([file], tmp_path / "new")
    with pytest.raises(UnusableError, match="more than tensors"):
        unpack([file], tmp_path / "new")
    assert not trace.exists()
    assert not (tmp_path / "new").exists()
    # It is hostile indeed.
    torch.load(file, weights_only=False)
    assert trace.exists()


def test_a_plain_pickle_is_refused_too(tmp_path):
    file, trace = tmp_path / "pytorch_model.bin", tmp_path / "trace"
    file.write_bytes(pickle.dumps(Evil(trace)))
    with pytest.warns(UserWarning, match="protocol"), pytest.raises(UnusableError, match="more than tensors"):
        unpack([file], tmp_path / "new")
    assert not trace.exists()


@pytest.mark.parametrize("version", ["1.13.1", "2.5.1+cu121", "2.9.1", "2.9.1+cpu"])
def test_a_torch_with_known_holes_is_refused(version):
    with pytest.raises(UnusableError, match="CVE-2026-24747"):
        check_torch(version)


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0.0a0+git12"])
def test_later_ones_are_not(version):
    check_torch(version)


@pytest.mark.parametrize("is_zip", [True, False])
def test_names_types_and_values_come_out_of_a_bin_as_they_were(tmp_path, is_zip):
    shared = torch.randn(4, 6)
    tensors = {
        "a.weight": shared,
        "tied": shared,
        "view": shared.T[1:],
        "half": torch.randn(3).half(),
        "brain": torch.randn(2, 2).bfloat16(),
        "counts": torch.arange(5)[None],
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "none": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
    }
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    unpack([tmp_path / "pytorch_model.bin"], tmp_path / "new")
    found = load_file(tmp_path / "new")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"hello" * 50, "half"])
def test_a_damaged_bin_is_named(tmp_path, content):
    file = tmp_path / "pytorch_model.bin"
    if content == "half":
        torch.save({"a": torch.ones(5000)}, file)
        content = file.read_bytes()[:9000]
    file.write_bytes(content)
    with pytest.raises(UnusableError, match=r"pytorch_model\.bin: is (damaged|not a readable)"):
        unpack([file], tmp_path / "new")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"state_dict": {"a": torch.ones(1)}, "epoch": 3}, "has a dict under 'state_dict': a training state"),
        ([torch.ones(1)], "holds a list"),
        ({"a": torch.ones(2, 2).to_sparse()}, "sparse"),
        ({"a": torch.ones(1, dtype=torch.complex64)}, "complex64"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, content, reason):
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnusableError, match=reason):
        unpack([tmp_path / "pytorch_model.bin"], tmp_path / "new")


def test_a_name_in_two_files_is_refused(tmp_path):
    files = [tmp_path / "1.bin", tmp_path / "2.bin"]
    for file in files:
        torch.save({"a": torch.ones(1)}, file)
    with pytest.raises(UnusableError, match=r"2\.bin: a is also in another file"):
        unpack(files, tmp_path / "new")


def test_h5_datasets_keep_path_type_and_values_whatever_their_byte_order(tmp_path):
    values = np.arange(6.0).reshape(2, 3)
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        for dtype in ("<f4", ">f4", "<f8", "<f2"):
            file.create_dataset(f"group/{dtype}/kernel:0", data=values.astype(dtype))
        file.create_dataset("scalar", data=np.float32(2.5))
        file["group/link"] = h5py.SoftLink("/scalar")
    unpack([tmp_path / "tf_model.h5"], tmp_path / "new")
    found = load_file(tmp_path / "new")
    assert {name: str(tensor.dtype) for name, tensor in found.items()} == {
        "group/<f4/kernel:0": "torch.float32",
        "group/>f4/kernel:0": "torch.float32",
        "group/<f8/kernel:0": "torch.float64",
        "group/<f2/kernel:0": "torch.float16",
        "scalar": "torch.float32",
    }
    assert all(torch.equal(found[name].double(), torch.from_numpy(values)) for name in found if "group" in name)


def test_h5_may_not_reach_out_of_its_file(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(16))
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file.create_dataset("a/bias:0", (4,), "<f4", external=[(str(tmp_path / "secret"), 0, 16)])
    with pytest.raises(UnusableError, match="a/bias:0 lies outside of the file"):
        unpack([tmp_path / "tf_model.h5"], tmp_path / "new")


def test_a_damaged_h5_is_named(tmp_path):
    (tmp_path / "tf_model.h5").write_bytes(b"<html>404</html>")
    with pytest.raises(UnusableError, match=r"tf_model\.h5: is not a readable HDF5 file"):
        unpack([tmp_path / "tf_model.h5"], tmp_path / "new")


def test_without_h5py_the_extra_is_named(tmp_path):
    (tmp_path / "tf_model.h5").touch()
    code = (
        "import sys; sys.modules['h5py'] = None; from rembert_ray.convert.unpack import main; "
        f"sys.exit(main([{str(tmp_path / 'new')!r}, {str(tmp_path / 'tf_model.h5')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, "rembert-ray[tf]" in done.stdout) == (2, True), done.stderr
