"""`fill_mask` against Hugging Face's pipeline and models, fed with our ids row by row, for both families."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rembert_ray.check import check_job
from rembert_ray.errors import UnusableError
from rembert_ray.manifest import load_manifest
from rembert_ray.report.closing import Closing
from rembert_ray.report.summary import End
from rembert_ray.tasks import fill_mask
from rembert_ray.text.windows import cut_windows
from rembert_ray.tokenizers.auto import AutoTokenizer
from tests.conftest import DATA, write_corpus, write_manifest
from tests.stages.conftest import make_spec, run_shard
from tests.tasks.masked_models import save_rembert, save_roberta

transformers = pytest.importorskip("transformers")
from transformers.pipelines.fill_mask import FillMaskPipeline  # noqa: E402

TOLERANCE = 1e-5
ROWS = [json.loads(line) for line in (DATA / "fill_mask.jsonl").read_text(encoding="utf-8").splitlines()]
PLAIN = [row["text"] for row in ROWS]
FAMILIES = ("rembert", "roberta-prelayernorm")
MODELS = {
    "rembert": transformers.RemBertForMaskedLM,
    "roberta-prelayernorm": transformers.RobertaPreLayerNormForMaskedLM,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of 512 positions for each family."""
    rembert, roberta = (tmp_path_factory.mktemp(family) for family in FAMILIES)
    return {
        "rembert": save_rembert(rembert, PLAIN),
        "roberta-prelayernorm": save_roberta(roberta, PLAIN),
    }


@pytest.fixture(scope="module")
def short_folder(tmp_path_factory):
    """24 positions."""
    return save_rembert(tmp_path_factory.mktemp("short"), PLAIN, positions=24)


class Oracle:
    """A transformers model over our ids, one row at a time, unpadded."""

    def __init__(self, folder: Path, family: str) -> None:
        self.model = MODELS[family].from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.pipeline = SimpleNamespace(tokenizer=self.tokenizer)

    def logits(self, ids):
        with torch.inference_mode():
            return self.model(torch.tensor([ids])).logits

    def target_ids(self, targets):
        return None if targets is None else FillMaskPipeline.get_target_ids(self.pipeline, targets)

    def fill(self, text, top_k, target_ids=None):
        """What the pipeline's own code says, as one list for each mask."""
        ids = self.tokenizer.encode_batch([text]).ids.tolist()
        outputs = {"input_ids": torch.tensor([ids]), "logits": self.logits(ids)}
        found = FillMaskPipeline.postprocess(self.pipeline, outputs, top_k, target_ids)
        return [found] if isinstance(found[0], dict) else found

    def score(self, text):
        """(pseudo-log-likelihood, tokens) by a loop over the tokens."""
        ids = self.tokenizer.encode_batch([text]).ids.tolist()
        total = 0.0
        for place in range(1, len(ids) - 1):
            masked = [*ids[:place], self.tokenizer.mask_token_id, *ids[place + 1 :]]
            total += float(self.logits(masked)[0, place].double().log_softmax(-1)[ids[place]])
        return total, len(ids) - 2


def make(folder, output, **options):
    spec = make_spec(folder, output, task="fill_mask", **options)
    spec.task.take_tokenizer(spec.model, AutoTokenizer.from_pretrained(folder))
    return spec


def run(folder, tmp_path, texts, **options):
    path = write_corpus(tmp_path / "in.parquet", texts)
    receipt, rows = run_shard(make(folder, tmp_path / "out", **options), path)
    assert receipt.failure is None
    return rows


def masked_texts(folder):
    mask = AutoTokenizer.from_pretrained(folder).mask_token
    return [row["masked"].replace("[MASK]", mask) for row in ROWS]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("top_k", "targets"), [(5, None), (1, None), (5, ["der", "the", "▁the", "house", "Ġof"])])
def test_fills_equal_the_pipeline(folders, tmp_path, family, top_k, targets):
    oracle = Oracle(folders[family], family)
    texts = masked_texts(folders[family])
    rows = run(folders[family], tmp_path, texts, top_k=top_k, targets=targets)
    target_ids = oracle.target_ids(targets)
    n_masks, best = 0, set()
    for text, row in zip(texts, rows.to_pylist(), strict=True):
        expected = oracle.fill(text, top_k, target_ids)
        assert row["error"] is None
        assert [[f["token"] for f in m] for m in row["fills"]] == [[f["token"] for f in m] for m in expected]
        assert [[f["token_str"] for f in m] for m in row["fills"]] == [[f["token_str"] for f in m] for m in expected]
        scores = [[f["score"] for f in m] for m in row["fills"]]
        np.testing.assert_allclose(scores, [[f["score"] for f in m] for m in expected], atol=TOLERANCE)
        n_masks += len(expected)
        best |= {mask[0]["token"] for mask in row["fills"]}
    assert n_masks > len(texts)
    assert len(best) > (2 if targets else 20), "the model tells masks apart"


def test_sequences_differ_from_the_pipeline_only_in_what_the_tokenizer_does_not_keep(folders, tmp_path):
    oracle = Oracle(folders["rembert"], "rembert")
    unknown = oracle.tokenizer.unk_token_id
    latin = [text for text, row in zip(masked_texts(folders["rembert"]), ROWS, strict=True) if row["language"] == "es"]
    n_compared = 0
    for text, fills in zip(latin, run(folders["rembert"], tmp_path, latin)["fills"].to_pylist(), strict=True):
        if unknown in oracle.tokenizer.encode_batch([text]).ids or len(fills) > 1:
            continue
        for ours, theirs in zip(fills[0], oracle.fill(text, 5)[0], strict=True):
            # The pipeline shows no special tokens, and a blank before all that follows a mask.
            if ours["token"] not in oracle.tokenizer.all_special_ids:
                assert ours["sequence"].replace(" ", "") == theirs["sequence"].replace(" ", "")
                head = text[: text.index("[MASK]")]
                assert ours["sequence"][: len(head)] == theirs["sequence"][: len(head)]
                n_compared += 1
    assert n_compared > 10


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_a_loop_that_masks_each_token(folders, tmp_path, family):
    texts = [text for text in PLAIN if len(text) < 70][:8]
    oracle = Oracle(folders[family], family)
    rows = run(folders[family], tmp_path, [*texts, "", texts[0]], score=True).to_pylist()
    for text, row in zip([*texts, "", texts[0]], rows, strict=True):
        pll, n_scored = oracle.score(text)
        assert row["n_scored"] == n_scored
        assert row["pll"] == pytest.approx(pll, abs=TOLERANCE * max(n_scored, 1))


def test_masks_of_a_long_document_are_read_where_they_are_most_central(short_folder, tmp_path):
    words = " ".join(PLAIN[18:26]).split()
    text = " ".join("[MASK]" if index in (3, 4, 60, 61, 62, 90) else word for index, word in enumerate(words))
    (row,) = run(short_folder, tmp_path, [text], overlap=6).to_pylist()
    oracle = Oracle(short_folder, "rembert")
    ids = oracle.tokenizer.encode_batch([text], add_special_tokens=False).ids
    cut = cut_windows(np.array([len(ids)]), 22, 6)
    expected, n_windows = [], 0
    for start, end, owned_start, owned_end in zip(cut.start, cut.end, cut.owned_start, cut.owned_end, strict=True):
        masks = [i for i in range(owned_start, owned_end) if ids[i] == oracle.tokenizer.mask_token_id]
        window = oracle.tokenizer.build_inputs_with_special_tokens(ids[start:end].tolist())
        expected += [oracle.logits(window)[0, 1 + i - start].softmax(-1).topk(5) for i in masks]
        n_windows += bool(masks)
    assert row["n_windows"] == n_windows < len(cut)
    assert row["n_tokens"] == len(ids)
    assert [[f["token"] for f in mask] for mask in row["fills"]] == [best.indices.tolist() for best in expected]
    for fills, best in zip(row["fills"], expected, strict=True):
        np.testing.assert_allclose([f["score"] for f in fills], best.values, atol=TOLERANCE)


def test_each_token_of_a_long_document_is_scored_in_the_window_that_owns_it(short_folder, tmp_path):
    text = " ".join(PLAIN[18:21])
    (row,) = run(short_folder, tmp_path, [text], overlap=6, score=True).to_pylist()
    oracle = Oracle(short_folder, "rembert")
    ids = oracle.tokenizer.encode_batch([text], add_special_tokens=False).ids.tolist()
    cut = cut_windows(np.array([len(ids)]), 22, 6)
    assert len(cut) > 3
    total = 0.0
    for start, end, owned_start, owned_end in zip(cut.start, cut.end, cut.owned_start, cut.owned_end, strict=True):
        for place in range(owned_start, owned_end):
            masked = [*ids[start:place], oracle.tokenizer.mask_token_id, *ids[place + 1 : end]]
            logits = oracle.logits(oracle.tokenizer.build_inputs_with_special_tokens(masked))[0, 1 + place - start]
            total += float(logits.double().log_softmax(-1)[ids[place]])
    assert (row["n_scored"], row["n_windows"]) == (len(ids), len(cut))
    assert row["pll"] == pytest.approx(total, abs=TOLERANCE * len(ids))


def test_rows_that_cannot_be_used_say_why(short_folder, tmp_path, monkeypatch):
    far = "a b c d e f " * 10 + "[MASK]"
    texts = ["plain", None, "a [MASK]", "", far]
    rows = run(short_folder, tmp_path, texts, long_documents="truncate").to_pylist()
    no_mask = "no [MASK] in the text"
    unread = no_mask + " that is read (text.long_documents: truncate)"
    assert [row["error"] for row in rows] == [no_mask, "text is null", None, no_mask, unread]
    assert [row["fills"] is None for row in rows] == [True, True, False, True, True]
    monkeypatch.setattr(fill_mask, "MAX_SCORED_TOKENS", 8)
    rows = run(short_folder, tmp_path / "score", [far, "a b [MASK]"], score=True).to_pylist()
    assert rows[0]["error"].startswith("60 tokens to score, at most 8")
    assert (rows[1]["error"], rows[1]["n_scored"]) == (None, 2)


def test_sequences_that_would_be_too_much_are_null(folders, tmp_path):
    texts = ["[MASK] " * 300 + "a" * 200, "a [MASK]"]
    long, short = run(folders["rembert"], tmp_path, texts).to_pylist()
    assert len(long["fills"]) == 300
    assert {fill["sequence"] for mask in long["fills"] for fill in mask} == {None}
    assert all(fill["sequence"] for fill in short["fills"][0])


TRICKY = st.text(st.sampled_from("aé e\u0301 한ｗ½ﬁ🙂👩‍👩‍👦שׁلا ▁Ġ.\n\t\u200b\u3000"), max_size=12)
MASKED = st.lists(TRICKY, min_size=1, max_size=4).map("[MASK]".join)


@settings(max_examples=25)
@given(st.lists(st.none() | MASKED, min_size=1, max_size=6), st.booleans())
def test_every_row_and_every_mask_comes_out_once_and_the_rest_of_the_text_stays(folders, texts, is_roberta):
    family = FAMILIES[is_roberta]
    given_texts = [None if t is None else t.replace("[MASK]", "<mask>" if is_roberta else "[MASK]") for t in texts]
    with tempfile.TemporaryDirectory() as folder:
        rows = run(folders[family], Path(folder), given_texts, top_k=3)
    assert rows["id"].to_pylist() == [f"in-{index}" for index in range(len(texts))]
    for text, row in zip(texts, rows.to_pylist(), strict=True):
        parts = [] if text is None else text.split("[MASK]")
        assert len(row["fills"] or []) == max(len(parts) - 1, 0)
        assert (row["error"] is None) == (len(parts) > 1)
        for index, fills in enumerate(row["fills"] or []):
            mask = "<mask>" if is_roberta else "[MASK]"
            before, after = mask.join(parts[: index + 1]), mask.join(parts[index + 1 :])
            for fill in fills:
                sequence, word = fill["sequence"], fill["token_str"].removeprefix(" ")
                assert sequence.endswith(word + after)
                kept = sequence.removesuffix(word + after)
                assert kept.rstrip() == before.rstrip()


def check(tmp_path, folder, head):
    write_corpus(tmp_path / "corpus" / "part.parquet", ["a [MASK]"])
    manifest = {"task": "fill_mask", "model": str(folder), "input": {"path": str(tmp_path / "corpus")}, "head": head}
    return check_job(
        load_manifest(write_manifest(tmp_path, json.dumps(manifest | {"output": {"path": str(tmp_path / "o")}})))
    )


def test_targets_that_are_no_single_token_are_warned_of(folders, tmp_path):
    checked = check(tmp_path, folders["rembert"], {"targets": ["▁the", "Schulmanisierung", "the", "▁the"]})
    assert len(checked.warnings) == 2
    assert "'Schulmanisierung' is no single token: its first piece" in checked.warnings[0]
    assert "target 'the' continues a word; '▁the' begins one" in checked.warnings[1]
    tally = SimpleNamespace(
        n_shards_before=0, shards_done=0, rows_done=0, rows_with_error=0, n_tokens=0, n_windows=0, n_tokens_computed=0,
        rows_per_s=0, tokens_per_s=0, elapsed_s=1, seconds={}, n_bytes=0,
    )  # fmt: skip
    closing = Closing(checked, checked.plan)
    lines = list(End(checked, checked.plan, tally, {}, False, closing).lines(with_rows=True))
    assert [line for line in lines if line.startswith("warning")] == [f"warning     {w}" for w in checked.warnings]


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        ({"targets": ["\u200b"]}, "head.targets: none of them has a token"),
        ({"targets": ["a"], "score": True}, "head.targets: score: true fills no masks"),
        ({"top_k": 100_000}, "head.top_k: 100,000 is more than the vocabulary"),
        ({"top_k": 0}, "head.top_k"),
        ({"targets": []}, "head.targets"),
    ],
)
def test_parameters_that_cannot_be_are_named(folders, tmp_path, head, fault):
    with pytest.raises(UnusableError, match=fault):
        check(tmp_path, folders["rembert"], head)


def test_rows_are_rendered(folders, tmp_path):
    spec = make(folders["rembert"], tmp_path / "out")
    fill = {"score": 0.5, "token": 1, "token_str": "b", "sequence": "a b"}
    assert spec.task.render({"fills": [[fill], [fill]]}) == "a b <- 'b' 0.50 | 'b' 0.50"
    spec = make(folders["rembert"], tmp_path / "out", score=True)
    row = {"id": "x", "pll": -2 * np.log(4), "n_scored": 2, "n_tokens": 2}
    assert spec.task.render(row) == "id=x -2.8 over 2 tokens, pseudo-perplexity 4.0"
