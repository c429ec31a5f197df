"""What many tests share: a tiny random model folder, small corpora, and one Ray for the whole session."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.servers.s3"]

DATA = Path(__file__).parent / "data"
TOKENIZER = DATA / "tiny_multilingual_8k.model"
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "NOUN"]

# No test may fail because a machine is busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# No test may touch the user's ~/.ray/auth_token, nor depend on Ray's default for authentication.
os.environ["RAY_AUTH_MODE"] = "disabled"


def save_random_model(folder: Path, *, positions: int = 512, seed: int = 5) -> Path:
    """A random tagger (encoder and classifier) with the tiny vocabulary, in Hugging Face's format."""
    import torch

    from rembert_ray.models.config import RemBertConfig
    from rembert_ray.models.rembert import RemBertForTokenClassification
    from rembert_ray.tokenizers.rembert import RemBertTokenizer

    tokenizer = RemBertTokenizer(TOKENIZER)
    torch.manual_seed(seed)
    config = RemBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        input_embedding_size=16,
        output_embedding_size=16,
        intermediate_size=64,
        max_position_embeddings=positions,
        initializer_range=0.1,
        id2label=dict(enumerate(LABELS)),
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    model = RemBertForTokenClassification(config)
    # Random layers wash tokens out; a loud classifier makes labels differ from token to token all the same.
    torch.nn.init.normal_(model.head.classifier.weight, std=1.5)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """512 positions."""
    return save_random_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def short_model_folder(tmp_path_factory):
    """24 positions, so that most sentences are long documents."""
    return save_random_model(tmp_path_factory.mktemp("short_model"), positions=24)


def write_corpus(path: Path, texts: list[str | None], **options: object) -> Path:
    """A Parquet file with id and text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = [f"{path.stem}-{index}" for index in range(len(texts))]
    pq.write_table(pa.table({"id": ids, "text": pa.array(texts, pa.string())}), path, **options)
    return path


def write_manifest(folder: Path, text: str) -> str:
    """A manifest file."""
    path = folder / "job.yaml"
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="session")
def ray_session():
    """One local Ray; jobs that run in this process join it."""
    import ray

    with tempfile.TemporaryDirectory(prefix="rr-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
            object_store_memory=256 * 1024**2,
            runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent.parent)}},
        )
        yield
        ray.shutdown()
