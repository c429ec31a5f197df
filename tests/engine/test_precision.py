"""The words of `precision`, and every fast layer against the plain float32 model."""

from __future__ import annotations

import copy
import typing
from functools import cache, partial

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from rembert_ray.engine import float8, int8
from rembert_ray.engine.compiled import CompiledLayer
from rembert_ray.engine.precision import (
    AUTO,
    DTYPES,
    precision_fault,
    precision_warnings,
    processor_flags,
    resolve_precision,
    use_fast_layers,
    weights_dtype,
)
from rembert_ray.engine.prepacked import PrepackedLayer, prepack_linears
from rembert_ray.errors import UnusableError
from rembert_ray.manifest import Manifest
from rembert_ray.models.config import RemBertConfig, RobertaPreLayerNormConfig
from rembert_ray.models.layout import PackedLayout, PaddedLayout
from rembert_ray.models.narrowed_layout import NarrowedLayout
from rembert_ray.models.rembert import RemBertModel
from rembert_ray.models.roberta_prelayernorm import RobertaPreLayerNormModel

SIZES = {"vocab_size": 90, "num_attention_heads": 4, "num_hidden_layers": 3, "initializer_range": 0.1}
CPU = torch.device("cpu")
LENGTHS = [40, 17, 17, 9, 1]
FAMILIES = {"post-norm": RemBertModel, "pre-norm": RobertaPreLayerNormModel}


def make_encoder(family: str = "post-norm", **values: object) -> torch.nn.Module:
    torch.manual_seed(7)
    sizes = SIZES | {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 64} | values
    if family == "post-norm":
        config = RemBertConfig(**sizes, input_embedding_size=32)
    else:
        config = RobertaPreLayerNormConfig(**sizes)
    return FAMILIES[family](config, add_pooling_layer=False).encoder.eval()


@torch.inference_mode()
def encode(encoder: torch.nn.Module, lengths: list[int] = LENGTHS) -> torch.Tensor:
    ids = torch.randint(5, 90, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1))[: sum(lengths)]
    return encoder.encode(ids, torch.zeros_like(ids), PackedLayout.from_lengths(lengths, ids.device)).float()


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def converted(encoder: torch.nn.Module, precision: str) -> torch.nn.Module:
    model = copy.deepcopy(encoder).to(weights_dtype(precision))
    use_fast_layers(model, precision)
    return model


def test_the_manifest_has_the_words_of_the_engine():
    assert typing.get_args(Manifest.model_fields["precision"].annotation) == (AUTO, *DTYPES)


def test_auto_is_decided_by_the_manifest_alone():
    assert (resolve_precision("auto", 0), resolve_precision("auto", 0.5)) == ("float32", "bfloat16")
    assert all(resolve_precision(word, gpus) == word for word in DTYPES for gpus in (0, 1))


def test_float8_is_refused_without_a_gpu_and_for_odd_sizes():
    config = RemBertConfig()
    assert precision_fault("float8", 0, config)[0] == "float8 products need a GPU, and resources.gpus_per_actor is 0"
    assert precision_fault("float8", 0, None) is not None
    assert precision_fault("float8", 1, config) is None
    odd = RemBertConfig(hidden_size=36, num_attention_heads=2, intermediate_size=100)
    assert "hidden_size is 36 and intermediate_size is 100" in precision_fault("float8", 1, odd)[0]
    assert all(precision_fault(word, 0, odd) is None for word in DTYPES if word != "float8")
    assert all(precision_fault(word, 1, odd) is None for word in DTYPES if word not in ("float8", "int8"))


def test_int8_is_refused_on_a_gpu():
    config = RemBertConfig()
    assert "int8 products are for CPUs" in precision_fault("int8", 1, config)[0]
    assert precision_fault("int8", 0, config) is None


def test_what_is_slow_on_a_cpu_is_said():
    [warning] = precision_warnings("bfloat16", 0, {"avx2", "avx512f"})
    assert "no bfloat16 products" in warning
    [warning] = precision_warnings("float16", 0, {"avx512_bf16"})
    assert "several times slower" in warning
    assert not precision_warnings("bfloat16", 0, {"avx512f", "avx512_bf16"})
    [warning] = precision_warnings("int8", 0, {"avx512f"})
    assert "no avx512_vnni" in warning
    assert not precision_warnings("int8", 0, {"avx512_vnni"})
    assert not precision_warnings("float32", 0, set())
    assert not any(precision_warnings(word, 1, set()) for word in DTYPES)


def test_flags_are_those_that_linux_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("rembert_ray.engine.precision.PROCESSOR", tmp_path / "cpuinfo")
    assert processor_flags() == frozenset()
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nflags\t\t: fpu avx512f\n")
    assert processor_flags() == {"fpu", "avx2", "avx512f"}
    (tmp_path / "cpuinfo").write_text("Features\t: asimd bf16\n")
    assert processor_flags() == {"asimd", "bf16"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new"])
def test_prepacked_bfloat16_is_as_near_to_float32_as_plain_bfloat16(family, hidden_act):
    encoder = make_encoder(family, hidden_act=hidden_act)
    exact = encode(encoder)
    plain = copy.deepcopy(encoder).bfloat16()
    prepacked = copy.deepcopy(plain)
    if not prepack_linears(prepacked):
        pytest.skip("this torch or processor has no bfloat16 in oneDNN")
    assert isinstance(prepacked.layers[0], PrepackedLayer)
    assert 0 < error(encode(prepacked), exact) < 1.1 * error(encode(plain), exact) < 0.05


def test_float16_is_left_as_it_is_on_a_cpu():
    encoder = make_encoder()
    exact = encode(encoder)
    half = encoder.half()
    assert not prepack_linears(half)
    assert error(encode(half), exact) < 0.005


def test_quantized_rows_are_within_the_formats_error_and_do_not_know_each_other():
    x = torch.randn(9, 64) * 10.0 ** torch.arange(-4, 5)[:, None]
    values, scale = float8.quantize_rows(x)
    assert (values.dtype, scale.shape) == (torch.float8_e4m3fn, (9, 1))
    # Three bits of mantissa: half a step is a sixteenth; below the smallest normal number steps stay as they are.
    bound = x.abs() / 16 + scale * 2**-10
    assert ((values.float() * scale - x).abs() <= bound).all()
    alone, own_scale = float8.quantize_rows(x[3:4])
    assert torch.equal(alone.float(), values[3:4].float())
    assert torch.equal(own_scale, scale[3:4])


def test_a_row_of_zeros_stays_zero_and_the_largest_number_is_no_nan():
    values, scale = float8.quantize_rows(torch.tensor([[0.0, 0.0], [3e38, -3e38]]))
    assert torch.equal((values.float() * scale)[0], torch.zeros(2))
    assert torch.isfinite(values.float()).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new"])
def test_float8_layers_are_near_to_float32(family, hidden_act):
    encoder = make_encoder(family, hidden_act=hidden_act)
    quantized = converted(encoder, "float8")
    assert quantized.layers[0].attention.qkv.weight.dtype == torch.float8_e4m3fn
    assert quantized.layers[0].attention.output.weight.dtype == torch.bfloat16
    exact, found = encode(encoder), encode(quantized)
    assert 0 < error(found, exact) < 0.08
    for ours, theirs in zip(found.split(LENGTHS), exact.split(LENGTHS), strict=True):
        assert torch.cosine_similarity(ours.mean(0), theirs.mean(0), dim=0) > 0.995


def test_a_float8_layer_takes_padded_batches_and_narrowed_ones():
    layer = converted(make_encoder(), "float8").layers[0]
    hidden, packed = torch.randn(10, 64).bfloat16(), PackedLayout.from_lengths([5, 5], CPU)
    rows = torch.tensor([0, 5])
    with torch.inference_mode():
        flat = layer(hidden, packed)
        padded = layer(hidden.unflatten(0, (2, 5)), PaddedLayout(None))
        narrowed = layer(hidden, NarrowedLayout.of(packed, [5, 5], rows, [1, 1]), rows)
    assert error(padded.flatten(0, 1).float(), flat.float()) < 0.02
    assert error(narrowed.float(), flat[rows].float()) < 0.02


def test_a_row_of_a_float8_product_does_not_know_the_others():
    torch.manual_seed(0)
    linear = float8.Float8Linear(torch.nn.Linear(64, 128).bfloat16())
    rows = torch.randn(40, 64).bfloat16()
    with torch.inference_mode():
        assert error(linear(rows[:3]).float(), linear(rows)[:3].float()) < 1e-3


def test_quantization_is_compiled_into_the_layers_body_once_for_all_layers():
    torch._dynamo.reset()
    counter = CompileCounter()
    encoder = converted(make_encoder(), "float8")
    compile_once = cache(partial(torch.compile, dynamic=True, fullgraph=True, backend=counter))
    for n_tokens, plain in zip((20, 30, 40), encoder.layers, strict=True):
        hidden, layout = torch.randn(n_tokens, 64).bfloat16(), PackedLayout.from_lengths([n_tokens], CPU)
        with torch.inference_mode():
            found = CompiledLayer(plain, compile_once)(hidden, layout)
            assert error(found.float(), plain(hidden, layout).float()) < 0.02
    assert counter.frame_count == 1


has_int8 = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="needs a processor with VNNI")


@pytest.mark.parametrize("shift", [-3.0, 0.0])
def test_uint8_rows_are_within_half_a_step(shift):
    torch.manual_seed(0)
    x = torch.cat([(torch.randn(8, 64) + shift) * 10.0 ** torch.arange(-4, 4)[:, None], torch.zeros(1, 64)])
    values, scale = int8.quantize_rows(x)
    assert (values.dtype, scale.shape) == (torch.uint8, (9, 1))
    assert (((values.float() - int8.ZERO_POINT) * scale - x).abs() <= 0.501 * scale).all()


@has_int8
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new"])
def test_int8_layers_are_near_to_float32(family, hidden_act):
    encoder = make_encoder(family, hidden_act=hidden_act)
    exact, found = encode(encoder), encode(converted(encoder, "int8"))
    assert 0 < error(found, exact) < 0.03
    for ours, theirs in zip(found.split(LENGTHS), exact.split(LENGTHS), strict=True):
        assert torch.cosine_similarity(ours.mean(0), theirs.mean(0), dim=0) > 0.999


@has_int8
@torch.inference_mode()
def test_a_row_of_an_int8_product_has_the_same_bits_whatever_the_others():
    torch.manual_seed(0)
    linear = int8.Int8Linear(torch.nn.Linear(1152, 3456))
    rows = torch.randn(70, 1152) * torch.rand(70, 1) * 5
    together = linear(rows)
    for first, last in [(0, 1), (3, 5), (0, 17), (20, 69)]:
        assert torch.equal(linear(rows[first:last]), together[first:last])
    assert torch.equal(linear(rows.view(7, 10, 1152)).view(70, -1), together)


@has_int8
def test_a_number_that_is_none_stays_none_in_its_row():
    linear = int8.Int8Linear(torch.nn.Linear(16, 8))
    rows = torch.randn(3, 16)
    rows[1, 4], rows[2, 5] = torch.nan, torch.inf
    with torch.inference_mode():
        found = linear(rows)
    assert found[0].isfinite().all()
    assert not found[1:].isfinite().any()


def test_int8_is_refused_where_sums_would_overflow(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(UnusableError, match="AVX-512 VNNI"):
        int8.quantize_layers(make_encoder())
