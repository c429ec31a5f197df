"""What imports what: planning needs neither torch nor ray, one file imports ray.data, layers look one way only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rembert_ray"
FILES = sorted(PACKAGE.rglob("*.py"))
# A module may import from its own layer and from those before it.
LAYERS = [
    {"errors", "watchdog"},
    {"storage", "text", "tokenizers", "models", "manifest", "manifest_source", "schema_faults", "fingerprint"}
    | {"footers", "column_check", "sharding", "plan", "plan_table", "ragged"},
    {"engine"},
    {"tasks"},
    {"stages"},
    {"task_check"},
    {"check", "catalog", "convert", "ray_faults"},
    {"cluster", "dispatch", "job_spec", "pipeline", "report", "stop_signals", "verify", "waves", "evaluation"},
    {"comparison", "starter"},
    {"job", "trial"},
    {"retry"},
    {"cli", "entry"},
    {"__main__"},
]


def layer_of(module: str) -> int:
    part = module.removeprefix("rembert_ray.").split(".")[0]
    return next(index for index, names in enumerate(LAYERS) if part in names)


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_layers_look_one_way_and_transformers_is_never_imported(path):
    names = imports_of(path)
    assert not any(name.split(".")[0] == "transformers" for name in names)
    assert path.name == "pipeline.py" or not any(name.startswith("ray.data") for name in names)
    if path == PACKAGE / "__init__.py":
        return
    own = layer_of(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    ours = {n for n in names if n.startswith("rembert_ray.") and n != "rembert_ray.__version__"}
    above = [name for name in ours if layer_of(name) > own]
    assert above == []


@pytest.mark.parametrize(
    "module",
    [
        "manifest",
        "plan",
        "fingerprint",
        "check",
        "catalog",
        "report.verbs",
        "report.page",
        "report.closing",
        "report.plan_view",
        "report.watch",
        "comparison.compare",
        "starter.first_manifest",
        "task_check",
        "report.inspection",
        "retry",
        "trial",
        "report.shown_terminal",
        "comparison.view",
        "cli",
        "evaluation.evaluate",
        "tasks.tag",
        "tasks.embed",
    ],
)
def test_planning_and_looking_import_neither_torch_nor_ray(module):
    code = (
        f"import sys, rembert_ray.{module}; "
        "heavy = {'torch', 'ray', 'transformers', 'pandas'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_module_says_what_it_is_for():
    without = [str(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert without == []


def test_the_readme_maps_every_file():
    readme = (PACKAGE.parent / "README.md").read_text()
    files = [path for path in FILES if path.name != "__init__.py"]
    assert [str(p) for p in files if f"]({p.relative_to(PACKAGE.parent)})" not in readme] == []
