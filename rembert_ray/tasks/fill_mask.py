"""`task: fill_mask`. What may stand in the place of each `[MASK]` of a text, or how likely a plain text is.

Output is that of Hugging Face's FillMaskPipeline in its form for several masks: one list of fills for each mask, in the
order of the text, also when there is only one. `sequence` is cut from the original text (`text.masks`) where the
pipeline decodes ids: normalization, special tokens and blanks of the original stay as they are. It is null in a row
whose sequences would take more than 65,536 characters: masks times fills times the text grow without bounds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from rembert_ray.engine.documents import Decodable, Documents, WindowOptions, window_texts
from rembert_ray.engine.narrowing import drop_empty_windows, keep_tokens, refuse_rows, sum_of_rows
from rembert_ray.engine.packing import Long
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.weight_map import MASKED_LM
from rembert_ray.ragged import as_items, as_lists, first_items, flat_values, splits
from rembert_ray.tasks import base
from rembert_ray.text.masks import Mask, fill_mask, find_mask
from rembert_ray.text.shown import Bar, Mark, Shown
from rembert_ray.tokenizers.auto import cached_tokenizer
from rembert_ray.tokenizers.word_pieces import describe_pieces, find_target

if TYPE_CHECKING:
    import torch

    from rembert_ray.engine.runner import Encoder, Engine, Head
    from rembert_ray.models.heads import ForMaskedLM
    from rembert_ray.storage.location import Location
    from rembert_ray.tokenizers.base import PretrainedTokenizer
    from rembert_ray.tokenizers.encoding import Encoding

# Each token that is scored costs a pass over its window: 4,096 in windows of 512 tokens are two million.
MAX_SCORED_TOKENS = 4096
UNREAD = " that is read (text.long_documents: truncate)"
MAX_SEQUENCE_CHARACTERS = 65_536
MAX_RENDERED = 3
# As RemBERT and RoBERTa write it; a tokenizer of another word is drawn without marks.
WRITTEN_MASK = re.compile(r"\[MASK\]|<mask>")
FILL = pa.struct(
    [
        pa.field("score", pa.float32(), nullable=False),
        pa.field("token", pa.int32(), nullable=False),
        pa.field("token_str", pa.string(), nullable=False),
        pa.field("sequence", pa.string()),
    ]
)
FILLS_OF_MASK = pa.list_(pa.field("element", FILL, nullable=False))
FILLS = pa.list_(pa.field("element", FILLS_OF_MASK, nullable=False))


class FillMaskParameters(base.Parameters):
    """The `head` section of `task: fill_mask`."""

    top_k: int = Field(default=5, ge=1, description="fills of each mask, the most probable first")
    targets: list[str] | None = Field(
        default=None,
        min_length=1,
        description="only these tokens are fills, with their probability among all tokens; a word that is no token "
        "stands for its first piece",
    )
    score: bool = Field(
        default=False,
        description="instead of fills the pseudo-log-likelihood of each text: every token is masked once, so a text of "
        f"n tokens costs n passes; texts of more than {MAX_SCORED_TOKENS:,} tokens are errors",
    )


class FillMask(base.Task):
    """Masked tokens, or pseudo-log-likelihoods."""

    name: ClassVar[str] = "fill_mask"
    model_head: ClassVar[str] = MASKED_LM
    Parameters: ClassVar[type[base.Parameters]] = FillMaskParameters
    parameters: FillMaskParameters

    def __init__(self, parameters: FillMaskParameters) -> None:
        super().__init__(parameters)
        self.folder: Location | None = None
        self.mask_id = -1
        self.target_ids: list[int] | None = None

    def take_tokenizer(self, folder: Location, tokenizer: PretrainedTokenizer) -> list[str]:
        """See `Task.take_tokenizer`. Warns of targets that are not scored as the words that they look like."""
        self.folder = folder
        self.mask_id = tokenizer.mask_token_id
        if self.parameters.targets is None:
            return []
        found = [find_target(target, tokenizer) for target in self.parameters.targets]
        self.target_ids = list(dict.fromkeys(token_id for token_id, _ in found if token_id is not None))
        return [warning for _, warning in found if warning]

    def faults(self, config: EncoderConfig) -> list[tuple[str, str, str]]:
        """See `Task.faults`."""
        own = self.parameters
        found = []
        if own.top_k > config.vocab_size:
            what = f"{own.top_k:,} is more than the vocabulary's {config.vocab_size:,} tokens"
            found.append(("top_k", what, "lower it"))
        if own.score and own.targets is not None:
            found.append(("targets", "score: true fills no masks", "take one of the two out"))
        if own.targets is not None and self.target_ids == []:
            found.append(("targets", "none of them has a token", "name words of the model's language"))
        return found

    def schema(self, config: EncoderConfig) -> pa.Schema:
        """`fills`, a list for each mask; with `score: true` `pll`, a natural logarithm, over `n_scored` tokens."""
        if self.parameters.score:
            return pa.schema([pa.field("pll", pa.float64()), pa.field("n_scored", pa.int32())])
        return pa.schema([pa.field("fills", FILLS)])

    def load_model(self, folder: Location, config: EncoderConfig, dtype: torch.dtype, device: torch.device) -> Any:
        """See `Task.load_model`. The head's product with the vocabulary is cut into slices."""
        from rembert_ray.engine.vocabulary import SlicedVocabulary

        model = super().load_model(folder, config, dtype, device)
        model.head = SlicedVocabulary(model.head)
        return model

    def bind(self, model: ForMaskedLM) -> tuple[Encoder, Head]:
        """See `Task.bind`. The vocabulary comes after the runner: see `engine`."""
        from rembert_ray.engine.masked_lm import KeptHidden

        return model.encoder, KeptHidden()

    def engine(self, model: Any, device: torch.device, batch_tokens: int | None) -> Engine:
        """See `Task.engine`."""
        from rembert_ray.engine.masked_lm import MaskFiller, PseudoLikelihood

        if self.parameters.score:
            return PseudoLikelihood(model.encoder, model.head, self.mask_id, device, batch_tokens)
        return MaskFiller(model.encoder, model.head, self.parameters.top_k, self.target_ids, device, batch_tokens)

    def encode(
        self, inputs: Mapping[str, list[Any]], tokenizer: PretrainedTokenizer, options: WindowOptions
    ) -> Documents:
        """See `Task.encode`. Kept are the masks; with `score: true` all tokens of the text that are no mask.

        Only windows that own a mask are computed; `n_tokens` counts the whole text all the same.
        """
        texts, is_score = inputs["text"], self.parameters.score
        encoding = tokenizer.encode_batch(texts, add_special_tokens=False, with_offsets=not is_score)
        whole = window_texts(
            replace(encoding, offsets=None),
            tokenizer.template,
            options,
            keeps_special_tokens=False,
            unk_id=tokenizer.unk_token_id,
        )
        documents = keep_tokens(whole, tokenizer.mask_token_id, is_id=not is_score)
        n_kept = sum_of_rows(np.diff(documents.windows.kept_splits), documents.n_windows)
        if is_score:
            costly = np.flatnonzero(n_kept > MAX_SCORED_TOKENS)
            return refuse_rows(documents, {int(row): _too_many(n_kept[row]) for row in costly})
        no_mask = f"no {tokenizer.mask_token} in the text"
        reasons = {int(row): no_mask + UNREAD * bool(whole.truncated[row]) for row in np.flatnonzero(n_kept == 0)}
        masks = _find_masks(texts, encoding, whole.n_tokens, tokenizer)
        return replace(refuse_rows(drop_empty_windows(documents), reasons), extras={"masks": masks})

    def features(self, rows: pa.Table) -> dict[str, pa.Array]:
        """See `Task.features`, of the best fill of each mask; or the mean log-likelihood of a token."""
        if self.parameters.score:
            n_scored = rows["n_scored"].combine_chunks()
            per_token = pc.divide(rows["pll"].combine_chunks(), pc.if_else(pc.greater(n_scored, 0), n_scored, None))
            return {"pll_per_token": per_token}
        masks = pc.list_flatten(rows["fills"].combine_chunks())
        best = pc.list_flatten(pc.list_slice(masks, 0, 1))
        return {"token": pc.struct_field(best, "token_str"), "score": pc.struct_field(best, "score")}

    def decode(self, rows: Decodable, config: EncoderConfig) -> dict[str, pa.Array]:
        """See `Task.decode`."""
        n_kept = sum_of_rows(rows.n_kept, rows.n_windows)
        if self.parameters.score:
            row = np.repeat(np.arange(len(n_kept)), n_kept)
            sums = np.bincount(row, rows.values["log_probability"], minlength=len(n_kept))
            return {"pll": pa.array(sums.astype(np.float64)), "n_scored": pa.array(n_kept.astype(np.int32))}
        assert self.folder is not None, "the task was not given the tokenizer's folder"
        tokens, scores = rows.values["token"], rows.values["score"]
        pieces = describe_pieces(np.unique(tokens), cached_tokenizer(self.folder))
        best = [[pieces[token] for token in of_mask] for of_mask in tokens.tolist()]
        words = [piece.text for of_mask in best for piece in of_mask]
        masks = iter(zip(flat_values(rows.extras["masks"]).tolist(), best, strict=True))
        sequences: list[str | None] = []
        for text, n_masks in zip(rows.inputs["text"], n_kept.tolist(), strict=True):
            is_short = n_masks * tokens.shape[1] * len(text) <= MAX_SEQUENCE_CHARACTERS
            for mask, filled in islice(masks, n_masks):
                sequences += [fill_mask(text, Mask(*mask), piece) if is_short else None for piece in filled]
        columns = [scores.reshape(-1), tokens.reshape(-1), words, sequences]
        types = [field.type for field in FILL]
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
        fills = pa.StructArray.from_arrays(arrays, fields=list(FILL))
        of_masks = pa.ListArray.from_arrays(
            pa.array(np.arange(len(tokens) + 1, dtype=np.int32) * tokens.shape[1]), fills, type=FILLS_OF_MASK
        )
        return {"fills": pa.ListArray.from_arrays(pa.array(splits(n_kept).astype(np.int32)), of_masks, type=FILLS)}

    def show(self, row: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> Shown:
        """See `Task.show`: the best tokens of each mask with bars; without the text, the one with a mask filled."""
        text = "" if inputs is None else inputs["text"]
        if self.parameters.score:
            perplexity = math.exp(min(-row["pll"] / max(row["n_scored"], 1), 700))
            total = ("pll", f"{row['pll']:.1f} over {row['n_scored']} tokens")
            return Shown(text=text).plus(total, ("pseudo-perplexity", f"{perplexity:.1f}"))
        masks = {f"mask {number}": fills for number, fills in enumerate(row["fills"], start=1)}
        bars = (Bar(fill["token_str"], fill["score"], mask) for mask, fills in masks.items() for fill in fills)
        places = (found.span() for found in WRITTEN_MASK.finditer(text))
        marks = (Mark(start, end, mask) for mask, (start, end) in zip(masks, places, strict=False))
        filled = row["fills"][0][0]["sequence"] if row["fills"] and row["fills"][0] else None
        return Shown(text=text or filled or "", marks=tuple(marks), bars=tuple(bars))

    def outcome(self, rows: pa.Table) -> base.Outcome:
        """See `Task.outcome`: the best token of each mask; of scored texts there is only the likelihood."""
        if self.parameters.score:
            return base.Outcome(None, rows["pll"].combine_chunks())
        masks = rows["fills"].combine_chunks()
        best = pc.list_slice(pc.list_flatten(masks), 0, 1)
        fills = pc.list_flatten(best)
        words = pc.binary_join(as_items(best, pc.struct_field(fills, "token_str")), "")
        scores = first_items(as_items(best, pc.struct_field(fills, "score")))
        return base.Outcome(pc.binary_join(as_items(masks, words), " | "), first_items(as_items(masks, scores)))

    def render(self, row: Mapping[str, Any]) -> str:
        """The text with its first mask filled, and the best fills of each mask; or the score."""
        if self.parameters.score:
            own = {"pll", "n_scored", "n_tokens", "n_windows", "truncated", "error"}
            kept = " ".join(f"{name}={value}" for name, value in row.items() if name not in own)
            perplexity = math.exp(-row["pll"] / max(row["n_scored"], 1))
            return f"{kept} {row['pll']:.1f} over {row['n_scored']} tokens, pseudo-perplexity {perplexity:.1f}"
        fills = row["fills"]
        tops = [
            ", ".join(f"{fill['token_str']!r} {fill['score']:.2f}" for fill in mask[:MAX_RENDERED]) for mask in fills
        ]
        return f"{fills[0][0]['sequence'] or '(long text)'} <- {' | '.join(tops)}"


def _too_many(n_tokens: int) -> str:
    """The error of a text that would cost too many passes."""
    return f"{n_tokens:,} tokens to score, at most {MAX_SCORED_TOKENS:,}: each costs a pass (head.score: true)"


def _find_masks(texts: list[str], encoding: Encoding, n_read: Long, tokenizer: PretrainedTokenizer) -> pa.Array:
    """For each row the `Mask`s among its first `n_read` tokens, as lists of three numbers."""
    assert encoding.offsets is not None
    starts = encoding.row_splits[:-1]
    place = np.flatnonzero(encoding.ids == tokenizer.mask_token_id)
    row = np.searchsorted(encoding.row_splits, place, side="right") - 1
    is_read = place - starts[row] < n_read[row]
    place, row = place[is_read], row[is_read]
    before = np.where(place > starts[row], encoding.offsets[place - 1, 1], 0)
    found = [
        find_mask(texts[index], end_before, start, end, tokenizer.mask_token)
        for index, end_before, (start, end) in zip(
            row.tolist(), before.tolist(), encoding.offsets[place].tolist(), strict=True
        )
    ]
    n_masks = np.bincount(row, minlength=len(texts))
    return as_lists(np.array(found, dtype=np.int32).reshape(-1, 3), splits(n_masks))
