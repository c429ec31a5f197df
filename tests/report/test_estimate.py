"""Samples, intervals and speeds of `rembert-ray plan`, against whole corpora and against chance."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from typer.testing import CliRunner

from rembert_ray.check import check_job
from rembert_ray.cli import app
from rembert_ray.errors import UnusableError
from rembert_ray.job_spec import job_spec
from rembert_ray.manifest import load_manifest
from rembert_ray.plan import freeze_plan
from rembert_ray.report import status
from rembert_ray.report.estimate import Hardware, estimate_job, estimate_total, histogram
from rembert_ray.report.plan_view import bar, describe_estimate, draw_histogram
from rembert_ray.report.speed import find_speed
from rembert_ray.report.token_sample import TokenSample, choose_places, spread_order, take_sample
from rembert_ray.stages.encode import Encode
from rembert_ray.stages.envelope import Envelope
from rembert_ray.stages.infer import Infer
from rembert_ray.stages.write import Write
from tests.conftest import write_corpus, write_manifest
from tests.outputs import plan_of
from tests.stages.conftest import make_spec

N_FILES, ROWS = 6, 700


@pytest.fixture
def manifest(tmp_path, short_model_folder):
    generator = random.Random(3)
    for number in range(N_FILES):
        texts = [f"light {row} " * generator.choice([1, 2, 3, 20]) for row in range(ROWS)]
        write_corpus(tmp_path / "corpus" / f"{number}.parquet", [*texts[:-1], None])
    return write_manifest(
        tmp_path,
        f"""
task: tag
model: {short_model_folder}
input: {{path: corpus, keep: [id]}}
output: {{path: out}}
head: {{aggregation: first}}
text: {{overlap: 4}}
sharding: {{rows: 150}}
resources: {{actors: 3}}
""",
    )


def checked_job(manifest, *overrides):
    return check_job(load_manifest(manifest, overrides), for_writing=False)


def all_rows(checked):
    """A census: every row, with a place for each 32 rows."""
    shards = np.arange(checked.plan.n_shards)
    return take_sample(job_spec(checked, checked.plan, "test"), checked.plan, shards, n_places=10_000, budget_s=600)


def test_a_sample_is_spread_the_same_each_time_and_its_estimate_holds_the_truth(manifest):
    checked = checked_job(manifest)
    truth = all_rows(checked)
    assert truth.is_census
    assert sum(truth.n_rows) == N_FILES * ROWS
    assert sum(truth.errors.values()) == N_FILES
    first, second = (estimate_job(checked, Hardware(1)) for _ in range(2))
    assert first.tokens == second.tokens
    assert first.sample is not None
    assert not first.sample.is_census
    assert len(first.sample.tokens) == 64
    assert first.tokens is not None
    assert first.tokens.low < truth.n_tokens < first.tokens.high
    assert abs(first.tokens.expected / truth.n_tokens - 1) < 0.1


def test_a_corpus_of_few_rows_is_counted_exactly(manifest, tmp_path):
    write_corpus(tmp_path / "one.parquet", ["a light on the hill"] * 40)
    estimate = estimate_job(checked_job(manifest, f"input.path={tmp_path}/one.parquet"), Hardware(1))
    assert estimate.tokens is not None
    assert estimate.tokens.low == estimate.tokens.expected == estimate.tokens.high
    assert "counted, not estimated" in "\n".join(describe_estimate(estimate))
    assert estimate.to_dict()["sample"]["share_of_tokens_repeated"] > 0.9, "equal texts are computed once"


def test_a_sample_is_read_from_any_store(store, model_folder):
    plan = plan_of(store)
    sample = take_sample(make_spec(model_folder, store.child("out")), plan, np.arange(plan.n_shards))
    assert sample.is_census
    assert sum(sample.n_rows) == plan.n_rows
    assert not sample.errors
    assert not sample.unread


def test_when_the_time_is_over_what_was_read_is_spread(manifest):
    checked = checked_job(manifest)
    spec, shards = job_spec(checked, checked.plan, "test"), np.arange(checked.plan.n_shards)
    sample = take_sample(spec, checked.plan, shards, budget_s=0)
    assert len(sample.tokens) == 1
    assert not sample.is_census
    interval = estimate_total(sample, sample.plan_bytes, 1e6)
    assert interval.high == float("inf")


def test_tokens_are_those_that_a_run_counts(manifest, tmp_path):
    checked = checked_job(manifest, f"input.path={tmp_path}/corpus/0.parquet", f"output.path={tmp_path}/counted")
    spec = job_spec(checked, freeze_plan(checked.output, checked.plan), "run")
    encode, infer, write = Encode(spec), Infer(spec), Write(spec)
    receipts = [write.write(infer.infer(encode.encode(Envelope(shard)))) for shard in checked.plan.iter_shards()]
    estimate = estimate_job(checked_job(manifest, f"input.path={tmp_path}/corpus/0.parquet"), Hardware(1))
    assert estimate.tokens is not None
    assert estimate.tokens.expected == sum(receipt.facts["n_tokens"] for receipt in receipts)
    rest = estimate_job(checked, Hardware(1))
    assert (rest.n_shards, rest.n_rows) == (0, 0), "what is there is no longer estimated"
    assert "the rest: nothing" in "\n".join(describe_estimate(rest))
    n_tokens, seconds = (sum(receipt.facts[name] for receipt in receipts) for name in ("n_tokens", "infer_s"))
    with pytest.raises(UnusableError, match="no run of it has measured"):
        find_speed(checked, None, str(checked.output))
    facts = {"tokens_this_run": n_tokens, "worker_seconds": {"infer": seconds}, "elapsed_s": 4 * seconds}
    status.write(checked.output, {"run": "run"} | facts)
    speed = find_speed(checked, None, str(checked.output))
    assert speed is not None
    assert speed.tokens_per_s.expected == pytest.approx(n_tokens / seconds)
    assert speed.tokens_per_s.low < speed.tokens_per_s.expected < speed.tokens_per_s.high
    assert speed.busy == pytest.approx(0.25)
    other = find_speed(checked_job(manifest, "head.aggregation=none"), None, str(checked.output))
    assert other is not None
    assert other.notes == ("head.aggregation: 'first' -> 'none'",)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(5)
    sizes = generator.lognormal(5, 0.7, 20_000)
    tokens = sizes * generator.normal(0.3, 0.05, len(sizes)) + generator.normal(5, 1, len(sizes))
    hits = 0
    for _ in range(1000):
        chosen = generator.choice(len(sizes), 64)
        sample = TokenSample(64, False, tokens=tokens[chosen].tolist())
        interval = estimate_total(sample, sizes[chosen].tolist(), float(sizes.sum()))
        hits += interval.low <= tokens.sum() <= interval.high
    assert 920 <= hits <= 980


def test_one_place_tells_no_upper_end():
    interval = estimate_total(TokenSample(64, False, tokens=[10]), [50.0], 500.0)
    assert (interval.low, interval.expected) == (10, 100)
    assert interval.to_dict()["high"] is None


def test_places_lie_evenly_inside_of_shards(manifest):
    plan = checked_job(manifest).plan
    places = [place for place, _ in choose_places(plan, np.arange(plan.n_shards), 64)]
    per_file = [sum(place.url.endswith(f"/{number}.parquet") for place in places) for number in range(N_FILES)]
    assert max(per_file) - min(per_file) <= 1
    for place in places:
        shard = plan.shard(place.index)
        assert shard.row_start <= place.row_start
        assert place.row_start + place.n_rows <= shard.row_start + shard.n_rows
        assert place.n_rows == 32
    shares = sum(share for _, share in choose_places(plan, np.arange(plan.n_shards), 10_000))
    assert shares == pytest.approx(plan.shards["bytes"].to_numpy().sum())


@pytest.mark.parametrize("n", [1, 2, 3, 64, 100])
def test_any_beginning_of_the_order_is_spread(n):
    order = spread_order(n)
    assert sorted(order) == list(range(n))
    half = sorted(order[: (n + 1) // 2])
    assert max(np.diff(half), default=0) <= 4


def test_a_damaged_place_is_told_and_the_others_are_read(manifest, tmp_path):
    checked = checked_job(manifest)
    (tmp_path / "corpus" / "2.parquet").write_bytes(b"gone")
    estimate = estimate_job(checked, Hardware(1))
    assert estimate.sample is not None
    assert estimate.tokens is not None
    assert len(estimate.sample.unread) + len(estimate.sample.tokens) == 64
    assert "2.parquet" in next(line for line in describe_estimate(estimate) if line.startswith("unread"))


def test_bins_double_and_hold_every_row():
    assert histogram([0, 1, 2, 3, 4, 7, 8]) == [(0, 0, 1), (1, 1, 1), (2, 3, 2), (4, 7, 2), (8, 15, 1)]
    assert histogram([]) == []
    assert next(iter(draw_histogram([5] * 9))).endswith("9 100.0%")
    assert all(len(line) <= 80 for line in draw_histogram([1, 5, 10**9]))
    assert (bar(0), bar(1, 4), bar(1e-9)) == ("", "████", "▏")


def test_the_verb_tells_time_and_cost_and_writes_nothing(manifest, tmp_path):
    run = CliRunner()
    shown = run.invoke(app, ["plan", manifest, "--tokens-per-s", "100", "--price-per-hour", "3600"])
    assert shown.exit_code == 0, shown.output
    assert "on 3 actors" in shown.output
    done = run.invoke(app, ["plan", manifest, "--tokens-per-s", "100", "--price-per-hour", "3600", "--json"])
    values = json.loads(done.output)
    assert values["time_s"]["expected"] == pytest.approx(values["tokens"]["expected"] / 300)
    assert values["cost"]["high"] == pytest.approx(values["time_s"]["high"] * 3)
    without = run.invoke(app, ["plan", manifest])
    assert "give --tokens-per-s" in without.output
    assert "lengths" not in run.invoke(app, ["plan", manifest, "--no-sample"]).output
    both = run.invoke(app, ["plan", manifest, "--tokens-per-s", "1", "--like", str(tmp_path)])
    assert both.exit_code == 2
    assert not (tmp_path / "out").exists()
