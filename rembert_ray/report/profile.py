"""What the rows of an output look like, in numbers small enough to keep: labels counted, numbers as quantiles.

Two profiles can be compared without the rows that they were made of (see `drift`). Made from a sample of an output;
this file reads no storage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, Field

# Beyond these, labels are counted together: names of files or people are no labels, and would fill the record.
MOST_LABELS = 200
LONGEST_LABEL = 80
N_QUANTILES = 201


class Labels(BaseModel):
    """Texts, counted: the most frequent first; `others` is how many are not among `counts`."""

    kind: Literal["labels"] = "labels"
    n: int
    counts: dict[str, int]
    others: int = 0


class Numbers(BaseModel):
    """Numbers: their mean and the quantiles 0, 0.005, ... 1, which are values that occur."""

    kind: Literal["numbers"] = "numbers"
    n: int
    mean: float
    quantiles: list[float]

    def share_below(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of numbers that are at most as large as each edge, to half a percent."""
        at_most = np.searchsorted(np.array(self.quantiles), edges, side="right")
        return at_most / len(self.quantiles)


Profile = dict[str, Annotated[Labels | Numbers, Field(discriminator="kind")]]


def make_profile(features: Mapping[str, pa.Array]) -> Profile:
    """Profiles of arrays of text, of booleans and of numbers; nulls and what is not finite are left out."""
    found: Profile = {}
    for name, values in features.items():
        values = values.drop_null()
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            found[name] = _labels(values)
        elif pa.types.is_boolean(values.type):
            found[name] = _labels(pc.if_else(values, "yes", "no"))
        else:
            found[name] = _numbers(np.asarray(values.cast(pa.float64())))
    return found


def _labels(values: pa.Array) -> Labels:
    counted = Counter({entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()})
    # Equal counts in the order of the names, so that the record does not depend on the order of the rows.
    most = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:MOST_LABELS]
    counts: dict[str, int] = {}
    for label, count in most:
        short = label[:LONGEST_LABEL]
        counts[short] = counts.get(short, 0) + count
    return Labels(n=len(values), counts=counts, others=len(values) - sum(counts.values()))


def _numbers(values: NDArray[np.float64]) -> Numbers:
    values = values[np.isfinite(values)]
    if not len(values):
        return Numbers(n=0, mean=0.0, quantiles=[])
    quantiles = np.quantile(values, np.linspace(0, 1, N_QUANTILES), method="inverted_cdf")
    # Four digits: the noise of float32, in vectors of length 1 for instance, is no difference.
    rounded = [float(f"{value:.4g}") for value in quantiles]
    return Numbers(n=len(values), mean=float(f"{values.mean():.4g}"), quantiles=rounded)
