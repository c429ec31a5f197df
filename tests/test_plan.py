"""The plan: every row exactly once, the same for the same input, frozen once, refused when something changed."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rembert_ray import plan_table
from rembert_ray.errors import UnusableError
from rembert_ray.fingerprint import Fingerprint
from rembert_ray.plan import InputNeeds, Plan, describe, format_bytes, freeze_plan, load_plan, make_plan, resume_plan
from rembert_ray.sharding import cut_row_groups
from rembert_ray.storage.listing import expand_input, input_root
from rembert_ray.storage.location import locate
from tests.storage import bombs

FINGERPRINT = Fingerprint({"task": "tag", "head.aggregation": "simple", "text.overlap": 64})
ROW_GROUPS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 5000)), max_size=30)
LIMITS = st.tuples(st.integers(1, 400), st.integers(1, 6000))


def needs(max_rows: int = 10_000, max_bytes: int = 2**26, **changes: object) -> InputNeeds:
    values: dict[str, object] = {"columns": {"text": "text"}, "keep": ["id"], **changes}
    return InputNeeds(max_rows=max_rows, max_bytes=max_bytes, where=lambda key: f"m.yaml {key}", **values)  # type: ignore[arg-type]


def write(path: Path, n_rows: int, row_group_size: int | None = None, **columns: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": pa.array(range(n_rows), pa.int64()), "text": [f"text {i}" for i in range(n_rows)]})
    for name, values in columns.items():
        table = table.drop([name]) if name in table.column_names else table
        table = table if values is None else table.append_column(name, values)
    pq.write_table(table, path, row_group_size=row_group_size)


def plan_of(path: Path | str, asked: InputNeeds | None = None, fingerprint: Fingerprint = FINGERPRINT) -> Plan:
    return make_plan(expand_input(str(path)), input_root(str(path)), asked or needs(), fingerprint, {"task": "tag"})


def faults_of(path: Path | str, asked: InputNeeds | None = None) -> list[str]:
    with pytest.raises(UnusableError) as caught:
        plan_of(path, asked)
    return [str(fault) for fault in caught.value.faults]


def changes_of(output: Path, plan: Plan) -> list[str]:
    with pytest.raises(UnusableError) as caught:
        freeze_plan(locate(str(output)), plan)
    return [str(fault) for fault in caught.value.faults]


# Cutting row groups


@settings(deadline=None)
@given(ROW_GROUPS, LIMITS)
def test_every_row_is_in_exactly_one_range_in_order(groups: list[tuple[int, int]], limits: tuple[int, int]) -> None:
    rows, sizes = [g[0] for g in groups], [g[1] for g in groups]
    ranges = cut_row_groups(rows, sizes, max_rows=limits[0], max_bytes=limits[1])
    position = 0
    for cut in ranges:
        assert cut.row_start == position
        assert cut.n_rows > 0
        position += cut.n_rows
    assert position == sum(rows)
    assert ranges == cut_row_groups(rows, sizes, max_rows=limits[0], max_bytes=limits[1])


@settings(deadline=None)
@given(ROW_GROUPS, LIMITS)
def test_limits_hold_and_bytes_add_up(groups: list[tuple[int, int]], limits: tuple[int, int]) -> None:
    rows, sizes = [g[0] for g in groups], [g[1] for g in groups]
    ranges = cut_row_groups(rows, sizes, max_rows=limits[0], max_bytes=limits[1])
    assert all(cut.n_rows <= limits[0] for cut in ranges)
    assert all(cut.n_bytes <= limits[1] or cut.n_rows == 1 for cut in ranges)
    assert sum(cut.n_bytes for cut in ranges) == sum(n_bytes for n_rows, n_bytes in groups if n_rows)


@settings(deadline=None)
@given(ROW_GROUPS, LIMITS)
def test_only_row_groups_over_a_limit_are_cut_inside(groups: list[tuple[int, int]], limits: tuple[int, int]) -> None:
    ranges = cut_row_groups([g[0] for g in groups], [g[1] for g in groups], max_rows=limits[0], max_bytes=limits[1])
    cuts = {cut.row_start for cut in ranges}
    start = 0
    for n_rows, n_bytes in groups:
        inside = {cut for cut in cuts if start < cut < start + n_rows}
        if n_rows <= limits[0] and n_bytes <= limits[1]:
            assert not inside
        elif n_rows > 1:
            # A group that is split shares no range with its neighbours.
            assert inside
            assert start in cuts
            lengths = np.diff(sorted({start, start + n_rows} | inside))
            assert lengths.max() - lengths.min() <= 1
        start += n_rows


def test_neighbours_are_merged_up_to_the_limits() -> None:
    cut = cut_row_groups([4, 4, 4, 25, 0, 3], [1] * 6, max_rows=10, max_bytes=100)
    assert [tuple(r)[:2] for r in cut] == [(0, 8), (8, 4), (12, 8), (20, 8), (28, 9), (37, 3)]
    by_bytes = cut_row_groups([4, 4, 4], [60, 60, 20], max_rows=100, max_bytes=100)
    assert [tuple(r) for r in by_bytes] == [(0, 4, 60), (4, 8, 80)]


# Plans of real files


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 25)), min_size=1, max_size=5),
    st.integers(1, 30),
)
def test_plan_covers_real_files(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, int]], max_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    for i, (n_rows, size) in enumerate(shapes):
        write(folder / f"{i:03}.parquet", n_rows, row_group_size=size)
    n_rows = sum(shape[0] for shape in shapes)
    if n_rows == 0:
        assert "without a row" in faults_of(folder)[0]
        return
    plan = plan_of(folder, needs(max_rows=max_rows))
    assert plan.n_rows == n_rows
    covered = [(s.url, row) for s in plan.iter_shards() for row in range(s.row_start, s.row_start + s.n_rows)]
    expected = [(str(folder / f"{i:03}.parquet"), row) for i, s in enumerate(shapes) for row in range(s[0])]
    assert covered == expected
    again = plan_of(folder, needs(max_rows=max_rows))
    assert again.plan_id == plan.plan_id
    assert again.to_bytes() == plan.to_bytes()


def test_plan_survives_storage(tmp_path: Path) -> None:
    write(tmp_path / "lang=de" / "a.parquet", 25, row_group_size=10)
    write(tmp_path / "lang=de" / "empty.parquet", 0)
    write(tmp_path / "lang=__HIVE_DEFAULT_PARTITION__" / "b.parquet", 5)
    plan = plan_of(tmp_path, needs(max_rows=10, keep=["lang", "id"]))
    stored = Plan.from_bytes(plan.to_bytes())
    assert stored.shards.equals(plan.shards)
    assert stored.files.equals(plan.files)
    assert stored.schema.equals(pa.schema([("lang", pa.string()), ("id", pa.int64())]))
    assert (stored.plan_id, stored.fingerprint, stored.record) == (plan.plan_id, plan.fingerprint, {"task": "tag"})
    assert list(stored.iter_shards()) == list(plan.iter_shards())
    assert [s.partition for s in stored.iter_shards()] == [
        {"lang": None},
        {"lang": "de"},
        {"lang": "de"},
        {"lang": "de"},
    ]
    assert sorted(stored.files["file_rows"].to_pylist()) == [0, 5, 25]


def test_shards_by_index(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 10, row_group_size=2)
    plan = plan_of(tmp_path, needs(max_rows=2))
    assert plan.shard(3).row_start == 6
    assert plan.shard(3).plan_id == plan.plan_id
    assert [s.index for s in plan.iter_shards(np.array([4, 1]))] == [4, 1]
    assert list(plan.iter_shards(np.array([], dtype=np.int64))) == []
    for wrong in (-1, 5):
        with pytest.raises(IndexError):
            plan.shard(wrong)
        with pytest.raises(IndexError):
            list(plan.iter_shards(np.array([0, wrong])))


def test_bytes_limit_counts_needed_columns_only(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    noise = pa.array(source.bytes(2000).hex() for _ in range(100))
    nested = pa.array([{"deep": [value]} for value in noise.to_pylist()])
    write(tmp_path / "a.parquet", 100, text_unused=noise, meta=nested)
    assert plan_of(tmp_path, needs(max_bytes=10_000)).n_shards == 1
    for name in ("text_unused", "meta"):
        assert plan_of(tmp_path, needs(max_bytes=10_000, keep=[name])).n_shards > 10


def test_plan_id_names_what_matters(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 10)
    first = plan_of(tmp_path)
    assert plan_of(tmp_path, needs(max_rows=5)).plan_id != first.plan_id
    assert plan_of(tmp_path, fingerprint=Fingerprint({"task": "embed"})).plan_id != first.plan_id
    write(tmp_path / "b.parquet", 0)
    assert plan_of(tmp_path).plan_id != first.plan_id


# What is refused before the start


TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_all_text_types_are_text(tmp_path: Path, kind: pa.DataType) -> None:
    write(tmp_path / "a.parquet", 3, text=pa.array(["a", "b", "c"]).cast(kind))
    assert plan_of(tmp_path).n_rows == 3


def test_other_types_are_no_text(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 2, text=pa.array([1, 2]))
    [fault] = faults_of(tmp_path)
    assert "a.parquet: column 'text' is int64, 'text' needs text (string)" in fault
    lists = needs(kinds={"text": "text_list"})
    assert "needs lists of text" in faults_of(tmp_path, lists)[0]
    write(tmp_path / "a.parquet", 2, text=pa.array([["x"], ["y", "z"]]))
    assert plan_of(tmp_path, lists).n_rows == 2


def test_column_that_no_file_has_is_one_fault_at_its_key(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.parquet", 2, text=None, txt=pa.array(["a", "b"]))
    found = faults_of(tmp_path, needs(keep=["idd"]))
    assert found == [
        "m.yaml input.columns.text: no column 'text' in any of 3 file(s) with rows (did you mean 'txt'?)",
        "m.yaml input.keep: no column 'idd' in any of 3 file(s) with rows (did you mean 'id'?)",
    ]


def spoil(folder: Path) -> None:
    """Files that cannot be used, each for another reason."""
    write(folder / "b.parquet", 2, text=None)
    write(folder / "c.parquet", 2, text=pa.array([1, 2]))
    (folder / "d.parquet").write_bytes(b"PAR1 this is no Parquet file PAR1")
    (folder / "e.parquet").write_bytes(b"")
    write(folder / "f.parquet", 2, id=None, text=None, other=pa.array(["x", "y"]))


def test_faults_of_all_files_come_together_where_none_is_left(tmp_path: Path) -> None:
    spoil(tmp_path)
    write(tmp_path / "empty.parquet", 0)
    found = faults_of(tmp_path)
    assert len(found) == 6
    assert "b.parquet: no column 'text'" in found[0]
    assert "c.parquet: column 'text' is int64" in found[1]
    assert "d.parquet: its footer cannot be used" in found[2]
    assert "remove the file" in found[2]
    assert "e.parquet: its footer cannot be used" in found[3]
    assert "f.parquet: no column 'text'" in found[4]
    assert "f.parquet: no column 'id'" in found[5]


def test_many_faults_are_counted_not_listed(tmp_path: Path) -> None:
    write(tmp_path / "other.parquet", 2, text=pa.array([1, 2]))
    for i in range(25):
        write(tmp_path / f"{i:02}.parquet", 2, text=None)
    (tmp_path / "z.parquet").write_bytes(b"")
    found = faults_of(tmp_path)
    assert len(found) == 21
    assert found[-1] == "m.yaml input.path: and 7 more faults like these (repair these first)"


# What is set aside


def test_files_that_cannot_be_used_are_set_aside_and_the_others_planned(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 2)
    write(tmp_path / "g.parquet", 3)
    good = plan_of(tmp_path)
    spoil(tmp_path)
    plan = plan_of(tmp_path)
    assert (plan.n_rows, plan.n_shards, plan.files.num_rows) == (5, 2, 7)
    assert [shard.url for shard in plan.iter_shards()] == [str(tmp_path / f"{name}.parquet") for name in "ag"]
    numbers, urls, reasons = zip(*plan.refused, strict=True)
    assert numbers == (1, 2, 3, 4, 5)
    assert urls == tuple(str(tmp_path / f"{name}.parquet") for name in "bcdef")
    assert reasons[0] == "no column 'text' (known: id)"
    assert reasons[1].startswith("column 'text' is int64, 'text' needs text (string)")
    assert "its footer cannot be used" in reasons[2]
    assert reasons[4] == "no column 'text' (known: other); no column 'id' (known: other)"
    stored = Plan.from_bytes(plan.to_bytes())
    assert stored.files.equals(plan.files)
    assert stored.refused == plan.refused
    assert plan.plan_id not in {good.plan_id, ""}
    assert good.refused == []
    shown = describe(plan)
    assert "refused     5 of 7 files, which are not in the output:" in shown
    assert f"            {tmp_path}/b.parquet: no column 'text'" in shown
    assert "refused" not in describe(good)
    for number in range(18):
        (tmp_path / f"h{number}.parquet").write_bytes(b"")
    assert "and 3 more: see `refused` in _rembert_ray/plan.parquet" in describe(plan_of(tmp_path))


def test_the_types_that_most_files_have_rule(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 2, id=pa.array(["x", "y"]))
    write(tmp_path / "b.parquet", 2)
    [(_, url, reason)] = plan_of(tmp_path).refused
    assert url == str(tmp_path / "b.parquet"), "of equally many, the first in the listing"
    assert f"column 'id' is int64 here, but string in 1 other file(s), such as {tmp_path}/a.parquet" in reason
    write(tmp_path / "c.parquet", 2)
    plan = plan_of(tmp_path)
    [(_, url, reason)] = plan.refused
    assert url == str(tmp_path / "a.parquet")
    assert f"column 'id' is string here, but int64 in 2 other file(s), such as {tmp_path}/b.parquet" in reason
    assert plan.schema == pa.schema([("id", pa.int64())])
    assert [shard.url for shard in plan.iter_shards()] == [str(tmp_path / "b.parquet"), str(tmp_path / "c.parquet")]


def test_no_mix_of_types_leaves_nothing(tmp_path: Path) -> None:
    """No file has the type that most have in every column; those of the first do."""
    columns = {"u": "1", "v": "1", "w": "1"}
    for name, odd in zip("abc", columns, strict=True):
        values = {key: pa.array([2]) if key == odd else pa.array(["1"]) for key in columns}
        write(tmp_path / f"{name}.parquet", 1, **values)
    plan = plan_of(tmp_path, needs(keep=["u", "v", "w"]))
    assert [shard.url for shard in plan.iter_shards()] == [str(tmp_path / "a.parquet")]
    assert len(plan.refused) == 2


def test_a_file_that_vanishes_or_changes_while_it_is_planned_is_set_aside(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.parquet", 2)
    files = expand_input(str(tmp_path))
    (tmp_path / "a.parquet").unlink()
    write(tmp_path / "b.parquet", 2, text=pa.array(["other", "words"]))
    plan = make_plan(files, input_root(str(tmp_path)), needs(), FINGERPRINT)
    assert [shard.url for shard in plan.iter_shards()] == [str(tmp_path / "c.parquet")]
    reasons = [reason for _, _, reason in plan.refused]
    assert "No such file" in reasons[0]
    assert "it changed" in reasons[1]


def test_a_footer_that_claims_more_rows_than_anybody_has_is_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 2)
    (tmp_path / "b.parquet").write_bytes(bombs.repeated_text(5, 10**15))
    plan = plan_of(tmp_path, needs(keep=[]))
    assert plan.n_rows == 2
    assert "it claims 1,000,000,000,000,000 rows" in plan.refused[0][2]


def test_a_shard_knows_the_file_that_was_planned(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 2)
    status = (tmp_path / "a.parquet").stat()
    assert plan_of(tmp_path).shard(0).planned == (status.st_size, str(status.st_mtime_ns))


def test_columns_of_a_file_without_rows_do_not_matter(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 2)
    pq.write_table(pa.table({}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"text": pa.nulls(0), "id": pa.nulls(0)}), tmp_path / "c.parquet")
    plan = plan_of(tmp_path)
    assert (plan.n_rows, plan.files.num_rows) == (2, 3)


def test_partition_key_is_kept_but_not_read(tmp_path: Path) -> None:
    write(tmp_path / "lang=de" / "a.parquet", 2)
    assert plan_of(tmp_path, needs(keep=["lang"])).shard(0).partition == {"lang": "de"}
    assert "Hive partition key" in faults_of(tmp_path, needs(columns={"text": "lang"}))[0]
    # A column of the file wins over its path, as the file is what was measured.
    write(tmp_path / "lang=de" / "a.parquet", 2, lang=pa.array(["x", "y"]))
    assert plan_of(tmp_path, needs(keep=["lang"])).shard(0).partition == {}


def with_extension(name: str, column: str, path: Path) -> None:
    """A file whose column has an extension type that is registered nowhere here, as Ray's are not without Ray."""
    table = pa.table({"text": ["a"], "kept": ["b"], "other": ["c"]})
    fields = [
        field.with_metadata({"ARROW:extension:name": name}) if field.name == column else field for field in table.schema
    ]
    pq.write_table(table.cast(pa.schema(fields)), path)


@pytest.mark.parametrize("column", ["text", "kept"])
def test_extension_types_in_columns_that_are_used_are_refused(tmp_path: Path, column: str) -> None:
    asked = needs(keep=["kept"])
    with_extension("other.tensor", column, tmp_path / "a.parquet")
    assert f"column '{column}' has the extension type other.tensor" in faults_of(tmp_path, asked)[0]
    with_extension("other.tensor", "other", tmp_path / "b.parquet")
    assert [url for _, url, _ in plan_of(tmp_path, asked).refused] == [str(tmp_path / "a.parquet")]
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * 2, pa.binary(16)))
    write(tmp_path / "b.parquet", 2, kept=uuids)
    assert any("extension type arrow.uuid" in fault for fault in faults_of(tmp_path, asked))


class TypeOfADeserializerThatFails(pa.ExtensionType):
    def __init__(self) -> None:
        super().__init__(pa.string(), "test.fails")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> pa.ExtensionType:
        raise AttributeError("no such attribute")


def test_a_registered_type_that_cannot_read_its_metadata_is_a_fault_of_the_file(tmp_path: Path) -> None:
    with_extension("test.fails", "other", tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", 2)
    pa.register_extension_type(TypeOfADeserializerThatFails())
    try:
        assert [url for _, url, _ in plan_of(tmp_path).refused] == [str(tmp_path / "a.parquet")]
    finally:
        pa.unregister_extension_type("test.fails")


@pytest.fixture
def without_rays_types() -> Iterator[None]:
    """A job plans before it imports Ray Data, which registers its types; here an earlier test may have done so."""
    types: list[pa.ExtensionType] = []
    if "ray.data" in sys.modules:
        from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType
        from ray.data._internal.tensor_extensions.arrow import ArrowTensorType

        types = [ArrowTensorType((0,), pa.int64()), ArrowPythonObjectType()]
    for kind in types:
        pa.unregister_extension_type(kind.extension_name)
    yield
    for kind in types:
        pa.register_extension_type(kind)


@pytest.mark.usefixtures("without_rays_types")
@pytest.mark.parametrize("name", ["ray.data.arrow_tensor", "ray.data.arrow_pickled_object"])
def test_rays_own_types_are_refused_also_where_nobody_reads_them(tmp_path: Path, name: str) -> None:
    with_extension(name, "other", tmp_path / "a.parquet")
    assert f"Ray's own type {name} in column 'other'" in faults_of(tmp_path, needs(keep=[]))[0]
    deep = pa.field("x", pa.string(), metadata={"ARROW:extension:name": name})
    column = pa.array([[{"x": "v"}]], pa.list_(pa.struct([pa.field("x", pa.string())])))
    table = pa.table({"text": ["a"], "other": column.cast(pa.list_(pa.struct([deep])))})
    pq.write_table(table, tmp_path / "a.parquet")
    assert f"Ray's own type {name} in column 'other'" in faults_of(tmp_path, needs(keep=[]))[0]


def test_repeated_column_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array([1])], names=["text", "text", "id"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "more than one column 'text'" in faults_of(tmp_path)[0]


# Freezing


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write(tmp_path / "in" / "a.parquet", 10)
    write(tmp_path / "in" / "b.parquet", 5)
    return tmp_path / "in"


def test_frozen_plan_rules(corpus: Path, tmp_path: Path) -> None:
    output = locate(str(tmp_path / "out"))
    assert load_plan(output) is None
    assert resume_plan(output, FINGERPRINT, expand_input(str(corpus))) is None
    first = freeze_plan(output, plan_of(corpus))
    # Same fingerprint and files, other shards: what is stored counts.
    second = freeze_plan(output, plan_of(corpus, needs(max_rows=3)))
    assert second.plan_id == first.plan_id
    assert second.n_shards == 2
    resumed = resume_plan(output, FINGERPRINT, expand_input(str(corpus)))
    assert resumed is not None
    assert resumed.plan_id == first.plan_id
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["plan.parquet"]


def test_changed_fingerprint_is_refused_side_by_side(corpus: Path, tmp_path: Path) -> None:
    freeze_plan(locate(str(tmp_path / "out")), plan_of(corpus))
    changed = Fingerprint({"task": "tag", "head.aggregation": "first", "text.max_tokens": None})
    found = changes_of(tmp_path / "out", plan_of(corpus, fingerprint=changed))
    assert "3 change(s)" in found[0]
    assert "choose a new output.path" in found[0]
    assert found[1:] == [
        "head.aggregation: 'simple' -> 'first'",
        "text.max_tokens: (not there) -> None",
        "text.overlap: 64 -> (not there)",
    ]


def test_changed_files_are_refused_side_by_side(corpus: Path, tmp_path: Path) -> None:
    before = plan_of(corpus)
    freeze_plan(locate(str(tmp_path / "out")), before)
    size, version = before.file_states()[str(corpus / "a.parquet")]
    write(corpus / "a.parquet", 11)
    (corpus / "b.parquet").rename(corpus / "c.parquet")
    found = changes_of(tmp_path / "out", plan_of(corpus))
    assert len(found) == 4
    assert f"input file {corpus}/a.parquet: {size:,} bytes, version {version} -> " in found[1]
    assert found[2].startswith(f"input file {corpus}/b.parquet: ")
    assert found[2].endswith(" -> (not there)")
    assert found[3].startswith(f"input file {corpus}/c.parquet: (not there) -> ")
    with pytest.raises(UnusableError):
        resume_plan(locate(str(tmp_path / "out")), FINGERPRINT, expand_input(str(corpus)))


def test_many_changes_are_counted(corpus: Path, tmp_path: Path) -> None:
    freeze_plan(locate(str(tmp_path / "out")), plan_of(corpus))
    for i in range(30):
        write(corpus / f"new{i}.parquet", 1)
    found = changes_of(tmp_path / "out", plan_of(corpus))
    assert len(found) == 22
    assert "and 10 more changes" in found[-1]


def damaged_plans(plan: Plan) -> Sequence[bytes]:
    good = plan.to_bytes()
    other = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), other)
    flipped = bytearray(good)
    flipped[40] ^= 0xFF
    return [b"", good[:-20], good[: len(good) // 2], other.getvalue(), bytes(flipped)]


def test_damaged_plan_is_refused(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "out" / "_rembert_ray" / "plan.parquet"
    path.parent.mkdir(parents=True)
    for damaged in damaged_plans(plan_of(corpus)):
        path.write_bytes(damaged)
        with pytest.raises(UnusableError, match=r"plan\.parquet: .*choose a new output\.path"):
            load_plan(locate(str(tmp_path / "out")))


def test_a_plan_of_another_format_is_refused(corpus: Path) -> None:
    before = Plan.from_bytes(plan_of(corpus).to_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_table, "PLAN_FORMAT", 1)
        old = before.to_bytes()
    with pytest.raises(UnusableError, match=r"a plan of format 1, this version writes 2 .*choose a new output"):
        Plan.from_bytes(old)


def test_no_flipped_bit_goes_unseen(corpus: Path) -> None:
    plan = plan_of(corpus)
    good = plan.to_bytes()
    n_refused = 0
    for position in range(0, len(good), 11):
        damaged = bytearray(good)
        damaged[position] ^= 1 << position % 8
        try:
            stored = Plan.from_bytes(bytes(damaged))
        except UnusableError:
            n_refused += 1
            continue
        # The bit was in something that no reader looks at, such as a statistic.
        assert stored.to_bytes() == good
    assert n_refused > 100


def test_describe(corpus: Path) -> None:
    text = describe(plan_of(corpus))
    assert "15 rows in 2 shards" in text
    assert "5 to 10 rows, median 7" in text
    assert "id (int64)" in text
    assert FINGERPRINT.digest in text
    assert [format_bytes(n) for n in (0, 1023, 1536, 64 * 2**20)] == ["0 B", "1023 B", "1.5 KiB", "64.0 MiB"]
