"""`python -m rembert_ray`: the command line, also where the console script is not installed."""

from rembert_ray.cli import app

app()
