"""Records `answer_4.46.3.json`: what the last question answering pipeline of Hugging Face makes of given logits.

    python -m venv venv && venv/bin/pip install transformers==4.46.3 torch numpy
    python -c "from rembert_ray.tokenizers.rembert_fast import RemBertTokenizerFast as T; \
        T('tests/data/tiny_multilingual_8k.model').save_pretrained('tokenizer')"
    venv/bin/python tests/data/record_answer.py tokenizer

Logits are random numbers that numpy promises to repeat: see `logits`. Only the model is replaced; tokenizing, masks,
softmax, spans and words are the pipeline's. Of its many answers those are recorded that overlap none before them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent
TOP_K = 5


def logits(row: int, n_tokens: int) -> np.ndarray:
    """Start and end logits of a window, float32 `[tokens, 2]`; in some rows those of the opening token are high."""
    numbers = np.random.RandomState(row).standard_normal((n_tokens, 2)) * 3
    numbers[0] += 2 * (row % 4)
    return numbers.astype(np.float32)


def main(folder: str) -> None:
    import torch
    from transformers import (
        PreTrainedTokenizerFast,
        QuestionAnsweringPipeline,
        RemBertConfig,
        RemBertForQuestionAnswering,
    )

    class WithGivenLogits(QuestionAnsweringPipeline):
        row = 0

        def _forward(self, inputs):
            given = torch.from_numpy(logits(self.row, inputs["input_ids"].shape[1]))
            return {"start": given[None, :, 0], "end": given[None, :, 1], **inputs}

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(Path(folder) / "tokenizer.json"), cls_token="[CLS]", sep_token="[SEP]", pad_token="<pad>"
    )
    config = RemBertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8)
    pipeline = WithGivenLogits(model=RemBertForQuestionAnswering(config), tokenizer=tokenizer)
    recorded = []
    for row, line in enumerate((DATA / "answer.jsonl").read_text(encoding="utf-8").splitlines()):
        given = json.loads(line)
        pipeline.row = row
        found = {"id": given["id"]}
        for name, options in {
            "tokens": {"align_to_words": False},
            "words": {"align_to_words": True},
            "with_null": {"align_to_words": False, "handle_impossible_answer": True},
        }.items():
            answers = pipeline(
                question=given["question"], context=given["context"], max_seq_len=2048, top_k=100_000, **options
            )
            found[name] = [[one["start"], one["end"], one["score"]] for one in without_overlaps(answers)]
        recorded.append(found)
    lines = ",\n".join(json.dumps(one) for one in recorded)
    (DATA / "answer_4.46.3.json").write_text(f"[\n{lines}\n]\n")


def without_overlaps(answers: list[dict]) -> list[dict]:
    """The first answers of which none shares a character with one before; white space at the ends does not count."""
    taken = []
    for answer in answers:
        text = answer["answer"]
        start = answer["start"] + len(text) - len(text.lstrip())
        end = answer["end"] - len(text) + len(text.rstrip())
        is_null = answer["start"] == answer["end"] == 0
        if (is_null or start < end) and all(start >= one["end"] or end <= one["start"] for one in taken):
            taken.append({"start": start, "end": end, "score": answer["score"]})
    return taken[:TOP_K]


if __name__ == "__main__":
    main(*sys.argv[1:])
