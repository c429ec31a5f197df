"""Every example of Hugging Face's pages on both models, run with `from rembert_ray import ...` instead.

The examples are the installed documentation's own text, taken from the docstrings when the test runs. Each is run
twice on the same tiny checkpoint, with `transformers` and with `rembert_ray`: every tensor that it leaves behind and
the value of every expression in it (losses, labels, decoded text) must be the same.
"""

from __future__ import annotations

import doctest
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import tokenizers
import torch

import rembert_ray
from rembert_ray import RemBertTokenizer, RemBertTokenizerFast, RobertaTokenizer
from tests.conftest import TOKENIZER
from tests.parity.oracle import CLASSES, assert_equal, each_family, split_name, their_model, transformers

CHECKPOINTS = {"RemBert": "google/rembert", "RobertaPreLayerNorm": "andreasmadsen/efficient_mlm_m0.40"}
MASKS = {"RemBert": "[MASK]", "RobertaPreLayerNorm": "<mask>"}
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
# Words of the examples, so that the answer to "The capital of France is <mask>." is one token.
ROBERTA_TEXTS = ["The capital of France is Paris.", "HuggingFace is a company based in Paris and New York"]


def save_rembert_tokenizer(folder: Path) -> int:
    """A `sentencepiece.model`, which our tokenizer reads, and a `tokenizer.json` of it, which transformers reads."""
    RemBertTokenizerFast(TOKENIZER).save_pretrained(folder)
    tokenizer = RemBertTokenizer(TOKENIZER)
    tokenizer.save_pretrained(folder)
    # transformers 5.x has dropped the segments that 4.x and ours return.
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_input_names": tokenizer.model_input_names}))
    return len(tokenizer)


def save_roberta_tokenizer(folder: Path) -> int:
    """Byte-level BPE learnt from a few words."""
    learner = tokenizers.ByteLevelBPETokenizer()
    learner.train_from_iterator(ROBERTA_TEXTS * 2, vocab_size=400, special_tokens=ROBERTA_SPECIALS, show_progress=False)
    learner.save_model(str(folder))
    tokenizer = RobertaTokenizer(folder / "vocab.json", folder / "merges.txt")
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folders of tiny random checkpoints by class name, each with its family's tokenizer."""
    folders = {}
    savers = {"RemBert": save_rembert_tokenizer, "RobertaPreLayerNorm": save_roberta_tokenizer}
    for family, save_tokenizer in savers.items():
        tokenizer = tmp_path_factory.mktemp(family)
        n_ids = save_tokenizer(tokenizer)
        for name in CLASSES:
            if split_name(name)[0] == family:
                folders[name] = tmp_path_factory.mktemp(name)
                shutil.copytree(tokenizer, folders[name], dirs_exist_ok=True)
                their_model(name, vocab_size=n_ids, max_position_embeddings=200).save_pretrained(folders[name])
    return folders


def examples_in(text: str) -> list[str]:
    """The statements of the examples in a docstring."""
    return [example.source for example in doctest.DocTestParser().get_examples(text)]


def run(statements: list[str], library: str) -> tuple[dict[str, object], list[object]]:
    """What statements leave behind, and the values of those that are expressions."""
    variables: dict[str, object] = {}
    values = []
    for statement in statements:
        source = statement.replace("from transformers import", f"from {library} import")
        try:
            code = compile(source, "documentation", "eval")
        except SyntaxError:
            exec(compile(source, "documentation", "exec"), variables)
        else:
            values.append(eval(code, variables))
    variables.pop("__builtins__")
    return variables, values


def assert_same(found: object, expected: object, label: str) -> None:
    """Tensors in outputs and encodings too; objects of the libraries themselves are not compared."""
    if isinstance(expected, torch.Tensor):
        assert_equal(found, expected, label)
    elif isinstance(expected, Mapping):
        assert set(found) == set(expected), label
        for key, value in expected.items():
            assert_same(found[key], value, f"{label}.{key}")
    elif isinstance(expected, str | int | float | list):
        assert found == (pytest.approx(expected, abs=0.011) if isinstance(expected, float) else expected), label


def run_both(statements: list[str]) -> dict[str, object]:
    """Run with both libraries, compare everything, and give what ours left behind."""
    found, found_values = run(statements, "rembert_ray")
    expected, expected_values = run(statements, "transformers")
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert_same(found[name], value, name)
    assert_same(dict(enumerate(found_values)), dict(enumerate(expected_values)), "expression")
    return found


def on_checkpoint(statements: list[str], name: str, folder: Path) -> list[str]:
    """The example with a tiny checkpoint and its mask."""
    family, _ = split_name(name)
    replaced = {CHECKPOINTS[family]: str(folder), "<mask>": MASKS[family]}
    if family == "RemBert":
        # The tiny vocabulary has no piece for a full stop after a blank, which [MASK] leaves: as many tokens in both.
        replaced["is Paris."] = "is Paris ."
    for old, new in replaced.items():
        statements = [statement.replace(old, new) for statement in statements]
    return statements


@pytest.mark.parametrize("name", [name for name in CLASSES if not name.endswith("Model")])
def test_example_of_a_head(name, checkpoints):
    statements = examples_in(getattr(transformers, name).forward.__doc__)
    assert any("from_pretrained" in statement for statement in statements)
    left = run_both(on_checkpoint(statements, name, checkpoints[name]))
    assert type(left["model"]) is getattr(rembert_ray, name)
    assert "loss" in left or "outputs" in left


@each_family
def test_example_of_the_bare_model(family, checkpoints):
    # Pages of 4.x show it; in 5.x it is in the library's texts, but on no page.
    name = f"{family}Model"
    text = transformers.utils.doc.PT_BASE_MODEL_SAMPLE.format(model_class=name, checkpoint=CHECKPOINTS[family])
    left = run_both(on_checkpoint(examples_in(text), name, checkpoints[name]))
    assert left["last_hidden_states"].shape[-1] == 16


@each_family
def test_example_of_the_configuration(family):
    # On the meta device: google/rembert has 576 million weights, and no value of theirs is asked for.
    statements = examples_in(getattr(transformers, f"{family}Config").__doc__)
    with torch.device("meta"):
        ours, _ = run(statements, "rembert_ray")
        theirs, _ = run(statements, "transformers")
    assert type(ours["configuration"]) is getattr(rembert_ray, f"{family}Config")
    assert ours["configuration"] is ours["model"].config
    assert ours["model"].num_parameters() == theirs["model"].num_parameters()


def test_examples_are_found_at_all():
    without = [name for name in CLASSES if not examples_in(getattr(transformers, name).forward.__doc__ or "")]
    assert without == ["RemBertModel", "RobertaPreLayerNormModel"]


def test_the_tiny_tokenizers_give_both_libraries_the_same_ids(checkpoints):
    for name in ("RemBertModel", "RobertaPreLayerNormModel"):
        folder = str(checkpoints[name])
        ours, theirs = (library.AutoTokenizer.from_pretrained(folder) for library in (rembert_ray, transformers))
        assert ours("Hello, my dog is cute")["input_ids"] == theirs("Hello, my dog is cute")["input_ids"]
        assert json.loads((checkpoints[name] / "config.json").read_text())["vocab_size"] == len(ours)
