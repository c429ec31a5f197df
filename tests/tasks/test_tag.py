"""`tag` against Hugging Face's token classification pipeline on short texts, and on its own for long ones."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rembert_ray.models.rembert import RemBertForTokenClassification
from rembert_ray.stages.encode import Encode
from rembert_ray.text.spans import AGGREGATIONS
from rembert_ray.tokenizers.rembert import RemBertTokenizer
from rembert_ray.tokenizers.rembert_fast import RemBertTokenizerFast
from tests.conftest import DATA, LABELS, write_corpus
from tests.stages.conftest import make_spec, run_shard

SENTENCES = [
    "While much of the digital transition is unprecedented in the United States, the transfer is not.",
    "Kori Schulman wrote in a blog post on Monday.",
    "Das Buch, das ich gestern gekauft habe, liegt in Köln auf dem Tisch.",
    "Он не знал, что делать дальше.",
    "El perro de San Roque no tiene rabo porque Ramón Ramírez se lo ha robado.",
    "Ce n’est pas la première fois qu'il pleut à Paris.",
    "one",
    "Hello, world! 123 and 4.5% of it.",
]


@pytest.fixture(scope="module")
def oracle(model_folder):
    """Hugging Face's pipeline over the same folder, with the special tokens that a bare vocabulary lacks there."""
    transformers = pytest.importorskip("transformers")
    from tokenizers.processors import TemplateProcessing

    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    special = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    model = transformers.RemBertForTokenClassification.from_pretrained(model_folder).eval()

    def tag(text: str, aggregation: str, ignore_labels: list[str]):
        pipeline = transformers.pipeline(
            "token-classification",
            model=model,
            tokenizer=tokenizer,
            aggregation_strategy=aggregation,
            ignore_labels=ignore_labels,
        )
        return pipeline(text)

    tag.ids = lambda text: tokenizer(text)["input_ids"]
    return tag


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("ignore_labels", [["O"], []])
def test_entities_equal_the_pipeline(oracle, model_folder, tmp_path, aggregation, ignore_labels):
    tokenizer = RemBertTokenizer.from_pretrained(model_folder)
    naughty = [text for text in json.loads((DATA / "blns.json").read_text()) if text.strip()][:120]
    # Where the two tokenizers cut a text differently there is nothing to compare; where one character becomes several
    # (a spacing cedilla, a fraction) the two differ in whether an edge belongs to the word.
    plain = [text for text in naughty if all(len(unicodedata.normalize("NFKC", c)) == 1 for c in text)]
    texts = [t for t in [*SENTENCES, *plain] if oracle.ids(t) == tokenizer.encode_batch([t]).ids.tolist()]
    assert len(texts) > 80
    path = write_corpus(tmp_path / "in.parquet", texts)
    spec = make_spec(model_folder, tmp_path / "out", aggregation=aggregation, ignore_labels=ignore_labels)
    _, rows = run_shard(spec, path)
    n_compared = 0
    for text, found in zip(texts, rows["entities"].to_pylist(), strict=True):
        # A lone "▁" has no text of its own; the pipeline gives it the range of the character behind it.
        expected = [e for e in oracle(text, aggregation, ignore_labels) if e["word"].strip("▁ ")]
        groups = [entity.get("entity_group", entity.get("entity")) for entity in expected]
        assert [entity["entity_group"] for entity in found] == groups, text
        for ours, theirs in zip(found, expected, strict=True):
            assert ours["score"] == pytest.approx(float(theirs["score"]), abs=1e-5)
            # The pipeline's ranges include the space before a piece.
            assert ours["word"] == text[theirs["start"] : theirs["end"]].strip()
            assert ours["word"] == text[ours["start"] : ours["end"]]
        n_compared += len(found)
    assert n_compared > 150


def test_each_token_of_a_long_document_comes_from_the_window_where_it_is_most_central(short_model_folder, tmp_path):
    text = " ".join(SENTENCES[:6])
    path = write_corpus(tmp_path / "in.parquet", [text])
    spec = make_spec(short_model_folder, tmp_path / "out", overlap=6, aggregation="none", ignore_labels=[])
    _, rows = run_shard(spec, path)
    row = rows.to_pylist()[0]
    assert row["n_windows"] > 3
    tokenizer = Encode(spec).tokenizer
    encoding = tokenizer.encode_batch([text], add_special_tokens=False, with_offsets=True)
    model = RemBertForTokenClassification.from_pretrained(str(short_model_folder))
    documents = spec.task.encode({"text": [text]}, tokenizer, spec.windows)
    expected = []
    for window in range(row["n_windows"]):
        table = documents.windows.take(np.array([window]))
        with torch.inference_mode():
            logits = model(torch.from_numpy(table.ids[None].astype(np.int64))).logits[0]
        expected += logits[table.kept].softmax(-1).max(-1).indices.tolist()
    assert len(expected) == len(encoding.ids) == row["n_tokens"]
    visible = [label for label, (start, end) in zip(expected, encoding.offsets, strict=True) if start < end]
    assert [entity["entity_group"] for entity in row["entities"]] == [LABELS[label] for label in visible]


def test_words_are_cut_from_the_original_text_whatever_the_normalizer_did(model_folder, tmp_path):
    texts = ["ﬁne ｗｏｒｄｓ in Zürich", "naïve café — “quoted”", "½ of it"]
    path = write_corpus(tmp_path / "in.parquet", texts)
    _, rows = run_shard(make_spec(model_folder, tmp_path / "out", aggregation="first", ignore_labels=[]), path)
    for text, entities in zip(texts, rows["entities"].to_pylist(), strict=True):
        assert entities
        assert all(entity["word"] == text[entity["start"] : entity["end"]] for entity in entities)


WORDS = [
    ["in", "the", "sky", "up", "above"],
    ["Das", "", "Buch", " ", "liegt"],
    [],
    ["naïve", "café", "—", "“quoted”", "½", "👍🏽", "ｗｏｒｄｓ"],
    ["the"] * 60,
]


@pytest.mark.parametrize("aggregation", ["none", "first", "average", "max"])
def test_words_get_the_label_of_their_own_tokens(short_model_folder, tmp_path, aggregation):
    path = tmp_path / "in.parquet"
    rows = [*WORDS, None, ["a", None]]
    pq.write_table(pa.table({"id": list("abcdefg"), "words": pa.array(rows, pa.list_(pa.string()))}), path)
    spec = make_spec(short_model_folder, tmp_path / "out", columns={"words": "words"}, aggregation=aggregation)
    receipt, table = run_shard(spec, path)
    assert receipt.failure is None
    found = table.to_pylist()
    assert [row["error"] for row in found[5:]] == ["words is null", "words[1] is null"]
    for words, row in zip(WORDS, found, strict=False):
        assert len(row["tags"]) == len(words)
        assert [tag is None for tag in row["tags"]] == [not word.strip() for word in words]
        text = " ".join(words)
        assert all(entity["word"] == text[entity["start"] : entity["end"]] for entity in row["entities"])
    tokenizer = Encode(spec).tokenizer
    model = RemBertForTokenClassification.from_pretrained(str(short_model_folder))
    for words, row in zip(WORDS[:4], found, strict=False):
        text = " ".join(words)
        encoding = tokenizer.encode_batch([text], with_offsets=True)
        assert len(encoding.ids) <= 24, "one window"
        with torch.inference_mode():
            probabilities = model(torch.from_numpy(encoding.ids[None].astype(np.int64))).logits[0].softmax(-1)[1:-1]
        owner = [word for word, part in enumerate(words) for _ in range(len(part) + 1)]
        tokens = {}
        for token, (start, end) in enumerate(encoding.offsets[1:-1].tolist()):
            tokens.setdefault(owner[max(end - 1, start)], []).append(probabilities[token])
        for word, rows_of_word in tokens.items():
            table = torch.stack(rows_of_word)
            best = {
                "average": table.mean(0).argmax(),
                "max": table[table.max(-1).values.argmax()].argmax(),
            }.get(aggregation, table[0].argmax())
            assert row["tags"][word] == LABELS[int(best)]


def test_entities_can_be_filtered_by_group_and_score(model_folder, tmp_path):
    path = write_corpus(tmp_path / "in.parquet", ["in the sky up above", "Das Buch liegt auf dem Tisch."] * 5)

    def entities(name, **parameters):
        rows = run_shard(make_spec(model_folder, tmp_path / name, **parameters), path)[1]
        return [[(e["start"], e["entity_group"], e["score"]) for e in row] for row in rows["entities"].to_pylist()]

    everything = entities("all", ignore_labels=[])
    scores = sorted(score for row in everything for *_, score in row)
    least = scores[len(scores) // 2]
    groups = {group for row in everything for _, group, _ in row}
    wanted = sorted(groups)[0]
    filtered = entities("some", ignore_labels=[], labels=[wanted], min_score=least)
    assert filtered == [[e for e in row if e[1] == wanted and e[2] >= least] for row in everything]
    task = make_spec(model_folder, tmp_path / "wrong", labels=["PERR"]).task
    assert task.faults(make_spec(model_folder, tmp_path / "wrong2").config)[0][0] == "labels"


def test_a_tokenizer_that_counts_blanks_to_words_gives_words_without_them(model_folder, tmp_path):
    folder = tmp_path / "fast"
    RemBertForTokenClassification.from_pretrained(model_folder).save_pretrained(folder)
    fast = RemBertTokenizerFast(model_folder / "sentencepiece.model")
    fast.save_pretrained(folder)
    texts = ["in the sky up above", "  Das Buch\tliegt ", "今日 は", "naïve café"]
    path = write_corpus(tmp_path / "in.parquet", texts)
    found = {}
    for name, place in (("fast", folder), ("slow", model_folder)):
        spec = make_spec(place, tmp_path / f"out_{name}", ignore_labels=[], aggregation="none")
        rows = run_shard(spec, path)[1]["entities"].to_pylist()
        found[name] = [[(e["word"], e["start"], e["end"], e["entity_group"]) for e in row] for row in rows]
        assert all(
            word == word.strip() == text[start:end]
            for text, row in zip(texts, found[name], strict=True)
            for word, start, end, _ in row
        )
    assert type(Encode(make_spec(folder, tmp_path / "o")).tokenizer) is RemBertTokenizerFast
    assert found["fast"][0] == found["slow"][0]
