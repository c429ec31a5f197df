"""`ray job submit --working-dir . -- python jobs/generate.py`. See `rembert_ray.entry` for arguments."""

from rembert_ray.entry import main

main(__file__)
