"""The record and the page at the end of a run, and whether the result may be released.

A report informs: that it cannot be made must not end a night. Only a gate that the manifest asks for is waited on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from rembert_ray.check import CheckedJob
from rembert_ray.errors import Fault, RembertRayError, UnusableError
from rembert_ray.plan import Plan, require_plan
from rembert_ray.report.drift import FAIL, WARN
from rembert_ray.report.observation import Observation, observe
from rembert_ray.report.page import page_place, write_page
from rembert_ray.report.run_record import RunRecord, read_record, record_place, write_record
from rembert_ray.report.run_report import Against, close_record, record_now, record_of
from rembert_ray.report.sample_view import task_of
from rembert_ray.storage.location import locate

log = logging.getLogger(__name__)


def check_against(checked: CheckedJob) -> Iterator[str]:
    """Warnings about the run to compare with, before anything starts.

    Raises:
        UnusableError: a gate has nothing to compare with, or the earlier record is damaged.
    """
    drift = checked.manifest.drift
    where = checked.manifest.where("drift.against")
    if drift.against is not None and read_record(locate(drift.against), where) is None:
        what = f"{drift.against} has no record of a run (_rembert_ray/run.json)"
        if drift.gate:
            fix = f"`rembert-ray report {drift.against}` makes one; for the first run set drift.gate=false"
            raise UnusableError(Fault(where, what, fix))
        yield f"{where}: {what}: drift is not looked at"


@dataclass
class Closing:
    """One end of a run: look at the output, say whether it is released, write the report."""

    checked: CheckedJob
    plan: Plan
    record: RunRecord | None = None
    seen: Observation | None = None
    against: Against | None = None
    trouble: str = ""

    @classmethod
    def look(cls, checked: CheckedJob, plan: Plan) -> Closing:
        """Look at what is there.

        Raises:
            RembertRayError: that was not possible, and the manifest has a gate.
        """
        closing = cls(checked, plan)
        drift = checked.manifest.drift
        try:
            if drift.against is not None:
                where = checked.manifest.where("drift.against")
                closing.against = Against.read(drift.against, drift.warn, drift.fail, where)
            closing.seen = observe(checked.output, plan)
            closing.record = record_of(
                checked.output, plan, checked.task, closing.seen, against=closing.against, warnings=checked.warnings
            )
        except RembertRayError as error:
            if drift.gate:
                raise
            closing.trouble = str(error)
        except Exception as error:
            if drift.gate:
                raise
            log.exception("the output could not be looked at")
            closing.trouble = f"{type(error).__name__}: {error}"
        return closing

    @property
    def is_withheld(self) -> bool:
        """Whether the manifest's gate is closed: also when the run to compare with has lost its record meanwhile."""
        drift = self.record.drift if self.record else None
        return self.checked.manifest.drift.gate and (drift is None or drift.level == "fail")

    @property
    def drift(self) -> dict[str, float]:
        """Feature -> its population stability index against the earlier run."""
        drift = self.record.drift if self.record else None
        return {} if drift is None else {feature.feature: feature.psi for feature in drift.features}

    def write(self, state: str, exit_code: int) -> None:
        """Write record and page; what goes wrong is in `trouble`."""
        if self.record is None or self.seen is None:
            return
        try:
            self.record = close_record(self.record, state, exit_code)
            write_record(self.checked.output, self.record)
            write_page(self.checked.output, self.record, self.seen, self.checked.task, self.against)
        except RembertRayError as error:
            self.trouble = str(error)
        except Exception as error:
            log.exception("the report could not be made")
            self.trouble = f"{type(error).__name__}: {error}"

    def lines(self) -> Iterator[str]:
        """For the summary."""
        if self.record is not None and self.record.drift is not None:
            yield f"drift       {self.record.drift.sentence}"
        if self.is_withheld:
            why = "" if self.drift else ", as there is nothing to compare with"
            yield f"withheld    there is no _SUCCESS: drift.gate is closed{why}"
        if self.trouble:
            yield f"note        there is no new report: {self.trouble}"
        elif self.record is not None:
            yield f"report      {page_place(self.checked.output)}"


def report_on(output: str, against: str | None = None) -> RunRecord:
    """Make record and page of an output anew, also while a run works on it.

    against: the output to compare with; default: that of the record that is there, else of the stored manifest.

    Raises:
        UnusableError: there is no such output, or the record to compare with is not there or damaged.
        StorageError: the store does not answer.
    """
    plan = require_plan(output)
    task = task_of(plan)
    place = locate(output)
    try:
        there = read_record(place, output)
    except UnusableError:
        there = None  # It is damaged, or of another version, and about to be replaced.
    drift = plan.record["manifest"].get("drift", {})
    named = against or (there.drift.against if there and there.drift else drift.get("against"))
    compared = None
    if named is not None:
        compared = Against.read(named, drift.get("warn", WARN), drift.get("fail", FAIL))
        if compared is None and against is not None:
            fix = f"`rembert-ray report {named}` makes one"
            raise UnusableError(Fault("--against", f"{named} has no record of a run", fix))
    record, seen = record_now(place, plan, task, compared)
    write_record(place, record)
    write_page(place, record, seen, task, compared)
    return record


def describe_report(record: RunRecord) -> Iterator[str]:
    """For a terminal: the outcome, the drift, and where the page is."""
    output = locate(record.output)
    yield f"output      {output}"
    yield f"outcome     {record.outcome.sentence}"
    if record.drift is not None:
        yield f"drift       {record.drift.sentence}"
    yield f"record      {record_place(output)}"
    yield f"report      {page_place(output)}"
