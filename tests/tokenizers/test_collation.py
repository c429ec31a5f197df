"""`pad` takes what data collators give it, and the collators of transformers work with our tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert_ray.tokenizers.rembert import RemBertTokenizer

DATA = Path(__file__).parent.parent / "data"
tiny = RemBertTokenizer(DATA / "tiny_multilingual_8k.model")
PAD = tiny.pad_token_id


def test_a_list_of_encodings() -> None:
    encodings = [tiny("a"), tiny("a b", return_special_tokens_mask=True)]
    encodings[0]["special_tokens_mask"] = [1, 0, 1]
    result = tiny.pad(encodings)
    assert result["input_ids"][0] == [*encodings[0]["input_ids"], PAD]
    assert result["attention_mask"] == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert result["token_type_ids"] == [[0] * 4, [0] * 4]
    assert result["special_tokens_mask"] == [[1, 0, 1, 1], [1, 0, 0, 1]]


def test_a_mapping_of_rows_one_row_and_nothing() -> None:
    rows = {"input_ids": [[7], [7, 8]], "label": [0, 1]}
    assert dict(tiny.pad(rows)) == {
        "input_ids": [[7, PAD], [7, 8]],
        "label": [0, 1],
        "attention_mask": [[1, 0], [1, 1]],
    }
    assert tiny.pad({"input_ids": [7]}, padding="max_length", max_length=3)["input_ids"] == [7, PAD, PAD]
    assert tiny.pad([])["input_ids"] == []
    assert rows["input_ids"] == [[7], [7, 8]]


def test_sides_multiples_and_masks() -> None:
    options: dict[str, Any] = {"pad_to_multiple_of": 4, "padding_side": "left", "return_attention_mask": False}
    assert dict(tiny.pad({"input_ids": [[7], [7, 8]]}, **options)) == {
        "input_ids": [[PAD, PAD, PAD, 7], [PAD, PAD, 7, 8]]
    }
    assert tiny.pad({"input_ids": [[7], [7, 8]]}, padding=False)["input_ids"] == [[7], [7, 8]]


def test_the_kind_of_tensor_that_was_given_comes_back() -> None:
    torch = pytest.importorskip("torch")
    arrays = [{"input_ids": np.array([7])}, {"input_ids": np.array([7, 8])}]
    assert tiny.pad(arrays)["input_ids"].tolist() == [[7, PAD], [7, 8]]
    tensors = [{"input_ids": torch.tensor([7])}, {"input_ids": torch.tensor([7, 8])}]
    assert torch.equal(tiny.pad(tensors)["attention_mask"], torch.tensor([[1, 0], [1, 1]]))
    assert tiny.pad(arrays, return_tensors="pt")["input_ids"].dtype == torch.int64


def test_what_cannot_be_padded_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a column input_ids, got 'ids'"):
        tiny.pad({"ids": [1]})
    with pytest.raises(ValueError, match="encoding 1 has no label"):
        tiny.pad([{"input_ids": [1], "label": 0}, {"input_ids": [1]}])
    with pytest.raises(ValueError, match="column 'labels' cannot be one tensor"):
        tiny.pad({"input_ids": [[1], [1, 2]], "labels": [[1], [1, 2]]}, return_tensors="np")


# -- the collators of the task guides -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers() -> Any:
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")


def test_sequence_classification(transformers: Any) -> None:
    rows = [{**tiny(text, truncation=True, max_length=8), "label": i} for i, text in enumerate(["a", "a b c"])]
    result = transformers.DataCollatorWithPadding(tokenizer=tiny)(rows)
    assert result["input_ids"].shape == (2, 5)
    assert result["labels"].tolist() == [0, 1]


def test_token_classification(transformers: Any) -> None:
    words, tags = [["Hello", "a"], ["b"]], [[3, 4], [5]]
    inputs = tiny(words, truncation=True, max_length=8, is_split_into_words=True)
    inputs["labels"] = []
    for i, row_tags in enumerate(tags):
        previous, labels = None, []
        for word in inputs.word_ids(batch_index=i):
            labels.append(-100 if word is None or word == previous else row_tags[word])
            previous = word
        inputs["labels"].append(labels)
    assert inputs["labels"][0] == [-100, 3, -100, -100, 4, -100]
    rows = [{name: column[i] for name, column in inputs.items()} for i in range(2)]
    result = transformers.DataCollatorForTokenClassification(tokenizer=tiny)(rows)
    assert result["labels"].tolist()[1] == [-100, 5, -100, -100, -100, -100]
    assert result["input_ids"].shape == result["labels"].shape


def test_masked_language_modelling(transformers: Any) -> None:
    rows = [dict(tiny(text)) for text in ("a b c d e", "a")]
    collator = transformers.DataCollatorForLanguageModeling(tokenizer=tiny, mlm_probability=1.0)
    result = collator(rows)
    special = {tiny.cls_token_id, tiny.sep_token_id, PAD}
    is_special = [[token in special for token in row] for row in tiny.pad(rows)["input_ids"]]
    assert (result["labels"] == -100).tolist() == is_special


def test_multiple_choice(transformers: Any) -> None:
    choices = [["a b", "c"], ["a b", "d e"]]
    inputs = tiny(choices, padding=True, return_tensors="pt")
    assert inputs["input_ids"].shape == (2, 7)
    feature = {**tiny([a for a, _ in choices], [b for _, b in choices]), "label": 1}
    result = transformers.DataCollatorForMultipleChoice(tokenizer=tiny)([feature, dict(feature)])
    assert result["input_ids"].shape == (2, 2, 7)
