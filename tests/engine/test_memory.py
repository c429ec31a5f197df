"""An actor's memory does not grow with the batches that it has seen, each of another size."""

from __future__ import annotations

import subprocess
import sys

import pytest

MIB = 1024

# In a process of its own: libraries read the sizes of their caches once.
PROGRAM = """
import numpy as np, torch
from rembert_ray.engine.packing import WindowTable
from rembert_ray.engine.prepacked import prepack_linears
from rembert_ray.engine.runner import Runner
from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.encoder import Encoder
from rembert_ray.ragged import splits
from rembert_ray.tasks.embed import EmbedHead

sizes = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "num_hidden_layers": 2}
encoder = Encoder(RemBertConfig(vocab_size=99, **sizes)).eval()
prepack_linears(encoder)
runner = Runner(encoder, EmbedHead("mean", None), torch.device("cpu"), 2048)

def run(n_tokens):
    lengths = np.array([256] * (n_tokens // 256) + [n_tokens % 256 + 2])
    ids = (np.arange(lengths.sum()) % 90 + np.repeat(np.arange(len(lengths)), lengths) % 9).astype(np.int32)
    runner.run(WindowTable.from_ranges(ids, splits(lengths), np.zeros_like(lengths), lengths))

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))

for turn, number in enumerate(np.random.default_rng(0).permutation(160).tolist()):
    run(500 + 8 * number)
    if turn == 39:
        before = resident()
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_batches_of_120_new_sizes_leave_nothing_behind():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100 * MIB, "KiB more than after the first 40"
