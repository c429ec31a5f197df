"""Record what the slow `RemBertTokenizer` of transformers 4.46.3 answers, for tests/tokenizers/test_against_slow.py.

Run it with that release, not with the one that the tests use:

    python3 -m venv /tmp/slow && /tmp/slow/bin/pip install transformers==4.46.3 sentencepiece numpy
    /tmp/slow/bin/python tests/data/record_rembert_slow.py

It needs no torch and writes rembert_slow_4.46.3.json beside itself.
"""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AddedToken, RemBertTokenizer

HERE = Path(__file__).parent
MODELS = ("test_sentencepiece.model", "tiny_multilingual_8k.model")
TEXTS = [
    "This is a test",
    "I was born in 92000, and this is falsé.",
    "In the sky [MASK] above",
    "a[MASK]b  [MASK]  c",
    "[CLS] written [SEP] out <pad> <unk>",
    "",
    "   ",
    " leading and trailing ",
    "Extra spaces\tand\nline breaks\r\nshould be handled.",
    "ﬁne ½ ＡＢＣ e\u0301",
    "清水寺は京都にある。",
    "Привет, мир! Ça va? Straße 5",
    "İstanbul HELLO Σίσυφος",
    "don't stop , it 's now . ! n't",
    "``quoted'' text --",
    "👨\u200d👩 x\u200by\x00z",
    "▁ lower ▁one eighth",
]
PAIRS = [(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[0]), (TEXTS[10], TEXTS[2]), (TEXTS[11], TEXTS[12]), ("", TEXTS[0])]
WORDS = [text.split() for text in TEXTS if text.split()]
ADDED_TEXTS = [
    "a newword b",
    "anewwordb the other <x> y <y>",
    "q <lr> r",
    "  <x>",
    "newword newword <x><y>",
    "thethe the",
]


def record(model: str, do_lower_case: bool) -> dict[str, object]:
    """Everything about one tokenizer. `pad_token` and `unk_token` are those of the published vocabulary."""
    tokenizer = RemBertTokenizer(str(HERE / model), do_lower_case=do_lower_case, pad_token="<pad>", unk_token="<unk>")
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    out: dict[str, object] = {
        "model": model,
        "do_lower_case": do_lower_case,
        "length": len(tokenizer),
        "texts": [[text, tokenizer.tokenize(text), dict(tokenizer(text))] for text in TEXTS],
        "pairs": [[*pair, dict(tokenizer(*pair, return_special_tokens_mask=True))] for pair in PAIRS],
        "words": [[words, dict(tokenizer(words, is_split_into_words=True))] for words in WORDS],
        "decoded": [
            [row, tokenizer.decode(row), tokenizer.decode(row, True), tokenizer.decode(row, True, True)] for row in ids
        ],
        "strings": [[tokenizer.tokenize(t), tokenizer.convert_tokens_to_string(tokenizer.tokenize(t))] for t in TEXTS],
        "template": [
            tokenizer.build_inputs_with_special_tokens([7, 8], [9]),
            tokenizer.build_inputs_with_special_tokens([7, 8]),
            tokenizer.create_token_type_ids_from_sequences([7, 8], [9]),
            tokenizer.create_token_type_ids_from_sequences([7, 8]),
            tokenizer.get_special_tokens_mask([7, 8], [9]),
            tokenizer.get_special_tokens_mask([7, 8]),
            [tokenizer.num_special_tokens_to_add(), tokenizer.num_special_tokens_to_add(pair=True)],
        ],
    }
    truncated = []
    for side in ("right", "left"):
        tokenizer.truncation_side = side
        for strategy in ("longest_first", "only_first", "only_second"):
            for max_length in (7, 12):
                for pair in PAIRS:
                    row = dict(tokenizer(*pair, truncation=strategy, max_length=max_length))
                    # Where a text is too short, 4.x logs an error and gives the row untruncated; here that is refused.
                    if len(row["input_ids"]) <= max_length:
                        truncated.append([*pair, side, strategy, max_length, row])
    out["truncated"] = truncated
    out["added"] = add_tokens(tokenizer)
    return out


def add_tokens(tokenizer: RemBertTokenizer) -> dict[str, object]:
    """Results of adding words and special tokens."""
    n_new = [
        tokenizer.add_tokens(["newword", "▁the", "other"]),
        tokenizer.add_special_tokens({"additional_special_tokens": ["<x>", "<y>"]}),
        tokenizer.add_tokens([AddedToken("<lr>", lstrip=True, rstrip=True)]),
        tokenizer.add_special_tokens({"cls_token": "<CLS>"}),
    ]
    rows = [tokenizer(text)["input_ids"] for text in ADDED_TEXTS]
    return {
        "n_new": n_new,
        "added_vocab": tokenizer.get_added_vocab(),
        "all_special_tokens": tokenizer.all_special_tokens,
        "all_special_ids": tokenizer.all_special_ids,
        "special_tokens_map": tokenizer.special_tokens_map,
        "length": len(tokenizer),
        "texts": [
            [text, row, tokenizer.tokenize(text), tokenizer.decode(row), tokenizer.decode(row, True)]
            for text, row in zip(ADDED_TEXTS, rows, strict=True)
        ],
    }


def main() -> None:
    """Write the file."""
    recorded = [record(MODELS[0], False), record(MODELS[1], False), record(MODELS[0], True)]
    text = json.dumps(recorded, ensure_ascii=True, separators=(",", ":"))
    (HERE / "rembert_slow_4.46.3.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
