"""Loading a full-size RemBERT: seconds and peak memory of a fresh process, against the size of the weights.

    python -m benchmarks.load                 # 576 M random weights stored as float32, loaded as three types
    python -m benchmarks.load --stored bfloat16

The weights are written to a temporary folder (2.2 GiB as float32). The peak is the kernel's high-water mark of the
process (VmHWM) less what it held before the load; pages of mapped files count. Seconds end when every weight has been
read once.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.table import describe_machine, print_table
from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.weight_map import BASE, model_weights

STORED = {"float32": ("F32", 4), "bfloat16": ("BF16", 2)}
LOADED = ("float32", "bfloat16", "float16")
LOADERS = {
    "rembert-ray": "from rembert_ray import RemBertModel as Model",
    "transformers": "from transformers import RemBertModel as Model",
}
CHILD = """
import json, sys, time
import torch
{loader}
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
before, started = status("VmRSS"), time.perf_counter()
model = Model.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
for parameter in model.parameters():
    parameter.max()  # a mapped file is read only now
seconds = time.perf_counter() - started
weights = sum(parameter.nbytes for parameter in model.parameters())
print(json.dumps({{"seconds": seconds, "weights_bytes": weights, "peak_bytes": status("VmHWM") - before}}))
"""


def write_random_checkpoint(folder: Path, stored: str, config: RemBertConfig) -> None:
    """`config.json` and `model.safetensors` of a RemBERT with a pooler; small random weights."""
    config.save_pretrained(str(folder))
    kind, n_bytes = STORED[stored]
    header, end = {}, 0
    for weight in model_weights(config, BASE):
        for source in weight.sources:
            size = n_bytes * int(np.prod(weight.source_shape))
            header[source] = {"dtype": kind, "shape": weight.source_shape, "data_offsets": [end, end + size]}
            end += size
    text = json.dumps(header).encode()
    # The high bytes 0x3c.. are numbers around 0.01 in both types.
    block = np.random.default_rng(0).integers(0x3C00, 0x3D00, 2**22).astype("<u2")
    if stored == "float32":
        block = block.astype("<u4") << 16
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for _ in range(-(-end // block.nbytes) - 1):
            stream.write(block.tobytes())
        stream.write(block.tobytes()[: end % block.nbytes or None])


def measure(folder: Path, loader: str, loaded: str) -> dict[str, float]:
    """Seconds, bytes of the weights and peak of a fresh process that loads the folder."""
    code = CHILD.format(loader=LOADERS[loader])
    command = [sys.executable, "-c", code, str(folder), loaded]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stored", choices=STORED, default="float32", help="type of the stored weights")
    parser.add_argument("--loaders", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--smoke", action="store_true", help="one layer and few pieces, to see that it runs")
    arguments = parser.parse_args()
    print(describe_machine() + "\n", flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="rembert-ray-load-") as name:
        config = RemBertConfig(vocab_size=1000, num_hidden_layers=1) if arguments.smoke else RemBertConfig()
        write_random_checkpoint(Path(name), arguments.stored, config)
        for loader in arguments.loaders:
            for loaded in LOADED:
                found = measure(Path(name), loader, loaded)
                weights, peak = found["weights_bytes"], found["peak_bytes"]
                load = f"{loader}, {arguments.stored} -> {loaded}"
                rows.append([load, f"{found['seconds']:.1f}", f"{weights / 2**30:.2f}", f"{peak / weights:.2f} x"])
    print_table(["load", "s", "weights, GiB", "peak over the weights"], rows)


if __name__ == "__main__":
    main()
