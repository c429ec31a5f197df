"""The record and the page of an output: counts that are right, labels that are counted, texts that are escaped."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from typer.testing import CliRunner

from rembert_ray.check import CheckedJob
from rembert_ray.cli import app
from rembert_ray.errors import UnusableError
from rembert_ray.manifest import Manifest
from rembert_ray.report import observation, status
from rembert_ray.report.closing import Closing, report_on
from rembert_ray.report.page import page_place
from rembert_ray.report.profile import Labels, Numbers
from rembert_ray.report.run_record import RunRecord, read_record, record_place
from rembert_ray.report.run_report import Against, record_now
from rembert_ray.report.sample_view import task_of
from rembert_ray.report.scripts import script_of
from rembert_ray.storage.commit import part_name
from rembert_ray.storage.location import locate, read_bytes
from rembert_ray.storage.seal import broken_seal
from tests.report.finished import finish, labels, vectors

HOSTILE = "<script>alert('x')</script>$x^2$ & \"'\x1b[31m\u202e"


class Attributes(HTMLParser):
    """Every (tag, attribute, value) of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, name, value) for name, value in attrs] or [(tag, "", None)]


def page_of(output: str) -> str:
    return read_bytes(page_place(locate(output))).decode()


def test_the_record_counts_what_is_there(tmp_path: Path) -> None:
    output, plan = finish(tmp_path, "classify", labels({"en": 0.7, "de": 0.3}))
    record = report_on(str(output))
    counts = record.counts
    assert (counts.shards_planned, counts.shards_committed, counts.rows_planned, counts.rows_committed) == (
        6,
        6,
        600,
        600,
    )
    assert (counts.rows_with_error, counts.parts_looked_at, counts.is_estimate) == (12, 6, False)
    assert record.errors == {"text is null": 12}
    assert record.sample_rows == 600
    label, score = record.profile["label"], record.profile["score"]
    assert isinstance(label, Labels)
    assert isinstance(score, Numbers)
    assert sum(label.counts.values()) == label.n == 588
    assert 0.6 < label.counts["en"] / label.n < 0.8
    assert 0.5 <= score.quantiles[0] <= score.quantiles[-1] <= 1
    assert record.profile["script"] == Labels(n=300, counts={"Latin": 300}), "50 rows of each shard"
    assert set(record.profile["kept language"].counts) == {"de", "fr", "ja"}  # type: ignore[union-attr]
    assert record.speed is not None
    # Six shards, begun ten seconds apart, of three seconds of inference and ten in all: 18 of the 60 seconds.
    assert record.speed.seconds == 60
    assert record.speed.stages == {"read": 6, "encode": 12, "infer": 18, "decode": 24}
    assert record.speed.busy == pytest.approx(18 / 60, abs=1e-3)
    made = sum((interval.end_s - interval.start_s) * interval.tokens_per_s for interval in record.speed.intervals)
    assert made == pytest.approx(counts.tokens, rel=1e-3)
    assert record.padding is not None
    assert record.padding.tokens_per_token > 1.5
    assert read_record(output, "x") == record
    assert record.fingerprint == plan.fingerprint.digest


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello, мир", "Latin"),
        ("Привет, world of 2026", "Latin"),
        ("Привет мир!", "Cyrillic"),
        ("これはペンです。", "Kana"),
        ("中文文本", "Cjk"),
        ("हिन्दी में", "Devanagari"),
        ("ＡＢＣ", "Latin"),
        ("123 !? \ud800", "none"),
        ("", "none"),
    ],
)
def test_the_script_of_a_text_is_that_of_most_of_its_letters(text: str, script: str) -> None:
    assert script_of(text) == script


def test_a_large_output_is_sampled_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, plan = finish(tmp_path, "classify", labels({"en": 1.0}), n_shards=9)
    monkeypatch.setattr(observation, "MOST_FOOTERS", 3)
    monkeypatch.setattr(observation, "MOST_SAMPLED_PARTS", 2)
    monkeypatch.setattr(observation, "MOST_SAMPLED_ROWS", 50)
    seen = observation.observe(output, plan)
    assert [part.shard for part in seen.parts] == [0, 4, 8]
    assert (seen.rows.num_rows, seen.n_sampled_parts) == (50, 2)
    assert seen.rows.equals(observation.observe(output, plan).rows), "the same rows at every look"
    record = report_on(str(output))
    assert record.counts.is_estimate
    assert record.counts.rows_with_error == 18
    assert "estimated from 3 of 9 objects" in page_of(str(output))


def test_damaged_and_missing_parts_are_counted_and_the_page_is_made(tmp_path: Path) -> None:
    output, plan = finish(tmp_path, "classify", labels({"en": 1.0}))
    names = [part_name(shard, plan.fingerprint.digest) for shard in (1, 2)]
    Path(output.child(names[0]).path).unlink()
    Path(output.child(names[1]).path).write_bytes(b"PAR1 not a footer PAR1")
    status.quarantine(output, "shard-00000001", {"shard": 1, "source": "s", "reason": HOSTILE})
    record = report_on(str(output))
    assert (record.counts.shards_committed, record.counts.parts_unreadable) == (5, 1)
    assert record.outcome.sentence.startswith("500 of 600 rows (83.3%) are there")
    assert record.n_failures == 1
    page = page_of(str(output))
    assert "1 objects cannot be read" in page
    assert "<script" not in page


def test_an_output_without_parts_has_a_page(tmp_path: Path) -> None:
    output, plan = finish(tmp_path, "classify", labels({"en": 1.0}))
    for shard in range(plan.n_shards):
        Path(output.child(part_name(shard, plan.fingerprint.digest)).path).unlink()
    assert report_on(str(output)).outcome.sentence.startswith("0 of 600 rows")


def test_labels_rows_and_reasons_are_escaped_and_nothing_is_loaded(tmp_path: Path) -> None:
    output, _ = finish(tmp_path, "classify", labels({HOSTILE: 0.5, "<img src=http://evil/x>": 0.5}))
    report_on(str(output))
    page = page_of(str(output))
    assert "<script" not in page
    assert "<img" not in page
    assert html.escape("<script>", quote=False) in page
    assert "\x1b" not in page
    seen = Attributes()
    seen.feed(page)
    assert not {tag for tag, _, _ in seen.found} & {"script", "img", "iframe", "object", "link", "base", "form"}
    assert {name for _, name, value in seen.found if "//" in (value or "")} <= {"xmlns", "xmlns:xlink"}
    assert not {name for _, name, _ in seen.found if name.startswith("on")}
    ids = [value for _, name, value in seen.found if name == "id"]
    assert len(ids) == len(set(ids))
    assert broken_seal(read_bytes(page_place(output))) is None


def test_vectors_have_a_map(tmp_path: Path) -> None:
    output, _ = finish(tmp_path, "embed", vectors)
    record = report_on(str(output))
    norm = record.profile["norm"]
    assert isinstance(norm, Numbers)
    assert norm.quantiles[0] == norm.quantiles[-1] == 1.0
    page = page_of(str(output))
    assert "588 vectors on their first two principal components" in page
    assert all(f">{name}</text>" in page for name in ("de", "fr", "ja"))


def test_drift_against_an_earlier_output_is_flagged(tmp_path: Path) -> None:
    old, _ = finish(tmp_path / "old", "classify", labels({"en": 0.7, "de": 0.3}))
    new, _ = finish(tmp_path / "new", "classify", labels({"en": 0.2, "de": 0.8}))
    runner = CliRunner()
    refused = runner.invoke(app, ["report", str(new), "--against", str(old)])
    assert refused.exit_code == 2
    assert "has no record of a run" in refused.output
    report_on(str(old))
    shown = runner.invoke(app, ["report", str(new), "--against", str(old)])
    assert shown.exit_code == 0
    assert f"drift against {old}: label moved most" in shown.output
    record = RunRecord.model_validate_json(runner.invoke(app, ["report", str(new), "--json"]).stdout)
    assert record.drift is not None, "the next report compares with the same output"
    assert (record.drift.level, record.drift.features[0].feature) == ("fail", "label")
    page = page_of(str(new))
    assert re.search(r'Drift <b class="fail">large</b>', page)
    assert "var(--before)" in page


def test_a_record_of_another_version_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    output, _ = finish(tmp_path, "classify", labels({"en": 1.0}))
    report_on(str(output))
    place = Path(record_place(output).path)
    values = json.loads(place.read_bytes())
    place.write_text(json.dumps(values | {"schema_version": 99}))
    with pytest.raises(UnusableError, match="has version 99, this one reads 1"):
        read_record(output, "drift.against")
    place.write_text("[")
    with pytest.raises(UnusableError, match="cannot be read"):
        read_record(output, "drift.against")
    made = report_on(str(output))
    assert read_record(output, "drift.against") == made, "the advice works"


@pytest.mark.parametrize(
    ("before", "is_withheld"), [({"en": 0.7, "de": 0.3}, False), ({"en": 0.1, "de": 0.9}, True), (None, True)]
)
def test_a_gate_is_closed_by_drift_and_by_nothing_to_compare_with(
    tmp_path: Path, before: dict[str, float] | None, is_withheld: bool
) -> None:
    output, plan = finish(tmp_path / "new", "classify", labels({"en": 0.7, "de": 0.3}))
    against = None
    if before is not None:
        old, _ = finish(tmp_path / "old", "classify", labels(before))
        against = Against(str(old), report_on(str(old)).profile)
    record, seen = record_now(output, plan, task_of(plan), against)
    values = {"task": "classify", "model": "m", "input": {"path": "i"}, "output": {"path": "o"}}
    manifest = Manifest.model_validate(values | {"drift": {"against": "x", "gate": True}})
    checked = cast(CheckedJob, SimpleNamespace(manifest=manifest, output=output))
    closing = Closing(checked, plan, record, seen, against)
    assert closing.is_withheld is is_withheld
    assert any("nothing to compare with" in line for line in closing.lines()) is (before is None)
