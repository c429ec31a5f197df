"""RoBERTa's tokenizer: byte-level BPE, as RoBERTa-PreLayerNorm uses it.

The same as `RobertaTokenizer` of transformers 5.x, and as `RobertaTokenizerFast` of 4.x. Two things are settled where
those disagree: a mask token that is given as a string takes the white space on its left also when it comes from
`vocab.json` (4.x; 5.x does so only from a `tokenizer.json`), and pre-split words are allowed without `add_prefix_space`
(5.x; 4.x raises). One thing is better than in both: with `add_prefix_space`, the offsets of an overflowing row's first
token are trimmed like all others (the library takes the blank before it for the prefix and leaves it in).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Unpack

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.storage.location import Location, Place, as_location, exists
from rembert_ray.tokenizers import tokenizer_files
from rembert_ray.tokenizers.backend import TOKENIZER_FILE, BackendTokenizer, read_tokenizer, state_of
from rembert_ray.tokenizers.base import TokenizerOptions
from rembert_ray.tokenizers.special_tokens import Token
from rembert_ray.tokenizers.template import Template

VOCABULARY_FILE = "vocab.json"
MERGES_FILE = "merges.txt"


class RobertaTokenizer(BackendTokenizer):
    """Byte-level BPE: `<s> A </s>` and `<s> A </s></s> B </s>`, with type ids that are all 0.

    `tokenizer_file` is the path or fsspec URL of a `tokenizer.json`; else `vocab_file` and `merges_file` are those of
    `vocab.json` and `merges.txt`. `add_prefix_space`: the first word of a text is taken as if a blank stood before it.
    `trim_offsets`: white space that belongs to a token is not in its offsets. None leaves what the file has; without
    a `tokenizer.json` that is False and True.

    Raises `UnusableError` when a file is missing or holds something else, `ValueError` when none is given.
    """

    default_roles: ClassVar[Mapping[str, Token]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "mask_token": "<mask>",
    }
    model_input_names = ("input_ids", "attention_mask")
    config_keys = ("add_prefix_space", "trim_offsets")

    def __init__(
        self,
        vocab_file: Place | None = None,
        merges_file: Place | None = None,
        *,
        tokenizer_file: Place | None = None,
        add_prefix_space: bool | None = None,
        trim_offsets: bool | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        if tokenizer_file is not None:
            backend = read_tokenizer(as_location(tokenizer_file), "BPE")
        elif vocab_file is not None and merges_file is not None:
            places = map(as_location, (vocab_file, merges_file))
            backend = tokenizers.Tokenizer(_read_bpe(*places))
            backend.decoder = decoders.ByteLevel()
        else:
            raise ValueError(
                "give vocab_file and merges_file (vocab.json, merges.txt), or tokenizer_file (tokenizer.json)"
            )
        found = bool(state_of(backend.pre_tokenizer).get("add_prefix_space", False))
        self.add_prefix_space = found if add_prefix_space is None else add_prefix_space
        if backend.pre_tokenizer is None or self.add_prefix_space != found:
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=self.add_prefix_space)
        trims = bool(state_of(backend.post_processor).get("trim_offsets", True))
        self.trim_offsets = trims if trim_offsets is None else trim_offsets
        super().__init__(backend, **options)

    @property
    def template(self) -> Template:
        """`<s> A </s>` and `<s> A </s></s> B </s>`, all of type 0."""
        sep = self.sep_token_id
        return Template((self.cls_token_id,), (sep, sep), (sep,), 0)

    def _fit_post_processor(self) -> None:
        self.backend_tokenizer.post_processor = processors.RobertaProcessing(
            (self.sep_token, self.sep_token_id),
            (self.cls_token, self.cls_token_id),
            trim_offsets=self.trim_offsets,
            add_prefix_space=self.add_prefix_space,
        )

    @classmethod
    def _find_vocabulary(cls, folder: Location) -> dict[str, Any]:
        if exists(folder.child(TOKENIZER_FILE)):
            return {"tokenizer_file": folder.child(TOKENIZER_FILE)}
        if exists(folder.child(VOCABULARY_FILE)):
            return {"vocab_file": folder.child(VOCABULARY_FILE), "merges_file": folder.child(MERGES_FILE)}
        what = f"there is neither {TOKENIZER_FILE} nor {VOCABULARY_FILE} here"
        raise UnusableError(Fault(str(folder), what, f"copy {TOKENIZER_FILE}, or {VOCABULARY_FILE} and {MERGES_FILE}"))

    def _vocabulary_files(self) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            written = self.backend_tokenizer.model.save(folder)
            return {Path(path).name: Path(path).read_bytes() for path in written}


RobertaTokenizerFast = RobertaTokenizer
"""Its name in transformers 4.x, where `RobertaTokenizer` was another implementation of the same."""


def _read_bpe(vocab_file: Location, merges_file: Location) -> models.BPE:
    vocabulary = tokenizer_files.read_json(vocab_file)
    content = tokenizer_files.read_if_exists(merges_file)
    if not vocabulary or content is None:
        missing = merges_file if vocabulary else vocab_file
        fix = f"give {VOCABULARY_FILE} and {MERGES_FILE} of one tokenizer"
        raise UnusableError(Fault(str(missing), "there is no vocabulary here", fix))
    try:
        lines = content.decode().split("\n")
        # The first line may name the format's version, which is no merge.
        rules = [line.rstrip("\r") for line in lines[lines[0].startswith("#version") :]]
        merges = [(left, right) for left, right in (rule.split(" ") for rule in rules if rule)]
        return models.BPE(vocab=vocabulary, merges=merges)
    except Exception as error:  # The library raises bare `Exception`.
        what = f"these are no merges of {vocab_file}: {error}"
        raise UnusableError(Fault(str(merges_file), what, "copy both files of one tokenizer")) from error
