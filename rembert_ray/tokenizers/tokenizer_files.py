"""The files of a saved tokenizer: `sentencepiece.model` and the JSON files that name its special tokens.

It reads and writes a folder at any fsspec URL, and follows what transformers 4.x did with the JSON files; it
must not load a vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from rembert_ray.errors import Fault, StorageError, UnusableError
from rembert_ray.storage.filesystem import explain
from rembert_ray.storage.location import Location, read_bytes
from rembert_ray.tokenizers.special_tokens import ROLES, SpecialToken

MODEL_FILE = "sentencepiece.model"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
COMMON_KEYS = ("model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces")
"""Options that every tokenizer has; the names are those of `tokenizer_config.json`."""


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
    listed: dict[str, Any] = config.get("added_tokens_decoder") or {}
    if not listed:
        config.update(read_json(folder.child(SPECIAL_TOKENS_FILE)))
    options: dict[str, Any] = {}
    for role in ROLES:
        if config.get(role) is not None:
            options[role] = _parse_token(config[role], config_file, role)
    for key in (*keys, *COMMON_KEYS):
        if config.get(key) is not None:
            options[key] = config[key]
    extra = config.get("additional_special_tokens") or config.get("extra_special_tokens") or []
    extra_tokens = list(extra.values()) if isinstance(extra, dict) else extra
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
    try:
        if folder.is_local:
            Path(folder.path).mkdir(parents=True, exist_ok=True)
        for place, content in places.items():
            folder.filesystem.pipe_file(place.path, content)
    except (OSError, BotoCoreError, ClientError) as error:
        raise StorageError(str(explain(str(folder), error))) from error
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
        return read_bytes(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, BotoCoreError, ClientError) as error:
        raise UnusableError(explain(str(file), error)) from error


def read_json(file: Location) -> dict[str, Any]:
    """A JSON object from a file, empty when there is no such file. Raises `UnusableError` for anything else."""
    content = read_if_exists(file)
    if content is None:
        return {}
    try:
        parsed = json.loads(content)
    except ValueError as error:
        raise UnusableError(Fault(str(file), f"is not JSON: {error}", "save the tokenizer again")) from error
    if not isinstance(parsed, dict):
        raise UnusableError(Fault(str(file), "is not a JSON object", "save the tokenizer again"))
    return parsed


def _parse_token(value: Any, file: Location, key: str, token_id: str | None = None) -> str | SpecialToken:
    """A token in either form of transformers: a string, or an object with `content` and its flags."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise UnusableError(Fault(str(file), f"{key} is neither a string nor an object with `content`", "correct it"))
    if value.get("single_word"):
        raise UnusableError(Fault(str(file), f"{key}: single_word is not supported", "set it to false"))
    return SpecialToken(
        content=value["content"],
        lstrip=bool(value.get("lstrip", False)),
        rstrip=bool(value.get("rstrip", False)),
        id=None if token_id is None else int(token_id),
        is_special=bool(value.get("special", True)),
    )
