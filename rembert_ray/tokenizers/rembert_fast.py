"""RemBERT's tokenizer on the `tokenizers` library, with the ids and offsets of transformers' `RemBertTokenizerFast`.

Prefer `RemBertTokenizer`: published checkpoints were trained with SentencePiece, and it is several times faster. This
class is for models that were trained with the fast one. It keeps the library's results where SentencePiece differs:

1. Quotes: ``` `` ``` and `''` become `"`. SentencePiece leaves them.
2. White space: runs of blanks become one, but each further tab, line end, no-break blank, U+200B or `▁` beside white
   space is a token `▁`, and so is white space at the end of a text or alone. SentencePiece drops all that.
3. Character map: the library looks up a grapheme of up to 5 bytes as a whole, a longer one by code points, which are
   then not composed: Bengali U+09C7 U+09BE, Hangul in jamo, a Cyrillic letter under two accents. There they are.
4. Equal scores: SentencePiece adds up scores in 32 bits over the whole text, the library in 64 bits over each word. Of
   two cuts with the same score either may win (`00` `000`, `000` `00`), and differences come with the text's length.
5. Pieces that no text has: SentencePiece never makes control, unused and unknown pieces out of text. Here `<s>` in a
   text is the piece `<s>`. So is `[MASK]` with `parse_special_tokens=False`, which protects nothing in this class.
6. Options: `keep_accents=False` and `remove_space=False` act here only.
7. Offsets: a word's first token covers the blank before the word ("a b": 0-1, 1-3), there it does not (0-1, 2-3).

Texts whose ids differ, with a vocabulary of 250,300: XQuAD 130 of 5,720 (2); UDHR paragraphs 210 of 26,643 (1, 2, 3),
whole documents 20 of 294 (1 to 4); naughty strings 11 of 515 (1, 2); treebank sentences 0 of 5,500.

Three things are not as in transformers 5.23: a bare SentencePiece model gets its [CLS] and [SEP], the unknown piece may
have any id, and a `tokenizer.json` keeps its normalizer whatever flags were saved beside it. Two are not as in 4.x: a
bare SentencePiece model keeps case and accents, as in 5.23 (the class of 4.x had other defaults than RemBERT's), and
its control pieces are no special tokens unless they have a role.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, replace
from typing import Any, Unpack

from tokenizers import processors

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.storage.location import Location, Place, as_location, exists
from rembert_ray.tokenizers import tokenizer_files
from rembert_ray.tokenizers.backend import TOKENIZER_FILE, BackendTokenizer, read_tokenizer
from rembert_ray.tokenizers.base import TokenizerOptions
from rembert_ray.tokenizers.rembert import RemBertTokenizer
from rembert_ray.tokenizers.template import Template
from rembert_ray.tokenizers.unigram import NormalizerFlags, from_sentencepiece, make_normalizer, read_normalizer


class RemBertTokenizerFast(BackendTokenizer):
    """Unigram with RemBERT's special tokens: `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`.

    `tokenizer_file` is the path or fsspec URL of a `tokenizer.json`, `vocab_file` that of a SentencePiece model, which
    is converted; where both are given the first is used. Special tokens that they lack get ids after the
    vocabulary, as in `RemBertTokenizer`. `do_lower_case`, `keep_accents` and `remove_space` act here: they are steps of
    the normalizer. None leaves what the file has; a SentencePiece model stands for False, True and True.

    Raises `UnusableError` when a file is missing or holds something else, `ValueError` when none is given.
    """

    default_roles = RemBertTokenizer.default_roles
    config_keys = tuple(asdict(NormalizerFlags()))

    def __init__(
        self,
        vocab_file: Place | None = None,
        *,
        tokenizer_file: Place | None = None,
        do_lower_case: bool | None = None,
        keep_accents: bool | None = None,
        remove_space: bool | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        self.vocab_file = None if vocab_file is None else str(as_location(vocab_file))
        if tokenizer_file is not None:
            backend = read_tokenizer(as_location(tokenizer_file), "Unigram")
        elif self.vocab_file is not None:
            backend = from_sentencepiece(tokenizer_files.read_model(Location(self.vocab_file)), self.vocab_file)
        else:
            raise ValueError("give vocab_file (a sentencepiece.model) or tokenizer_file (a tokenizer.json)")
        charsmap, found = read_normalizer(backend)
        given = {"do_lower_case": do_lower_case, "keep_accents": keep_accents, "remove_space": remove_space}
        flags = replace(found, **{name: flag for name, flag in given.items() if flag is not None})
        if flags != found:
            backend.normalizer = make_normalizer(charsmap, flags)
        self.do_lower_case, self.keep_accents, self.remove_space = astuple(flags)
        super().__init__(backend, **options)

    @property
    def template(self) -> Template:
        """`[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`; B and what follows it is of type 1."""
        return Template((self.cls_token_id,), (self.sep_token_id,), (self.sep_token_id,), 1)

    def _fit_post_processor(self) -> None:
        cls, sep = self.cls_token, self.sep_token
        self.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=[cls, "$A", sep],
            pair=[cls, "$A", sep, "$B:1", f"{sep}:1"],
            special_tokens=[(cls, self.cls_token_id), (sep, self.sep_token_id)],
        )

    @classmethod
    def _find_vocabulary(cls, folder: Location) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if exists(folder.child(tokenizer_files.MODEL_FILE)):
            found["vocab_file"] = folder.child(tokenizer_files.MODEL_FILE)
        if exists(folder.child(TOKENIZER_FILE)):
            # Its normalizer is what the tokenizer was trained with. The flags saved beside it can be wrong: a fast
            # tokenizer of transformers 4.x that was made from a tokenizer.json alone saved the defaults of its class.
            found |= {"tokenizer_file": folder.child(TOKENIZER_FILE), **dict.fromkeys(cls.config_keys)}
        if not found:
            what = f"there is neither {TOKENIZER_FILE} nor {tokenizer_files.MODEL_FILE} here"
            raise UnusableError(Fault(str(folder), what, "copy one of them there"))
        return found

    def _vocabulary_files(self) -> dict[str, bytes]:
        if self.vocab_file is None:
            return {}
        return {tokenizer_files.MODEL_FILE: tokenizer_files.read_model(Location(self.vocab_file))}
