"""A shard run through the stages in this process, without Ray."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rembert_ray.engine.documents import WindowOptions
from rembert_ray.models.config import AutoConfig
from rembert_ray.plan import Shard
from rembert_ray.stages.encode import Encode
from rembert_ray.stages.envelope import Envelope, seal, unseal
from rembert_ray.stages.infer import Infer
from rembert_ray.stages.spec import JobSpec
from rembert_ray.stages.write import Write
from rembert_ray.storage.location import locate
from rembert_ray.tasks.base import find_task
from rembert_ray.tokenizers.auto import AutoTokenizer


def make_spec(
    model, output, task="tag", overlap=4, keep=("id",), columns=None, long_documents="window", **parameters
) -> JobSpec:
    kind = find_task(task)
    config = AutoConfig.from_pretrained(str(model))
    made = kind(kind.Parameters.model_validate(parameters))
    made.set_configs([AutoConfig.from_pretrained(part) for _, _, part in made.parts(locate(str(model)))])
    made.form = tuple(columns or kind.input_forms[0])
    made.take_tokenizer(locate(str(model)), AutoTokenizer.from_pretrained(model))
    return JobSpec(
        task=made,
        config=config,
        model=locate(str(model)),
        output=locate(str(output)),
        columns=columns or {name: name for name in kind.input_forms[0]},
        kept=pa.schema([(name, pa.string()) for name in keep]),
        windows=WindowOptions(config.max_tokens, overlap, long_documents),
        fingerprint="abc123",
        plan_id="plan",
        run_id="run",
        precision="float32",
    )


def run_shard(spec: JobSpec, path, n_rows=None, row_start=0, stages=None):
    """(receipt, written table or None)."""
    n_rows = pq.read_metadata(path).num_rows if n_rows is None else n_rows
    shard = Shard(0, str(path), row_start, n_rows, {}, spec.plan_id)
    sealed = seal([Envelope(shard)])
    for stage in stages or (Encode(spec), Infer(spec), Write(spec)):
        sealed = stage(sealed)
    (receipt,) = unseal(sealed)
    if receipt.failure is not None:
        return receipt, None
    return receipt, pq.ParquetFile(spec.output.child(receipt.facts["object"]).path).read()


@pytest.fixture
def spec_for(tmp_path):
    def make(model, **options):
        number = len(list(tmp_path.iterdir()))
        return make_spec(model, tmp_path / f"out{number}", **options)

    return make
