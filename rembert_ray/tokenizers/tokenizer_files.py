"""The files of a saved tokenizer: `sentencepiece.model` and the JSON files that name its special tokens.

It reads and writes a folder at any fsspec URL, and follows what transformers 4.x did with the JSON files; it
must not load a vocabulary.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from rembert_ray.errors import Fault, UnusableError
from rembert_ray.storage.filesystem import explain, storage_errors
from rembert_ray.storage.json_file import parse_json_object
from rembert_ray.storage.location import Location, read_bytes
from rembert_ray.storage.put import put_replacing
from rembert_ray.tokenizers.special_tokens import ROLES, SpecialToken

MODEL_FILE = "sentencepiece.model"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
COMMON_KEYS = ("model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces")
"""Options that every tokenizer has; the names are those of `tokenizer_config.json`."""
MAX_VOCABULARY_BYTES = 128 * 2**20
MAX_ADDED_TOKENS = 10_000
LONGEST_TOKEN = 1_000
TOKEN_ID = re.compile(r"[0-9]{1,9}")


def read_model(file: Location) -> bytes:
    """The bytes of a SentencePiece model.

    Raises `UnusableError` when there is no such file or it may not be read, `StorageError` when the storage does
    not answer.
    """
    content = read_if_exists(file)
    if content is None:
        fix = f"give the folder that holds {MODEL_FILE}, or copy the file there"
        raise UnusableError(Fault(str(file), "there is no SentencePiece model here", fix))
    return content


def read_options(folder: Location, keys: Iterable[str]) -> dict[str, Any]:
    """Constructor arguments of a tokenizer from the JSON files of its folder; empty when there are none.

    `keys` are the options that the class has of its own. As in transformers 4.x, `special_tokens_map.json` adds to and
    overrides `tokenizer_config.json`, unless the latter lists its tokens by id (`added_tokens_decoder`), when it alone
    counts.

    Raises `UnusableError` for a file that is no JSON object or that asks for what is not supported.
    """
    config_file = folder.child(CONFIG_FILE)
    config = read_json(config_file)
    listed = config.get("added_tokens_decoder") or {}
    if not isinstance(listed, dict):
        raise UnusableError(Fault(str(config_file), "added_tokens_decoder is no object", "save the tokenizer again"))
    if not listed:
        config.update(read_json(folder.child(SPECIAL_TOKENS_FILE)))
    options: dict[str, Any] = {}
    for role in ROLES:
        if config.get(role) is not None:
            options[role] = _parse_token(config[role], config_file, role)
    for key in (*keys, *COMMON_KEYS):
        if config.get(key) is not None:
            options[key] = _check_option(key, config[key], config_file)
    extra = config.get("additional_special_tokens") or config.get("extra_special_tokens") or []
    extra_tokens = list(extra.values()) if isinstance(extra, dict) else extra
    if not isinstance(extra_tokens, list) or len(extra_tokens) + len(listed) > MAX_ADDED_TOKENS:
        what = f"the added tokens are no list of at most {MAX_ADDED_TOKENS:,}"
        raise UnusableError(Fault(str(config_file), what, "save the tokenizer again"))
    options["additional_special_tokens"] = [
        _parse_token(token, config_file, "additional_special_tokens") for token in extra_tokens
    ]
    options["added_tokens"] = [
        _parse_token(token, config_file, f"added_tokens_decoder.{token_id}", token_id)
        for token_id, token in listed.items()
    ]
    return options


def write_files(folder: Location, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Write files by name and return where they are. The folder is made if missing.

    Raises `StorageError` when the folder cannot be written.
    """
    places = {folder.child(name): content for name, content in files.items()}
    for place, content in places.items():
        put_replacing(place, content)
    return tuple(map(str, places))


def write_config(folder: Location, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Write `tokenizer_config.json`. Raises as `write_files`."""
    text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    return write_files(folder, {CONFIG_FILE: text.encode()})


def read_if_exists(file: Location) -> bytes | None:
    """The content of a file, None when there is no such file.

    Raises `UnusableError` when it may not be read, `StorageError` when the storage does not answer.
    """
    try:
        return read_bytes(file, most_bytes=MAX_VOCABULARY_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except storage_errors() as error:
        raise UnusableError(explain(str(file), error)) from error


def read_json(file: Location) -> dict[str, Any]:
    """A JSON object from a file, empty when there is no such file. Raises `UnusableError` for anything else."""
    content = read_if_exists(file)
    if content is None:
        return {}
    try:
        return parse_json_object(content)
    except ValueError as error:
        raise UnusableError(Fault(str(file), f"is not a JSON object: {error}", "save the tokenizer again")) from error


def _check_option(key: str, value: Any, file: Location) -> Any:
    """The value of an option, which must be of the kind that transformers writes."""
    if key == "model_max_length":
        is_right, wanted = isinstance(value, int | float) and not isinstance(value, bool) and value > 0, "a number"
    elif key.endswith("_side"):
        is_right, wanted = value in ("left", "right"), "left or right"
    else:
        is_right, wanted = isinstance(value, bool), "true or false"
    if not is_right:
        raise UnusableError(Fault(str(file), f"{key} is {reprlib.repr(value)}, not {wanted}", "correct it"))
    return value


def _parse_token(value: Any, file: Location, key: str, token_id: str | None = None) -> str | SpecialToken:
    """A token in either form of transformers: a string, or an object with `content` and its flags."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise UnusableError(Fault(str(file), f"{key} is neither a string nor an object with `content`", "correct it"))
    if len(content) > LONGEST_TOKEN:
        what = f"{key} has {len(content):,} characters, the most is {LONGEST_TOKEN:,}"
        raise UnusableError(Fault(str(file), what, "correct it"))
    if token_id is not None and not TOKEN_ID.fullmatch(token_id):
        raise UnusableError(Fault(str(file), f"{key}: its id is not a number", "correct it"))
    if isinstance(value, str) and token_id is None:
        return value
    if not isinstance(value, dict):
        raise UnusableError(Fault(str(file), f"{key} is not an object with `content`", "correct it"))
    if value.get("single_word"):
        raise UnusableError(Fault(str(file), f"{key}: single_word is not supported", "set it to false"))
    return SpecialToken(
        content=content,
        lstrip=bool(value.get("lstrip", False)),
        rstrip=bool(value.get("rstrip", False)),
        id=None if token_id is None else int(token_id),
        is_special=bool(value.get("special", True)),
    )
