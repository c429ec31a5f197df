"""Fuzzes one target by hand, guided by coverage, with 3 GiB of memory to grow and 20 s for each try.

python -m tests.faults.fuzz yaml --runs 100000        (needs `pip install atheris`; `--help` names the targets)

A find ends the run with its traceback and leaves the bytes in ./crash-...; `python -m tests.faults.fuzz yaml FILE`
reads them again, which needs no atheris.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
from pathlib import Path

from tests.faults.fuzz.targets import TARGETS, Target, folder

GROWTH_BYTES = 3 * 2**30
SECONDS_PER_TRY = 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz")
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("files", nargs="*", type=Path, help="read these instead of making up bytes")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=0, help="stop after so long (0: never)")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    given = parser.parse_args()
    target = TARGETS[given.target]
    if given.files:
        limit_memory(target)
        for file in given.files:
            # Before it is read: the last line names the file that ended the process.
            print(file, flush=True)
            target(file.read_bytes())
        return
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris (Linux, Python up to 3.13)")
    corpus = folder() / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(seed)
    instrument(atheris)
    limit_memory(target)
    options = [f"-runs={given.runs}", f"-max_total_time={given.seconds}", f"-timeout={SECONDS_PER_TRY}"]
    options += [f"-seed={given.seed}", "-rss_limit_mb=0", f"-max_len={2**20}", str(corpus)]
    atheris.Setup([sys.argv[0], *options], target)
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(folder(), ignore_errors=True)


def instrument(atheris: object) -> None:
    """Follow the product's own functions: what it imports was imported before atheris could look."""
    import types

    for name, module in list(sys.modules.items()):
        if name.startswith("rembert_ray"):
            for key, value in list(vars(module).items()):
                if isinstance(value, types.FunctionType) and value.__module__ == name:
                    setattr(module, key, atheris.instrument_func(value))


def limit_memory(target: Target) -> None:
    """At most `GROWTH_BYTES` more than a valid file takes."""
    for seed in target.seeds():
        target(seed)
    before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (before + GROWTH_BYTES, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
