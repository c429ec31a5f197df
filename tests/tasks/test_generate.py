"""`generate` against the model's own `generate`, prompt by prompt, and against transformers' greedy search."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rembert_ray.models.config import RemBertConfig
from rembert_ray.models.rembert import RemBertForCausalLM
from rembert_ray.stages.encode import Encode
from rembert_ray.stages.infer import Infer
from rembert_ray.stages.write import Write
from rembert_ray.tokenizers.rembert import RemBertTokenizer
from tests.conftest import DATA, TOKENIZER, write_corpus
from tests.stages.conftest import make_spec, run_shard

PROMPTS = [text for text in json.loads((DATA / "blns.json").read_text()) if text][:60]
PROMPTS = ["in the sky", "", "Das Buch liegt auf dem Tisch.", "one", *PROMPTS, "the house on the hill " * 4]
STOPS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random decoder with 96 positions, whose stop ids come up now and then."""
    folder = tmp_path_factory.mktemp("decoder")
    tokenizer = RemBertTokenizer(TOKENIZER)
    torch.manual_seed(3)
    config = RemBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        input_embedding_size=16,
        output_embedding_size=24,
        intermediate_size=64,
        max_position_embeddings=96,
        initializer_range=0.5,
        is_decoder=True,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=[tokenizer.sep_token_id, *range(600, 600 + STOPS)],
    )
    model = RemBertForCausalLM(config)
    with torch.no_grad():
        model.head.decoder.bias[600 : 600 + STOPS] += 4
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(folder)
    return folder


def run(folder, tmp_path, prompts, *, cache_tokens=None, long_documents="error", name="out", **parameters):
    path = tmp_path / f"{name}.parquet"
    write_corpus(path, prompts)
    spec = make_spec(
        folder,
        tmp_path / name,
        task="generate",
        columns={"prompt": "text"},
        long_documents=long_documents,
        **parameters,
    )
    infer = Infer(spec)
    if cache_tokens:
        infer.engine.cache_tokens = cache_tokens
    receipt, rows = run_shard(spec, path, stages=(Encode(spec), infer, Write(spec)))
    assert receipt.failure is None, receipt.failure
    return rows.to_pylist()


def expected_text(model, tokenizer, prompt, **options):
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    row = torch.tensor([[tokenizer.cls_token_id, *ids]])
    new = model.generate(row, attention_mask=torch.ones_like(row), **options)[0, row.shape[1] :].tolist()
    last = row[0, -1].item()
    before = tokenizer.decode([last], skip_special_tokens=True)
    return prompt + tokenizer.decode([last, *new], skip_special_tokens=True)[len(before) :], new


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 12},
        {"max_new_tokens": 9, "repetition_penalty": 1.4, "min_new_tokens": 4},
        {"max_new_tokens": 8, "num_beams": 3, "length_penalty": 0.7},
    ],
    ids=str,
)
@pytest.mark.parametrize("cache_tokens", [None, 150])
def test_rows_are_those_of_generate_whatever_joins_and_leaves(folder, tmp_path, options, cache_tokens):
    rows = run(folder, tmp_path, PROMPTS, cache_tokens=cache_tokens, **options)
    model, tokenizer = RemBertForCausalLM.from_pretrained(str(folder)), RemBertTokenizer.from_pretrained(folder)
    stops = set(model.config.eos_token_id)
    reasons = set()
    for prompt, row in zip(PROMPTS, rows, strict=True):
        if row["error"]:
            assert "fit beside max_new_tokens" in row["error"]
            continue
        text, new = expected_text(model, tokenizer, prompt, **options)
        is_stopped = any(token in stops for token in new)
        n_new = next((place + 1 for place, token in enumerate(new) if token in stops), len(new))
        assert row["generated_text"] == text
        assert (row["n_new_tokens"], row["finish_reason"]) == (n_new, "stop" if is_stopped else "length")
        reasons.add(row["finish_reason"])
    # Beams find a way to a stop id wherever there is one.
    assert reasons == ({"stop"} if "num_beams" in options else {"stop", "length"})


def test_sampling_is_the_same_whatever_the_shard_and_the_batch(folder, tmp_path):
    options = {"max_new_tokens": 10, "do_sample": True, "seed": 7, "top_p": 0.9, "temperature": 1.5}
    whole = run(folder, tmp_path, PROMPTS, **options)
    order = np.random.default_rng(0).permutation(len(PROMPTS))
    shuffled = run(folder, tmp_path, [PROMPTS[i] for i in order], cache_tokens=120, name="other", **options)
    for place, row in zip(order, shuffled, strict=True):
        assert row["generated_text"] == whole[place]["generated_text"]
    other_seed = run(folder, tmp_path, PROMPTS, name="seed", **options | {"seed": 8})
    assert sum(a["generated_text"] != b["generated_text"] for a, b in zip(whole, other_seed, strict=True)) > 40


def test_greedy_equals_transformers(folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.RemBertForCausalLM.from_pretrained(folder).eval()
    tokenizer = RemBertTokenizer.from_pretrained(folder)
    rows = run(folder, tmp_path, PROMPTS[:20], max_new_tokens=8)
    for prompt, row in zip(PROMPTS[:20], rows, strict=True):
        assert row["generated_text"] == expected_text(theirs, tokenizer, prompt, max_new_tokens=8, do_sample=False)[0]


def test_long_prompts_lose_their_beginning_or_are_errors(folder, tmp_path):
    prompt = "the house on the hill " * 60 + "in the sky"
    (row,) = run(folder, tmp_path, [prompt], max_new_tokens=5)
    assert row["error"].startswith("the prompt has ")
    assert row["generated_text"] is None
    assert not row["truncated"]
    (row,) = run(folder, tmp_path, [prompt], max_new_tokens=5, long_documents="truncate", name="cut")
    assert row["truncated"]
    assert row["n_tokens"] == 96 - 5 - 1
    assert row["generated_text"].startswith(prompt)
    tokenizer = RemBertTokenizer.from_pretrained(folder)
    model = RemBertForCausalLM.from_pretrained(str(folder))
    ids = [tokenizer.cls_token_id, *tokenizer.encode(prompt, add_special_tokens=False)[-90:]]
    new = model.generate(torch.tensor([ids]), max_new_tokens=5)[0, len(ids) :].tolist()
    assert row["generated_text"].endswith(tokenizer.decode(new, skip_special_tokens=True).split(" ")[-1])


def test_nulls_empty_prompts_and_stop_words(folder, tmp_path):
    rows = run(folder, tmp_path, [None, "", "a"], max_new_tokens=3, special_tokens="none", return_full_text=False)
    assert [row["error"] for row in rows] == ["prompt is null", "the prompt has no token", None]
    assert not rows[2]["generated_text"].startswith("a ")


def test_contradictions_are_faults():
    from pydantic import ValidationError

    from rembert_ray.tasks.generate import Generate, GenerateParameters

    with pytest.raises(ValidationError, match="without sampling"):
        GenerateParameters(temperature=0.5)
    task = Generate(GenerateParameters(max_new_tokens=600))
    assert [key for key, *_ in task.faults(RemBertConfig())] == ["", "max_new_tokens"]
