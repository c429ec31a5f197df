"""A SentencePiece Unigram model as a tokenizer of the `tokenizers` library, for `RemBertTokenizerFast`.

The result is what the `RemBertConverter` of transformers 4.x makes, without the template. Pieces and scores come
from the `sentencepiece` library, the character map from the file itself. It must not know special tokens, nor which
folder a model came from.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.tokenizers.backend import state_of
from rembert_ray.tokenizers.model_fields import UNIGRAM, adds_dummy_prefix, character_map, model_type


@dataclass(frozen=True)
class NormalizerFlags:
    """What happens to a text before the model's own character map.

    - `do_lower_case`: lower case.
    - `keep_accents` False: letters lose their combining marks.
    - `remove_space`: a run of blanks becomes one (of blanks only: tabs and line ends become blanks later).
    """

    do_lower_case: bool = False
    keep_accents: bool = True
    remove_space: bool = True


def from_sentencepiece(model: bytes, name: str) -> tokenizers.Tokenizer:
    """The tokenizer of a SentencePiece model's bytes, `name` is what error messages call it.

    Raises `UnusableError` when `model` is no SentencePiece model or not of the Unigram kind.
    """
    try:
        processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        kind, charsmap = model_type(model), character_map(model)
        scheme = "always" if adds_dummy_prefix(model) else "never"
        ids = list(range(processor.get_piece_size()))
        if not ids:
            raise ValueError("it has no pieces")
    except (RuntimeError, ValueError, IndexError) as error:
        raise UnusableError(Fault(name, f"is not a SentencePiece model: {error}", "copy the file again")) from error
    if kind != UNIGRAM:
        what = "is a SentencePiece model of another kind than Unigram"
        raise UnusableError(Fault(name, what, "RemBERT's models are Unigram: take RemBERT's sentencepiece.model"))
    vocabulary = list(zip(processor.id_to_piece(ids), processor.get_score(ids), strict=True))
    has_bytes = any(processor.is_byte(ids))
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=processor.unk_id(), byte_fallback=has_bytes))
    tokenizer.normalizer = make_normalizer(charsmap, NormalizerFlags())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme)
    joins = decoders.Metaspace(replacement="▁", prepend_scheme=scheme)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), joins]) if has_bytes else joins
    return tokenizer


def make_normalizer(charsmap: bytes, flags: NormalizerFlags) -> normalizers.Normalizer:
    """The normalizer of RemBERT's fast tokenizer; `charsmap` is the model's character map, empty for none.

    Source: `RemBertConverter.normalizer` of transformers 4.x, which has the step of `remove_space` always.
    """
    steps: list[normalizers.Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if flags.remove_space:
        steps.append(normalizers.Replace(tokenizers.Regex(" {2,}"), " "))
    if not flags.keep_accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if flags.do_lower_case:
        steps.append(normalizers.Lowercase())
    if charsmap:
        steps.append(normalizers.Precompiled(charsmap))
    return normalizers.Sequence(steps)


def read_normalizer(tokenizer: tokenizers.Tokenizer) -> tuple[bytes, NormalizerFlags]:
    """The character map (empty for none) and the flags that a tokenizer's normalizer stands for."""
    steps = _steps_of(tokenizer.normalizer)
    types = {step["type"] for step in steps}
    charsmap = next((step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled"), "")
    flags = NormalizerFlags(
        do_lower_case="Lowercase" in types,
        keep_accents="StripAccents" not in types,
        remove_space=any(step.get("pattern") == {"Regex": " {2,}"} for step in steps),
    )
    return base64.b64decode(charsmap), flags


def _steps_of(normalizer: normalizers.Normalizer | None) -> list[dict[str, Any]]:
    state = state_of(normalizer)
    return list(state.get("normalizers", [state] if state else []))
