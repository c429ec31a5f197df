"""transformers, ONNX Runtime and OpenVINO as each runs a RemBERT checkpoint best: sums of hidden states of batches.

The latter two get the ONNX graph of the very module that transformers runs, each with the fusions of its optimizer.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.padded import Forward, Vectors

INPUTS = ["input_ids", "attention_mask"]
# The newest that torch's tracing exporter writes with every operator that the model needs.
OPSET = 17


class PooledPeer(nn.Module):
    """A model of transformers, and the sum over the tokens of its last hidden states, `[batch, hidden]`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Ids and mask `[batch, length]`; no mask where every token is text."""
        hidden: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if attention_mask is None:
            return hidden.sum(1)
        return (attention_mask[:, None].to(hidden.dtype) @ hidden)[:, 0]


def load_transformers(folder: Path) -> PooledPeer:
    """The checkpoint in float32; attention is eager, because transformers has no other for RemBERT."""
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # It warns of the pooler, which nobody here needs.
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    model: Any = transformers.RemBertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32)
    return PooledPeer(model).eval()


def transformers_forward(peer: nn.Module) -> Forward:
    """transformers in PyTorch."""
    return lambda ids, mask: cast(Vectors, peer(ids, None if bool(mask.all()) else mask).numpy())


def exported_forwards(peer: PooledPeer) -> dict[str, Forward]:
    """The programs that run an export, by name; exporting, optimizing and loading happen here, once."""
    found: dict[str, Forward] = {}
    with tempfile.TemporaryDirectory(prefix="rembert-ray-onnx-") as folder:
        for name, (packages, load) in EXPORT_PEERS.items():
            if missing := [package for package in packages if find_spec(package) is None]:
                print(f"{name} is left out, {' and '.join(missing)} being absent: pip install -e '.[bench]'")
                continue
            file = Path(folder) / "traced.onnx"
            if not file.exists():
                export_onnx(peer, file)
            found[name] = load(file, peer.model.config)
    return found


def export_onnx(peer: PooledPeer, file: Path) -> None:
    """Write the graph with any number of rows and tokens.

    By the tracing exporter, because ONNX Runtime's optimizer knows its graph: it fuses attention, the GELU with its
    bias, the norms with their residual sums and the embeddings. Of the graph of torch's newer exporter it fuses no
    attention.
    """
    ids = torch.arange(5, 21).view(2, 8)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    axes = {name: {0: "batch", 1: "length"} for name in INPUTS} | {"vectors": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            peer,
            (ids, mask),
            file,
            input_names=INPUTS,
            output_names=["vectors"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def load_onnxruntime(traced: Path, config: Any) -> Forward:
    """ONNX Runtime with its optimizer for BERT, on as many threads as torch has.

    Raises:
        SystemExit: attention is not fused, so that the peer would not get its due.
    """
    import onnxruntime
    from onnxruntime.transformers import optimizer

    graph = optimizer.optimize_model(
        str(traced), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=0
    )
    n_fused = graph.get_fused_operator_statistics()["Attention"]
    if n_fused != config.num_hidden_layers:
        raise SystemExit(f"ONNX Runtime's optimizer fused attention in {n_fused} of {config.num_hidden_layers} layers")
    fused = traced.with_name("fused.onnx")
    graph.save_model_to_file(str(fused))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(fused, options, providers=["CPUExecutionProvider"])

    def forward(ids: Tensor, mask: Tensor) -> Vectors:
        return cast(Vectors, session.run(None, dict(zip(INPUTS, (ids.numpy(), mask.numpy()), strict=True)))[0])

    return forward


def load_openvino(traced: Path, config: Any) -> Forward:
    """OpenVINO in float32 (by itself it takes bfloat16 where the processor has it), on as many threads as torch has."""
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(core.read_model(traced), "CPU", options).create_infer_request()

    def forward(ids: Tensor, mask: Tensor) -> Vectors:
        # A copy: the next call writes into the same memory.
        return np.array(request.infer([ids.numpy(), mask.numpy()])[0])

    return forward


# Packages that each needs, and what loads a traced graph.
EXPORT_PEERS: dict[str, tuple[tuple[str, ...], Callable[[Path, Any], Forward]]] = {
    "ONNX Runtime": (("onnx", "onnxruntime"), load_onnxruntime),
    "OpenVINO": (("onnx", "openvino"), load_openvino),
}
