"""`tag` against Hugging Face's token classification pipeline on short texts, and on its own for long ones."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
import torch

from rembert_ray.models.rembert import RemBertForTokenClassification
from rembert_ray.stages.encode import Encode
from rembert_ray.text.spans import AGGREGATIONS
from rembert_ray.tokenizers.rembert import RemBertTokenizer
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
    documents = spec.task.encode([text], tokenizer, spec.capacity, spec.overlap)
    expected = []
    for window in range(row["n_windows"]):
        table = documents.windows.take(np.array([window]))
        with torch.inference_mode():
            logits = model(torch.from_numpy(table.ids[None].astype(np.int64))).logits[0]
        expected += logits[table.kept_starts[0] : table.kept_ends[0]].softmax(-1).max(-1).indices.tolist()
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
