"""What a file in `jobs/` runs: a manifest of its own, or the one that is named.

python jobs/tag.py                                          the manifest manifests/tag.yaml, on the embedded demo
python jobs/tag.py --manifest s3://bucket/tag.yaml          any manifest of the same task
python jobs/tag.py --set output.path=/data/out --set sharding.rows=5000
python jobs/tag.py --dry-run                                check everything, try a few rows, write nothing
python jobs/tag.py --allow-root /data                       nothing outside of /data is read or written
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rembert_ray.errors import RembertRayError
from rembert_ray.job import run
from rembert_ray.report.fault_frames import print_error
from rembert_ray.report.narration import STYLES, Narrator
from rembert_ray.trial import dry_run


def main(job_file: str) -> None:
    """Run the job of `jobs/<task>.py` with the process's arguments, and exit with its code."""
    job = Path(job_file).resolve()
    own = job.parent.parent / "manifests" / f"{job.stem}.yaml"
    parser = argparse.ArgumentParser(description=f"Runs the task {job.stem}.")
    parser.add_argument("--manifest", default=str(own), help="path or URL of a manifest (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="override a key of the manifest")
    parser.add_argument(
        "--allow-root", action="append", default=[], metavar="ROOT", help="see `rembert-ray run --help`"
    )
    parser.add_argument("--limit", type=int, metavar="ROWS", help="see `rembert-ray run --help`")
    parser.add_argument("--dry-run", action="store_true", help="see `rembert-ray run --help`")
    parser.add_argument("--log", choices=STYLES, help="see `rembert-ray run --help`")
    parser.add_argument("--log-rows", action="store_true", help="see `rembert-ray run --help`")
    arguments = parser.parse_args()
    narrator = Narrator.for_stream(arguments.log, shows_rows=arguments.log_rows)
    overrides, roots = (f"task={job.stem}", *arguments.set), arguments.allow_root
    try:
        if arguments.dry_run:
            sys.exit(dry_run(arguments.manifest, overrides, roots))
        sys.exit(run(arguments.manifest, overrides, narrator, roots, arguments.limit))
    except RembertRayError as error:
        if narrator.style == "words":
            print_error(error, [arguments.manifest])
        else:
            narrator.tell_error(error)
        sys.exit(error.exit_code)
