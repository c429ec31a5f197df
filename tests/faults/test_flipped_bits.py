"""One flipped bit anywhere in a finished output is found; what `verify` says to delete is made again, and nothing else.

python -m tests.faults.test_flipped_bits 1000 [SEED]        by hand: so many bits, on a local disk
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter

from rembert_ray.report.findings import Verification
from rembert_ray.storage.location import Location, locate
from rembert_ray.storage.parquet import read_footer_values
from rembert_ray.verify import verify
from tests.faults.jobs import N_SHARDS, FaultJob, assert_same_rows
from tests.outputs import finish_output, flipped_bits, follow, replace_file

N_FLIPS = 50


def flip_and_look(output: Location, n_flips: int, seed: int) -> Counter[str]:
    """Flip and look; how many bits were found in which kind of file. Every one must be, as the one thing wrong."""
    print(f"{n_flips} bits, seed {seed}, {output}")
    found: Counter[str] = Counter()
    for name, bit in flipped_bits(output, n_flips, seed):
        result = verify(str(output))
        assert [finding.name for finding in result.findings] == [name], f"bit {bit} of {name}: {result.findings}"
        assert result.exit_code == 3
        found["part" if name.startswith("part-") else name.strip("0123456789")] += 1
    assert verify(str(output)).exit_code == 0
    return found


def test_each_of_fifty_bits_is_found(store: Location) -> None:
    output, _ = finish_output(store)
    found = flip_and_look(output, N_FLIPS, random.SystemRandom().randrange(2**32))
    print(found)
    assert found.total() == N_FLIPS
    assert len(found) >= 5


def test_what_verify_says_to_delete_is_made_again_and_nothing_else(job: FaultJob, expected) -> None:
    code, shown = job.run()
    assert code == 0, shown
    output = job.output
    assert verify(str(output)).exit_code == 0, "\n".join(verify(str(output)).lines())
    # Fifty on S3 are in the other test; here each is a look at thirty objects.
    flip_and_look(output, 10 if output.is_s3 else N_FLIPS, random.SystemRandom().randrange(2**32))
    before = attempts_of(job)
    parts = sorted(before)
    whole = job.objects()
    replace_file(output.child(parts[1]), whole[parts[1]][:-1])
    replace_file(output.child(parts[2]), whole[parts[3]])
    replace_file(output.child("_SUCCESS"), b"{}")
    follow(output, [f"{'aws s3 rm' if output.is_s3 else 'rm'} {output}/{parts[7]}"])
    result = verify(str(output))
    shown = show(result)
    assert result.shards_to_make == [1, 2, 7]
    assert "it makes 3 shards: 1 to 2, 7, and nothing else" in shown
    follow(output, result.commands("delete"))
    code, shown = job.run()
    assert code == 0, shown
    assert f"{N_SHARDS - 3} shards are there already" in shown
    after = attempts_of(job)
    assert [parts.index(name) for name in parts if after[name] != before[name]] == [1, 2, 7]
    assert verify(str(output)).exit_code == 0, show(verify(str(output)))
    assert_same_rows(job.rows(), expected)


def attempts_of(job: FaultJob) -> dict[str, str]:
    """Object -> the attempt that made it."""
    return {name: read_footer_values(job.output.child(name))["attempt"] for name in job.parts()}


def show(result: Verification) -> str:
    text = "\n".join(result.lines())
    print(text)
    return text


def main(n_flips: int, output: Location | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        output = output or finish_output(locate(folder))[0]
        started = time.monotonic()
        found = flip_and_look(output, n_flips, random.SystemRandom().randrange(2**32))
        print(f"{found.total()} of {n_flips} found in {time.monotonic() - started:.0f} s: {dict(found)}")


if __name__ == "__main__":
    main(int(sys.argv[1]), locate(sys.argv[2]) if len(sys.argv) > 2 else None)
