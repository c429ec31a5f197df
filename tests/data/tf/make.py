"""Makes the `.zip` files beside it: folders that the TensorFlow classes of an older transformers really saved.

Not part of the tests; must not be run with the versions of the tests, which have no TensorFlow classes any more.

    python3 -m venv venv
    venv/bin/pip install "transformers==4.46.3" "tensorflow-cpu==2.21.0"
    venv/bin/pip install --no-deps "tf-keras==2.21.0"
    venv/bin/python tests/data/tf/make.py

One folder for each class: `config.json` and `tf_model.h5` as `save_pretrained` wrote them, and `expected.npz` with
inputs and what the class made of them. All weights are random (a new model's biases are 0 and its norms 1, which
would hide mistakes), all widths differ (a matrix that is not transposed then has the wrong shape, but for those that
are square). `_Sharded` was saved in several files, `_Safetensors` as safetensors in TensorFlow's names.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path

os.environ |= {"TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "", "TF_ENABLE_ONEDNN_OPTS": "0"}

import numpy as np
import tensorflow as tf
import transformers

HEADS = (
    *("Model", "ForCausalLM", "ForMaskedLM", "ForSequenceClassification"),
    *("ForMultipleChoice", "ForTokenClassification", "ForQuestionAnswering"),
)
FAMILIES = {
    "RemBert": {"input_embedding_size": 6, "output_embedding_size": 10, "pad_token_id": 0},
    "RobertaPreLayerNorm": {"pad_token_id": 1, "type_vocab_size": 2},
}
SIZES = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}


def make_inputs(head: str, pad_token_id: int) -> dict[str, np.ndarray]:
    """Two rows of seven tokens, or four as choices of two; the last one ends in padding."""
    n_rows = 4 if head == "ForMultipleChoice" else 2
    random = np.random.default_rng(1)
    inputs = {
        "input_ids": random.integers(3, SIZES["vocab_size"], (n_rows, 7)),
        "attention_mask": np.ones((n_rows, 7), int),
        "token_type_ids": np.repeat([[0, 0, 0, 1, 1, 1, 1]], n_rows, axis=0),
    }
    inputs["input_ids"][-1, 5:] = pad_token_id
    inputs["attention_mask"][-1, 5:] = 0
    if head == "ForMultipleChoice":
        inputs = {name: value.reshape(2, 2, 7) for name, value in inputs.items()}
    return {name: value.astype(np.int32) for name, value in inputs.items()}


def make_model(family: str, head: str) -> tuple[object, dict[str, np.ndarray]]:
    """A model with random weights, and inputs with their outputs."""
    n_labels = 2 if head == "ForQuestionAnswering" else 3
    config = getattr(transformers, f"{family}Config")(
        **SIZES, **FAMILIES[family], num_labels=n_labels, is_decoder=head == "ForCausalLM"
    )
    model = getattr(transformers, f"TF{family}{head}")(config)
    inputs = make_inputs(head, config.pad_token_id)
    model({name: tf.constant(value) for name, value in inputs.items()})
    random = np.random.default_rng(2)
    for weight in model.weights:
        is_scale = weight.name.endswith("gamma:0")
        weight.assign(random.normal(1.0 if is_scale else 0.0, 0.3, weight.shape).astype(np.float32))
    outputs = model({name: tf.constant(value) for name, value in inputs.items()})
    floats = {name: value.numpy() for name, value in outputs.items() if name != "past_key_values"}
    return model, inputs | floats


def main() -> None:
    """Write one zip file for each family."""
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            for head in HEADS:
                model, expected = make_model(family, head)
                folder = root / f"{family}{head}"
                model.save_pretrained(folder)
                np.savez(folder / "expected.npz", **expected)
                if head == "ForTokenClassification":
                    model.save_pretrained(Path(f"{folder}_Sharded"), max_shard_size="2KB")
                    model.save_pretrained(Path(f"{folder}_Safetensors"), safe_serialization=True)
                    for suffix in ("_Sharded", "_Safetensors"):
                        shutil.copy(folder / "expected.npz", f"{folder}{suffix}")
            target = Path(__file__).with_name(f"{family}.zip")
            with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
                for file in sorted(root.rglob("*.*")):
                    if file.is_file() and file.name != "generation_config.json":
                        archive.write(file, file.relative_to(root))
            print(target, target.stat().st_size)


if __name__ == "__main__":
    main()
