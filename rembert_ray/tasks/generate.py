"""`task: generate`. Continues each prompt with a causal language model.

Output is that of Hugging Face's TextGenerationPipeline (`generated_text`, with the prompt in front unless told
otherwise), with the number of new tokens and why the text ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from rembert_ray.engine.documents import Decodable, Documents, WindowOptions
from rembert_ray.engine.packing import WindowTable
from rembert_ray.models.config import EncoderConfig
from rembert_ray.models.generation_options import GenerationOptions
from rembert_ray.models.weight_map import CAUSAL_LM
from rembert_ray.ragged import ragged_arange, splits
from rembert_ray.tasks import base
from rembert_ray.text.shown import Mark, Shown
from rembert_ray.tokenizers.auto import cached_tokenizer

if TYPE_CHECKING:
    import torch

    from rembert_ray.engine.runner import Encoder, Engine, Head
    from rembert_ray.models.heads import ForCausalLM
    from rembert_ray.storage.location import Location
    from rembert_ray.tokenizers.base import PretrainedTokenizer

MAX_RENDERED = 200


class GenerateParameters(base.Parameters):
    """The `head` section of `task: generate`; names and defaults of Hugging Face's GenerationConfig."""

    max_new_tokens: int = Field(default=20, ge=1, description="where a text stops at the latest, in tokens")
    min_new_tokens: int = Field(default=0, ge=0, description="before so many tokens nothing stops a text")
    do_sample: bool = Field(default=False, description="draw the next token; false: take the most probable one")
    seed: int = Field(
        default=0,
        ge=0,
        description="for do_sample; each row draws by this number and its own prompt, whatever its batch and shard",
    )
    temperature: float = Field(default=1.0, gt=0, description="for do_sample: sharper below 1, flatter above")
    top_k: int = Field(default=50, ge=0, description="for do_sample: draw among the k most probable tokens; 0: all")
    top_p: float = Field(default=1.0, ge=0, le=1, description="for do_sample: draw among the fewest that add up to p")
    repetition_penalty: float = Field(default=1.0, gt=0, description="above 1: what was said is said less")
    num_beams: int = Field(default=1, ge=1, description="more than one: beam search")
    length_penalty: float = Field(default=1.0, description="for beams: above 0 prefers longer texts")
    early_stopping: bool | Literal["never"] = Field(default=False, description="for beams: when a row is finished")
    stop: list[str] = Field(default=[], description="tokens that end a text; empty: eos_token_id of the configuration")
    special_tokens: Literal["open", "none", "both"] = Field(
        default="open",
        description="what is put around a prompt: only what opens a text ([CLS], <s>), nothing (as the pipeline), "
        "or what closes it, too",
    )
    return_full_text: bool = Field(default=True, description="the prompt in front of what was generated")

    @model_validator(mode="after")
    def _check_options(self) -> GenerateParameters:
        self.options()
        return self

    def options(self, stop_ids: tuple[int, ...] | None = None) -> GenerationOptions:
        """As the model takes them.

        Raises:
            ValueError: options that contradict each other.
        """
        own = {"seed", "stop", "special_tokens", "return_full_text"}
        values = {name: value for name, value in self.model_dump().items() if name not in own}
        return GenerationOptions(**values, eos_token_id=stop_ids)


class Generate(base.Task):
    """Text generation."""

    name: ClassVar[str] = "generate"
    model_head: ClassVar[str] = CAUSAL_LM
    Parameters: ClassVar[type[base.Parameters]] = GenerateParameters
    input_forms: ClassVar[tuple[tuple[str, ...], ...]] = (("prompt",),)
    parameters: GenerateParameters

    def __init__(self, parameters: GenerateParameters) -> None:
        super().__init__(parameters)
        self.folder: Location | None = None
        self.stop_ids: tuple[int, ...] | None = None
        self.unknown_stops: list[str] = []

    def take_tokenizer(self, folder: Location, tokenizer: PretrainedTokenizer) -> list[str]:
        """See `Task.take_tokenizer`."""
        self.folder = folder
        if self.parameters.stop:
            ids = {token: tokenizer.convert_tokens_to_ids(token) for token in self.parameters.stop}
            self.unknown_stops = [token for token, token_id in ids.items() if token_id == tokenizer.unk_token_id]
            self.stop_ids = tuple(ids.values())
        return []

    def faults(self, config: EncoderConfig) -> list[tuple[str, str, str]]:
        """See `Task.faults`."""
        found = []
        if not config.is_decoder:
            found.append(("", "the model is no decoder", 'set "is_decoder": true in its config.json'))
        if self.parameters.max_new_tokens >= config.max_tokens:
            what = f"{self.parameters.max_new_tokens:,} leaves no room for a prompt in {config.max_tokens:,} positions"
            found.append(("max_new_tokens", what, "lower it"))
        found += [("stop", f"{token!r} is no token of the model", "name single tokens") for token in self.unknown_stops]
        return found

    def schema(self, config: EncoderConfig) -> pa.Schema:
        """`generated_text`, `n_new_tokens` (the one that ended it included) and `finish_reason`: stop or length."""
        return pa.schema(
            [
                pa.field("generated_text", pa.string()),
                pa.field("n_new_tokens", pa.int32()),
                pa.field("finish_reason", pa.string()),
            ]
        )

    def bind(self, model: ForCausalLM) -> tuple[Encoder, Head]:
        """See `Task.bind`: there is no single pass that a head could read."""
        raise TypeError("generate has an engine of its own")

    def engine(self, model: ForCausalLM, device: torch.device, batch_tokens: int | None) -> Engine:
        """See `Task.engine`; `batch_tokens` is what the cache of a running batch holds."""
        from rembert_ray.engine.decoding import Decoder

        return Decoder(model, self.parameters.options(self.stop_ids), self.parameters.seed, device, batch_tokens)

    def encode(
        self, inputs: Mapping[str, list[Any]], tokenizer: PretrainedTokenizer, options: WindowOptions
    ) -> Documents:
        """See `Task.encode`: one window a row. A prompt that is too long loses its beginning, or is an error."""
        template, wanted = tokenizer.template, self.parameters.special_tokens
        opening = () if wanted == "none" else template.opening
        closing = template.closing if wanted == "both" else ()
        bare = tokenizer.encode_batch(inputs["prompt"], add_special_tokens=False)
        n_special = len(opening) + len(closing)
        capacity = options.max_tokens - self.parameters.max_new_tokens - n_special
        n_all = bare.lengths
        n_read = np.minimum(n_all, max(capacity, 0))
        is_long = n_all > n_read
        errors = {int(row): "the prompt has no token" for row in np.flatnonzero(n_all + n_special == 0)}
        if options.long_documents != "truncate":
            errors |= {int(row): _too_long(int(n_all[row]), capacity) for row in np.flatnonzero(is_long)}
        good = np.array([row for row in range(len(n_all)) if row not in errors], dtype=np.int64)
        text = bare.windows(good, n_all[good] - n_read[good], n_read[good])
        lengths = text.lengths + n_special
        starts = splits(lengths)
        ids = np.zeros(starts[-1], np.int32)
        for place, token in enumerate(opening):
            ids[starts[:-1] + place] = token
        for place, token in enumerate(reversed(closing), start=1):
            ids[starts[1:] - place] = token
        ids[ragged_arange(starts[:-1] + len(opening), text.lengths)] = text.ids
        is_good = np.zeros(len(n_all), np.bool_)
        is_good[good] = True
        none = np.zeros(len(good), np.int64)
        last = np.full(len(n_all), -1, np.int32)
        last[good] = ids[starts[1:] - 1 - len(closing)]
        return Documents(
            windows=WindowTable.from_ranges(ids, starts, none, none),
            n_windows=is_good.astype(np.int64),
            n_tokens=np.where(is_good, n_read, 0),
            truncated=is_long & is_good,
            errors=errors,
            extras={"last_id": pa.array(last)},
        )

    def features(self, rows: pa.Table) -> dict[str, pa.Array]:
        """See `Task.features`."""
        names = ("finish_reason", "n_new_tokens")
        characters = pc.utf8_length(rows["generated_text"].combine_chunks())
        return {name: rows[name].combine_chunks() for name in names} | {"characters": characters}

    def show(self, row: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> Shown:
        """See `Task.show`: the continuation, marked behind its prompt."""
        text, prompt = row["generated_text"], "" if inputs is None else inputs["prompt"]
        if not self.parameters.return_full_text:
            text = prompt + text
        is_known = inputs is not None or not self.parameters.return_full_text
        marks = (Mark(len(prompt), len(text), "generated"),) if is_known else ()
        facts = {"new tokens": str(row["n_new_tokens"]), "finished": row["finish_reason"]}
        return Shown(text=text, marks=marks).plus(*facts.items())

    def outcome(self, rows: pa.Table) -> base.Outcome:
        """See `Task.outcome`: the text."""
        return base.Outcome(rows["generated_text"].combine_chunks())

    def decode(self, rows: Decodable, config: EncoderConfig) -> dict[str, pa.Array]:
        """See `Task.decode`."""
        assert self.folder is not None, "the task was not given the tokenizer's folder"
        tokenizer = cached_tokenizer(self.folder)
        texts, values, last_ids = [], rows.values, rows.extras["last_id"].to_pylist()
        found = zip(rows.inputs["prompt"], last_ids, values["ids"], values["n_new"], strict=True)
        for prompt, last_id, ids, n_new in found:
            # With the token before it: a piece that begins a word shows its space only after something.
            before = tokenizer.decode([last_id], skip_special_tokens=True)
            whole = tokenizer.decode([last_id, *ids[:n_new].tolist()], skip_special_tokens=True)
            texts.append((prompt if self.parameters.return_full_text else "") + whole[len(before) :])
        reasons = pa.DictionaryArray.from_arrays(
            pa.array(rows.values["stopped"].astype(np.int32)), pa.array(["length", "stop"])
        )
        return {
            "generated_text": pa.array(texts, pa.string()),
            "n_new_tokens": pa.array(rows.values["n_new"]),
            "finish_reason": reasons.cast(pa.string()),
        }

    def render(self, row: Mapping[str, Any]) -> str:
        """The text in one line, and why it ends."""
        text = " ".join(row["generated_text"].split())
        shown = text if len(text) <= MAX_RENDERED else text[:MAX_RENDERED] + "..."
        return f"{shown}  ({row['n_new_tokens']} new, {row['finish_reason']})"


def _too_long(n_tokens: int, capacity: int) -> str:
    room = f"{max(capacity, 0):,} fit beside max_new_tokens"
    return f"the prompt has {n_tokens:,} tokens, {room} (text.long_documents: truncate keeps its end)"
