"""The command line, `rembert-ray`: a file for each verb, a few lines over a function; heavy imports wait."""

from __future__ import annotations

import typer

from rembert_ray.cli import (
    compare,
    convert,
    evaluate,
    gc,
    init,
    inspect,
    plan,
    report,
    retry,
    run,
    sample,
    schema,
    status,
    tasks,
    validate,
    verify,
    version,
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Batch inference with multilingual encoders on Ray.",
)

# In the order of a job's life, which `--help` keeps.
for verb in (
    init.init,
    validate.validate,
    inspect.inspect,
    plan.plan,
    run.run,
    status.status,
    sample.sample,
    report.report,
    compare.compare,
    verify.verify,
    retry.retry,
    gc.gc,
    evaluate.evaluate,
    tasks.tasks,
    schema.schema,
    convert.convert,
    version.version,
):
    app.command()(verb)
