"""`AutoTokenizer`: the tokenizer that a model folder asks for.

It knows names, not tokenizers: a class is imported when it is chosen, so that a folder with a SentencePiece model never
imports the `tokenizers` library.
"""

from __future__ import annotations

import reprlib
from functools import lru_cache
from importlib import import_module
from typing import Any

from rembert_ray.errors import Fault, RembertRayError, UnusableError, nearest
from rembert_ray.storage.location import Location, Place, as_location, exists
from rembert_ray.tokenizers import tokenizer_files
from rembert_ray.tokenizers.base import PretrainedTokenizer

CLASSES = {
    "RemBertTokenizer": "rembert_ray.tokenizers.rembert",
    "RemBertTokenizerFast": "rembert_ray.tokenizers.rembert_fast",
    "RobertaTokenizer": "rembert_ray.tokenizers.roberta",
    "RobertaTokenizerFast": "rembert_ray.tokenizers.roberta",
}
"""Tokenizer classes and the modules that they are in."""
OF_MODEL_TYPE = {"rembert": "RemBertTokenizer", "roberta-prelayernorm": "RobertaTokenizer"}
"""The tokenizer class of each `model_type`."""
SAMPLES = ["A text, in words.", "", "日本語 e\u0301\n\tx", "x" * 200, "\x00\ufeff👩‍👩‍👧 [MASK]<mask>"]
"""What every tokenizer must take."""
GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""What transformers writes as `tokenizer_class` when it does not know the model."""


class AutoTokenizer:
    """Chooses a tokenizer class by a folder's files; never made itself."""

    @classmethod
    def from_pretrained(cls, location: Place, *, use_fast: bool | None = None, **options: Any) -> PretrainedTokenizer:
        """The tokenizer of a folder or of any fsspec URL of one; `options` go to its class.

        The class is `tokenizer_class` of `tokenizer_config.json`, else that of `model_type` of `config.json`. RemBERT
        has two, which `use_fast` True or False picks; None is the named one, where `RemBertTokenizer` (which is what
        transformers calls both) is the SentencePiece one if the folder has its model. RoBERTa has one.

        Raises `UnusableError` when the folder names no tokenizer that is known here, and as that class does.
        """
        folder = as_location(location)
        name = _named_class(folder)
        if name.startswith("RemBert"):
            name = "RemBertTokenizerFast" if _is_fast(folder, name, use_fast) else "RemBertTokenizer"
        tokenizer: PretrainedTokenizer = getattr(import_module(CLASSES[name]), name).from_pretrained(folder, **options)
        return tokenizer


def check_tokenizer(folder: Location) -> PretrainedTokenizer:
    """The tokenizer of a folder that somebody else made, tried out on a few texts.

    Raises `UnusableError` for whatever goes wrong: files that can be read may contradict each other.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.encode_batch(SAMPLES, with_offsets=True)
        tokenizer.decode(tokenizer.encode_batch(SAMPLES[:1]).ids)
    except RembertRayError:
        raise
    except Exception as error:
        raise UnusableError(_broken(folder, error)) from error
    except BaseException as error:
        # The `tokenizers` library is Rust, whose panics are no `Exception`.
        if type(error).__name__ != "PanicException":
            raise
        raise UnusableError(_broken(folder, error)) from None
    return tokenizer


def _broken(folder: Location, error: BaseException) -> Fault:
    what = f"its tokenizer cannot be used: {type(error).__name__}: {str(error)[:200]}"
    return Fault(str(folder), what, "copy the tokenizer's files again")


@lru_cache(maxsize=1)
def cached_tokenizer(folder: Location) -> PretrainedTokenizer:
    """The tokenizer of a folder, loaded once a process: shards are decoded by short calls."""
    return AutoTokenizer.from_pretrained(folder)


def _named_class(folder: Location) -> str:
    config_file = folder.child(tokenizer_files.CONFIG_FILE)
    named = tokenizer_files.read_json(config_file).get("tokenizer_class")
    if named is not None and named not in GENERIC:
        if not isinstance(named, str) or named not in CLASSES:
            what = f"tokenizer_class {reprlib.repr(named)} is not known here"
            raise UnusableError(Fault(str(config_file), what, nearest(str(named), CLASSES)))
        return named
    model_file = folder.child("config.json")
    model_type = tokenizer_files.read_json(model_file).get("model_type")
    if model_type is None:
        what = f"neither {tokenizer_files.CONFIG_FILE} nor config.json says which tokenizer this is"
        fix = f"set model_type in config.json to {' or '.join(sorted(OF_MODEL_TYPE))}"
        raise UnusableError(Fault(str(folder), what, fix))
    if not isinstance(model_type, str) or model_type not in OF_MODEL_TYPE:
        fix = nearest(str(model_type), OF_MODEL_TYPE)
        raise UnusableError(Fault(str(model_file), f"model_type {reprlib.repr(model_type)} is not known here", fix))
    return OF_MODEL_TYPE[model_type]


def _is_fast(folder: Location, name: str, use_fast: bool | None) -> bool:
    if use_fast is not None:
        return use_fast
    return name.endswith("Fast") or not exists(folder.child(tokenizer_files.MODEL_FILE))
