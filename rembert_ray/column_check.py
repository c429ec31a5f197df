"""Which files of the input a job can use, and why not the others.

A file that cannot be used is set aside with its reasons, and the others go on; only if none is left are the faults of
all files together those of the job. This file reads nothing: it judges what `footers` found.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from rembert_ray.errors import Fault, nearest
from rembert_ray.footers import COLUMN_KINDS, FooterSummary, InputNeeds, extension_names
from rembert_ray.storage.listing import FileInfo

MAX_FAULTS = 20
LONGEST_REASON = 1000


@dataclass(frozen=True)
class _Finding:
    """One reason why a file cannot be used; `missing` is the column that it lacks, where that is the reason."""

    what: str
    fix: str
    missing: str | None = None

    def __str__(self) -> str:
        return f"{self.what} ({self.fix})"


class ColumnCheck:
    """Checks the files of a listing one after the other, in order, and says at the end which can be used.

    Remembers one number for each file, and the reasons of those that it refuses.
    """

    def __init__(self, needs: InputNeeds, files: Sequence[FileInfo]) -> None:
        self._needs = needs
        self._files = files
        self._n_added = 0
        self._n_with_rows = 0
        self._findings: dict[int, list[_Finding]] = {}
        # The types of the kept columns, all together -> the files that have them.
        self._files_of: dict[tuple[pa.DataType, ...], array[int]] = {}

    def add(self, summary: FooterSummary | Fault) -> None:
        """Check the next file. One without rows is fine whatever its columns: writers leave them out, or untyped."""
        number = self._n_added
        self._n_added += 1
        if isinstance(summary, Fault):
            self._findings[number] = [_Finding(summary.what, summary.fix)]
        elif any(summary.group_rows):
            self._n_with_rows += 1
            if findings := [*self._columns_amiss(summary), *self._types_amiss(summary)]:
                self._findings[number] = findings
            else:
                types = tuple(_kept_type(name, summary) for name in self._needs.keep)
                self._files_of.setdefault(types, array("q")).append(number)

    def refused(self) -> dict[int, str]:
        """Place of a file in the listing -> why it is set aside; once every file is added.

        The types of kept columns that most files have rule (of those with equally many, the first in the listing).
        """
        reasons = {n: "; ".join(map(str, found))[:LONGEST_REASON] for n, found in self._findings.items()}
        rule = self._rule()
        for types, numbers in self._files_of.items():
            if types != rule:
                reasons |= dict.fromkeys(numbers, self._difference(types, rule))
        return reasons

    def schema(self) -> pa.Schema:
        """The kept columns with their types, once every file is added. Partition keys are strings."""
        return pa.schema(list(zip(self._needs.keep, self._rule(), strict=True)))

    def faults(self) -> list[Fault]:
        """What is wrong with all files, where none can be used.

        At most `MAX_FAULTS` and a last one that counts the rest. A column that no file has is one fault at its manifest
        key, not one per file.
        """
        missing = [finding for found in self._findings.values() for finding in found if finding.missing is not None]
        counts = Counter(finding.missing for finding in missing)
        nowhere = {name for name, n_files in counts.items() if n_files == self._n_with_rows}
        first = {finding.missing: finding for finding in reversed(missing)}
        where = f"in any of {self._n_with_rows:,} file(s) with rows"
        faults = [
            Fault(self._place_of(name), f"no column {name!r} {where}", first[name].fix)
            for name in self._needs.names
            if name in nowhere
        ]
        n_faults = len(faults)
        for number, findings in self._findings.items():
            for finding in findings:
                if finding.missing not in nowhere:
                    n_faults += 1
                    if len(faults) < MAX_FAULTS:
                        faults.append(Fault(str(self._files[number].location), finding.what, finding.fix))
        if n_faults > len(faults):
            what = f"and {n_faults - len(faults):,} more faults like these"
            faults.append(Fault(self._needs.where("input.path"), what, "repair these first"))
        return faults

    def _rule(self) -> tuple[pa.DataType, ...]:
        if not self._files_of:
            return ()
        return max(self._files_of, key=lambda types: len(self._files_of[types]))

    def _difference(self, types: tuple[pa.DataType, ...], rule: tuple[pa.DataType, ...]) -> str:
        with_rule = self._files_of[rule]
        place = f"{len(with_rule):,} other file(s), such as {self._files[with_rule[0]].location}"
        differing = ", ".join(
            f"column {name!r} is {here} here, but {there}"
            for name, here, there in zip(self._needs.keep, types, rule, strict=True)
            if here != there
        )
        return f"{differing} in {place} (rewrite the files with one type, or drop it from input.keep)"

    def _place_of(self, column: str) -> str:
        for name, read in self._needs.columns.items():
            if read == column:
                return self._needs.where(f"input.columns.{name}")
        return self._needs.where("input.keep")

    def _columns_amiss(self, summary: FooterSummary) -> Iterator[_Finding]:
        """Columns that are not there, there twice, or unreadable for the workers."""
        for found in summary.ray_types:
            what = f"has Ray's own type {found}, which runs Ray's code in every worker that opens the file"
            yield _Finding(what, "store it as a plain type, also where no job reads it")
        for name in self._needs.names:
            is_constant = name in summary.partition and name in self._needs.keep
            is_read = name in self._needs.columns.values()
            if name in summary.repeated:
                yield _Finding(f"has more than one column {name!r}", "rewrite it with distinct names")
            elif name not in summary.fields and (is_read or not is_constant):
                fix = nearest(name, {*summary.known_names, *summary.partition})
                if name in summary.partition:
                    fix = "it is a Hive partition key, which can be kept but not read as text"
                yield _Finding(f"no column {name!r}", fix, missing=name)

    def _types_amiss(self, summary: FooterSummary) -> Iterator[_Finding]:
        """Columns of types that the task cannot read, or that other readers do not know."""
        for name, field in summary.fields.items():
            extension = next(extension_names(field), None)
            if extension is not None:
                what = f"column {name!r} has the extension type {extension}, which other readers do not know"
                yield _Finding(what, "store it as a plain type, or name another column")
        for name, column in self._needs.columns.items():
            found = summary.fields.get(column)
            is_right, wanted = COLUMN_KINDS[self._needs.kinds.get(name, "text")]
            if found is not None and not is_right(found.type):
                what = f"column {column!r} is {found.type}, {name!r} needs {wanted}"
                yield _Finding(what, f"name another column in input.columns.{name}, or convert it")


def _kept_type(name: str, summary: FooterSummary) -> pa.DataType:
    found = summary.fields.get(name)
    return pa.string() if found is None else found.type
