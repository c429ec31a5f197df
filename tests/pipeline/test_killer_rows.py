"""Rows that kill the process of an encode or infer actor: they become errors, everything else is right."""

from __future__ import annotations

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from rembert_ray.cluster import Pools
from rembert_ray.pipeline import Receipts, build
from rembert_ray.plan import Shard
from rembert_ray.tokenizers.rembert import RemBertTokenizer
from tests.conftest import write_corpus
from tests.pipeline.killer import KILLS_ENCODE, KILLS_INFER, KillerTag
from tests.stages.conftest import make_spec, run_shard

pytestmark = pytest.mark.usefixtures("ray_session")
N_ROWS = 16


def test_rows_that_kill_end_as_errors_and_the_other_shards_are_whole(model_folder, tmp_path):
    tokenizer = RemBertTokenizer.from_pretrained(model_folder)
    killing_token = int(tokenizer.encode_batch([KILLS_INFER], add_special_tokens=False).ids[-1])
    paths = []
    for number in range(4):
        texts = [f"row {row} of shard {number} up above" for row in range(N_ROWS)]
        if number == 1:
            texts[5] = f"a {KILLS_ENCODE} in the sky"
        if number == 2:
            texts[9] = f"a {KILLS_INFER}"
        tokens = tokenizer.encode_batch([text for text in texts if KILLS_INFER not in text]).ids
        assert killing_token not in tokens
        paths.append(write_corpus(tmp_path / f"{number}.parquet", texts))
    spec = make_spec(model_folder, tmp_path / "out", aggregation="first", ignore_labels=[])
    task = KillerTag(spec.task.parameters)
    task.killing_token = killing_token
    shards = [Shard(number, str(path), 0, N_ROWS, {}, spec.plan_id) for number, path in enumerate(paths)]
    dataset = build(shards, replace(spec, task=task), Pools(1, 0.75, 0, 1, 1), attempts=3)
    receipts = {receipt.shard.index: receipt for receipt in Receipts(dataset) if receipt is not None}
    assert sorted(receipts) == [0, 1, 2, 3]
    assert [receipts[number].failure for number in range(4)] == [None] * 4
    for number, path in enumerate(paths):
        rows = pq.ParquetFile(spec.output.child(receipts[number].facts["object"]).path).read()
        plain = make_spec(model_folder, tmp_path / f"plain{number}", aggregation="first", ignore_labels=[])
        expected = run_shard(plain, path)[1]
        killed = {1: 5, 2: 9}.get(number)
        for row, (found, right) in enumerate(zip(rows.to_pylist(), expected.to_pylist(), strict=True)):
            if row == killed:
                stage = "encode (SIGKILL)" if number == 1 else "infer (SIGSEGV)"
                assert found["error"] == f"this row ended its process in {stage}"
                assert found["entities"] is None
            else:
                assert found["error"] is None
                assert [e["entity_group"] for e in found["entities"]] == [e["entity_group"] for e in right["entities"]]
