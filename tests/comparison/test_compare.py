"""Two outputs held against each other: by place and by key, every kind of change counted, on a local disk and on S3."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from rembert_ray.cli import app
from rembert_ray.comparison import changes, matching
from rembert_ray.comparison.changes import cosines_of
from rembert_ray.comparison.compare import compare
from rembert_ray.comparison.view import draw_changes, plain_changes
from rembert_ray.errors import UnusableError
from tests.written_jobs import entities, label, write_corpus, write_job

ERROR = {"error": "text is null"}
N_ROWS = 7


def corpus(folder, *names, n_rows=N_ROWS, prefix=""):
    write_corpus(
        folder,
        {
            f"{name}.parquet": [{"id": f"{prefix}{name}{row}", "text": f"{name} {row}"} for row in range(n_rows)]
            for name in names
        },
    )
    return folder


def classified(folder, name, labels, *, source=None, keep=("id",), **options):
    """An output `name` of these labels, file by file; "!" is an error."""
    rows = {f"{file}.parquet": [dict(ERROR) if x == "!" else label(x) for x in found] for file, found in labels.items()}
    write_job(folder.child(name), source or folder.child("corpus"), "classify", rows, keep=keep, **options)
    return str(folder.child(name))


@pytest.fixture
def folder(tmp_path):
    from rembert_ray.storage.location import locate

    return locate(str(tmp_path))


def counts(found):
    head = found.heads[0]
    return {
        "both": found.matched.n_both,
        "only": found.matched.n_only,
        "errors": (found.errors.n_new, found.errors.n_gone, found.errors.n_both),
        "compared": head.n_compared,
        "changed": head.n_changed,
    }


def both(found):
    return [(change.old.values["id"], change.new.values["id"]) for change in found.changes[found.heads[0].name]]


def test_by_place_every_change_is_counted_whatever_the_shards(store):
    corpus(store.child("corpus"), "a", "b")
    old = classified(store, "old", {"a": "xxxyy!!", "b": "zzzzzzz"}, fingerprint={"precision": "float32"})
    options = {"rows_per_shard": 2, "fingerprint": {"precision": "bfloat16"}}
    new = classified(store, "new", {"a": "xyyyy!x", "b": "zzz!zzx"}, **options)
    found = compare(old, new)
    print("\n".join(found.lines()))
    # 14 rows: one has an error in both, one is good again, one has an error now.
    assert counts(found) == {"both": 14, "only": [0, 0], "errors": (1, 1, 1), "compared": 11, "changed": 3}
    assert found.heads[0].transitions == [("x", "y", 2)]
    assert both(found) == [("a1", "a1"), ("a2", "a2"), ("b6", "b6")]
    assert found.heads[0].score_difference == 0
    assert [(item.key, item.old, item.new) for item in found.differences] == [("precision", "float32", "bfloat16")]
    assert "changed     3 of 11 rows (27.27%)" in list(found.lines())


def test_by_key_gives_the_same_as_by_place(store):
    corpus(store.child("corpus"), "a", "b")
    old = classified(store, "old", {"a": "xxxyy!!", "b": "zzzzzzz"})
    new = classified(store, "new", {"a": "xyyyy!x", "b": "zzz!zzx"}, rows_per_shard=2, fingerprint={"x": 1})
    by_place, by_key = compare(old, new), compare(old, new, "id")
    assert counts(by_place) == counts(by_key)
    assert (by_place.heads[0].transitions, both(by_place)) == (by_key.heads[0].transitions, both(by_key))
    assert (by_place.matched.key, by_key.matched.key) == (None, "id")


def test_files_and_shards_that_are_in_one_output_only_are_said(folder):
    corpus(folder.child("old_corpus"), "a", "b")
    corpus(folder.child("corpus"), "a", "b", "c")
    old = classified(folder, "old", {"a": "x" * 7, "b": "x" * 7}, source=folder.child("old_corpus"), without=[1])
    new = classified(folder, "new", {"a": "x" * 7, "b": "x" * 7, "c": "x" * 7})
    found = compare(old, new)
    assert counts(found) == {"both": 12, "only": [0, 9], "errors": (0, 0, 0), "compared": 12, "changed": 0}
    assert found.matched.notes == [
        "2 input files were written anew, at the same size: are these the same rows? else see --key"
    ]
    assert "1 of 6 shards are not there" in next(iter(found.lines()))


def test_another_night_with_other_files_is_matched_by_a_usual_key(folder):
    corpus(folder.child("monday"), "a", n_rows=5)
    corpus(folder.child("tuesday"), "a", n_rows=8)
    old = classified(folder, "old", {"a": "xxxxx"}, source=folder.child("monday"))
    new = classified(folder, "new", {"a": "xxyxxzzz"}, source=folder.child("tuesday"))
    found = compare(old, new)
    assert found.matched.notes == ["1 input files have other sizes or rows: rows are matched by 'id'"]
    assert counts(found) == {"both": 5, "only": [0, 3], "errors": (0, 0, 0), "compared": 5, "changed": 1}
    assert both(found) == [("a2", "a2")]


def test_without_a_common_place_a_key_is_needed(folder):
    corpus(folder.child("monday"), "a")
    corpus(folder.child("tuesday"), "b")
    old = classified(folder, "old", {"a": "x" * 7}, source=folder.child("monday"), keep=("text",))
    new = classified(folder, "new", {"b": "x" * 7}, source=folder.child("tuesday"), keep=("id", "text"))
    with pytest.raises(UnusableError, match=r"no input file is in both.*name a column that both jobs kept: text"):
        compare(old, new)
    assert compare(old, new, "text").matched.n_only == [7, 7]
    with pytest.raises(UnusableError, match="kept no such column"):
        compare(old, new, "id")


def test_keys_that_are_there_twice_or_null_match_nothing(folder):
    rows = [{"id": key, "text": "t"} for key in ("a", "b", "b", None, "c")]
    write_corpus(folder.child("corpus"), {"a.parquet": rows})
    old = classified(folder, "old", {"a": "xxxxx"})
    new = classified(folder, "new", {"a": "xyyyy"}, fingerprint={"x": 1})
    found = compare(old, new, "id")
    assert counts(found) == {"both": 2, "only": [0, 0], "errors": (0, 0, 0), "compared": 2, "changed": 1}
    assert (found.matched.n_duplicate, found.matched.n_without_key) == ([2, 2], [1, 1])
    assert "not matched 2 rows of old and 2 of new share their key with others" in list(found.lines())


def tagged(folder, name, *, is_new, order=1, **options):
    text = "Ann met Bob in Rome"
    long = [(place, place + 1, "CHARACTER") for place in range(12)]
    rows = [
        entities(text, *(long if row % 2 else []), (12, 13, "NEW" if is_new and row % 3 == 0 else "OLD"))
        for row in range(12)
    ][::order]
    ids = [{"id": row, "text": text} for row in range(12)][::order]
    write_corpus(folder.child(f"{name}_corpus"), {f"{name}.parquet": ids})
    write_job(
        folder.child(name), folder.child(f"{name}_corpus"), "tag", {f"{name}.parquet": rows}, keep=["id"], **options
    )
    return str(folder.child(name))


def test_long_outcomes_are_compared_by_digest_and_their_steps_counted_all_the_same(folder, monkeypatch):
    old, new = tagged(folder, "old", is_new=False), tagged(folder, "new", is_new=True, order=-1, rows_per_shard=5)
    found = compare(old, new)
    assert found.matched.key == "id"
    assert (found.heads[0].n_compared, found.heads[0].n_changed) == (12, 4)
    # Rows 0 and 6 have a short outcome, 3 and 9 a long one.
    assert found.heads[0].transitions == [("OLD", "NEW", 4)]
    assert [line for line in plain_changes(found) if "OLD" in line or "NEW" in line] == [
        f"  {word:<9} i/{what}" for _ in range(4) for word, what in (("old", "OLD"), ("new", "NEW"))
    ]
    assert any("NEW" in line.plain for line in draw_changes(found))
    monkeypatch.setattr(matching, "MOST_PAIRS_OF_PARTS", 1)
    assert compare(old, new).matched.n_read_again == 1


def test_a_row_with_a_long_and_a_short_outcome_is_counted_once_for_each_head(folder):
    text = "Ann met Bob in Rome"
    long = entities(text, *((place, place + 1, "CHARACTER") for place in range(12)))
    short = entities(text, (0, 3, "PER"))
    write_corpus(folder.child("corpus"), {"a.parquet": [{"id": row, "text": text} for row in range(3)]})
    heads = {"heads": [{"task": "tag"}, {"task": "classify"}]}

    def several(name, found, language, **options):
        rows = {"a.parquet": [found | label(language)] * 3}
        options |= {"keep": ["id"], "head": heads}
        write_job(folder.child(name), folder.child("corpus"), "several", rows, **options)
        return str(folder.child(name))

    old, new = several("old", long, "de"), several("new", short, "nl", fingerprint={"x": 1})
    by_place, by_key = compare(old, new), compare(old, new, "id")
    assert by_key.heads[0].transitions == [("CHARACTER", "no entity", 36), ("no entity", "PER", 3)]
    assert by_key.heads[1].transitions == [("de", "nl", 3)]
    for first, second in zip(by_place.heads, by_key.heads, strict=True):
        assert (first.transitions, first.n_compared) == (second.transitions, second.n_compared)
        assert (first.n_scores, first.score_difference) == (second.n_scores, second.score_difference)


def embedded(folder, name, vectors, *, order=1, **options):
    rows = [dict(ERROR) if vector is None else {"embedding": vector} for vector in vectors]
    ids = [{"id": row, "text": f"text {row}"} for row in range(len(rows))]
    write_corpus(folder.child(f"{name}_corpus"), {f"{name}.parquet": ids[::order]})
    results = {f"{name}.parquet": rows[::order]}
    options = {"keep": ["id"], "hidden_size": 2} | options
    write_job(folder.child(name), folder.child(f"{name}_corpus"), "embed", results, **options)
    return str(folder.child(name))


def test_vectors_are_compared_by_their_angle(folder):
    vectors = [[1.0, 0.0], [0.0, 2.0], [3.0, 4.0], None, [1.0, 1.0]]
    moved = [[2.0, 0.0], [2.0, 0.0], [4.0, 3.0], [1.0, 0.0], [1.0, 1.0]]
    old, new = embedded(folder, "old", vectors), embedded(folder, "new", moved, order=-1, rows_per_shard=2)
    found = compare(old, new, n_rows=2)
    summary = found.heads[0].cosines.summary()
    assert summary == pytest.approx(
        {"n_rows": 4, "median": (0.96 + 1) / 2, "least": 0.0, "n_below_0.99": 2, "share_below_0.99": 0.5}
    )
    assert (found.errors.n_gone, found.matched.n_both) == (1, 5)
    assert [(change.old.values["id"], change.cosine) for change in found.changes["embed"]] == [
        (1, 0.0),
        (2, pytest.approx(0.96)),
    ]
    same = compare(old, old)
    assert (same.heads[0].cosines.summary()["least"], same.changes["embed"], same.errors.n_both) == (1, [], 1)


def test_vectors_of_other_sizes_are_said_and_not_compared(folder):
    old = embedded(folder, "old", [[1.0, 0.0]])
    new = embedded(folder, "new", [[1.0, 0.0, 0.0]], hidden_size=3)
    assert "cosines     none: 2 dimensions in old, 3 in new" in list(compare(old, new).lines())


def test_cosines_of_zero_vectors_are_no_accident():
    zero, one = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    assert [float(cosines_of(a, b)[0]) for a, b in ((zero, zero), (zero, one), (one, one), (one, -one))] == [
        1,
        0,
        1,
        -1,
    ]


def test_several_heads_are_compared_one_by_one(folder):
    heads = [{"task": "classify"}, {"task": "classify", "prefix": "topic_"}]
    corpus(folder.child("corpus"), "a")

    def several(name, labels, topics, **options):
        rows = [
            label(x) | {f"topic_{key}": value for key, value in label(y).items()}
            for x, y in zip(labels, topics, strict=True)
        ]
        write_job(
            folder.child(name), folder.child("corpus"), "several", {"a.parquet": rows}, head={"heads": heads}, **options
        )
        return str(folder.child(name))

    found = compare(several("old", "xxxxxxx", "ppppppp"), several("new", "xxxxxxx", "pqqqppp", fingerprint={"x": 1}))
    assert [(head.name, head.n_changed) for head in found.heads] == [("classify", 0), ("topic", 3)]
    assert "            3 x p -> q" in list(found.lines())


def test_every_changed_row_may_be_shown_and_memory_is_bounded(folder, monkeypatch):
    corpus(folder.child("corpus"), "a", n_rows=60)
    old = classified(folder, "old", {"a": [f"old {n}" for n in range(60)]}, rows_per_shard=7)
    new = classified(folder, "new", {"a": [f"new {n}" for n in range(60)]}, rows_per_shard=7, fingerprint={"x": 1})
    monkeypatch.setattr(changes, "MOST_TRANSITIONS", 10)
    found = compare(old, new, n_rows=5)
    assert (found.heads[0].n_changed, len(found.changes["classify"]), found.heads[0].transitions) == (60, 5, [])
    assert len(found.heads[0]._transitions) <= 10
    assert max(change.old.row + 7 * change.old.shard for change in found.changes["classify"]) > 20
    assert compare(old, new, n_rows=0).changes == {"classify": []}


def test_the_verb_ends_with_0_prints_json_and_refuses_two_tasks(folder):
    corpus(folder.child("corpus"), "a")
    old = classified(folder, "old", {"a": "xxxxxxx"})
    new = classified(folder, "new", {"a": "xxxyyyy"}, fingerprint={"x": 1})
    run = CliRunner().invoke
    done = run(app, ["compare", old, new, "--rows", "2"])
    assert (done.exit_code, done.stdout.count("\nrow  ")) == (0, 2)
    assert "  old       x 0.900\n  new       y 0.900" in done.stdout
    done = run(app, ["compare", old, new, "--json"])
    found = json.loads(done.stdout)
    assert (found["heads"][0]["changed"], math.isclose(found["heads"][0]["share_changed"], 4 / 7)) == (4, True)
    assert found["heads"][0]["transitions"] == [{"old": "x", "new": "y", "rows": 4}]
    assert found["heads"][0]["examples"][0]["old"]["inputs"] == {"text": "a 3"}
    done = run(app, ["compare", old, embedded(folder, "vectors", [[1.0, 0.0]])])
    assert (done.exit_code, "name two outputs of one task" in done.stderr) == (2, True)
