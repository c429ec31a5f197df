"""`rembert-ray schema`."""

from __future__ import annotations

import json


def schema() -> None:
    """Print the JSON schema of a manifest, for editors and checkers."""
    from rembert_ray.catalog import manifest_schema

    print(json.dumps(manifest_schema(), indent=2, ensure_ascii=False))
