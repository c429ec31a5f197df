"""What `rembert-ray plan` shows of an estimate: a picture of token lengths, and numbers with how sure they are.

Readable at 80 columns, without colours, and in a log. It must not read anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from rembert_ray.errors import printable
from rembert_ray.plan import format_bytes
from rembert_ray.report.estimate import Estimate, histogram
from rembert_ray.report.progress import format_duration
from rembert_ray.report.speed import Interval
from rembert_ray.report.token_sample import PADDED_BATCH, TokenSample

BAR_WIDTH = 36
EIGHTHS = " ▏▎▍▌▋▊▉"
N_ERRORS_SHOWN = 5


def bar(share: float, width: int = BAR_WIDTH) -> str:
    """A bar of block characters for 0 to 1; what is not nothing is seen."""
    n_eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    return "█" * (n_eighths // 8) + EIGHTHS[n_eighths % 8].strip()


def draw_histogram(row_tokens: list[int]) -> Iterator[str]:
    """A line for each bin: tokens, bar, rows, share."""
    bins = histogram(row_tokens)
    most = max(n for _, _, n in bins)
    names = [f"{low:,}" if low == high else f"{low:,} - {high:,}" for low, high, _ in bins]
    width = max(map(len, names))
    for name, (_, _, n) in zip(names, bins, strict=True):
        yield f"  {name:>{width}} {bar(n / most):<{BAR_WIDTH}} {n:>6,} {n / len(row_tokens):>6.1%}"


def describe_estimate(estimate: Estimate) -> Iterator[str]:
    """Lines for the terminal."""
    plan, sample = estimate.plan, estimate.sample
    if estimate.n_shards < plan.n_shards:
        n_there = plan.n_shards - estimate.n_shards
        rest = f"{estimate.n_rows:,} rows, {format_bytes(estimate.plan_bytes)}" if estimate.n_shards else "nothing"
        yield f"left        {n_there:,} of {plan.n_shards:,} shards are there already; the rest: {rest}"
    if sample is None:
        return
    yield from (f"unread      {printable(reason)}" for reason in sample.unread[:N_ERRORS_SHOWN])
    if not sample.tokens:
        return
    yield from _describe_sample(sample, estimate.window_tokens)
    yield from _describe_cost(estimate, sample)


def _describe_sample(sample: TokenSample, window_tokens: int) -> Iterator[str]:
    n_rows, n_tokens, places = len(sample.row_tokens), max(sample.n_tokens, 1), len(sample.tokens)
    every = "every row" if sample.is_census else f"{n_rows:,} rows at {places} places of the corpus"
    cut = f"; {sample.n_places - places} more were not read" if places < sample.n_places else ""
    yield f"sample      {every}, tokenized as the job does it in {sample.elapsed_s:.1f} s{cut}"
    yield "lengths     rows by their tokens, special tokens not counted:"
    yield from draw_histogram(sample.row_tokens)
    longer = sum(n > 1 for n in sample.row_windows) / n_rows
    n_windows = sum(sample.row_windows)
    per_row = f"{n_windows / n_rows:.2f} a row"
    yield f"windows     {longer:.1%} of rows have more than one (of {window_tokens:,} tokens), {per_row}"
    # Equal windows of a shard are computed once, and a shard is larger than a place of the sample.
    least = "" if sample.is_census else "at least "
    yield f"repeated    {least}{1 - sample.n_computed / n_tokens:.1%} of tokens, which are computed once"
    padded = sample.n_padded / n_tokens
    yield f"padding     padded batches of {PADDED_BATCH} would compute {padded:.2f} times as many tokens"
    if sample.errors:
        n_errors = sum(sample.errors.values())
        yield f"errors      {n_errors / n_rows:.1%} of rows cannot be used and will have an error value:"
        for reason, n in sample.errors.most_common(N_ERRORS_SHOWN):
            yield f"            {n:,} of {n_rows:,}: {printable(reason)}"


def _describe_cost(estimate: Estimate, sample: TokenSample) -> Iterator[str]:
    hardware, speed = estimate.hardware, estimate.hardware.speed
    assert estimate.tokens is not None
    estimated = f"95 %, by tokens over {estimate.tokens_by} at {len(sample.tokens)} places"
    how = "counted, not estimated" if sample.is_census else estimated
    yield f"tokens      {_show(estimate.tokens, _count)} ({how})"
    actors = f"{hardware.n_actors:,} actor{'s' if hardware.n_actors > 1 else ''}"
    if speed is None or estimate.time_s is None:
        yield "time        not known: give --tokens-per-s (of one actor), or --like with an output that was measured"
        return
    yield f"speed       {_show(speed.tokens_per_s, _count)} tokens/s of one actor: {speed.source}"
    if speed.tokens_per_s.low < speed.tokens_per_s.high:
        yield "            from the slowest to the fastest tenth of its shards"
    yield from (f"            measured with another {note}" for note in speed.notes)
    if speed.busy is not None:
        waiting = "the slow end of the time has such waiting in it"
        yield f"            its actors inferred for {speed.busy:.0%} of that run; {waiting}"
    yield f"time        {_show(estimate.time_s, format_duration)} on {actors}; the start of the workers comes on top"
    if estimate.cost is not None:
        price = f"{hardware.price_per_hour:g} an hour"
        yield f"cost        {_show(estimate.cost, _amount)}: time x {actors} x {price} (--price-per-hour)"


def _amount(cost: float) -> str:
    return f"{cost:,.2f}" if cost >= 1 else f"{cost:.2g}"


def _show(interval: Interval, form: Callable[[float], str]) -> str:
    low, expected, high = map(form, (interval.low, interval.expected, interval.high))
    return expected if low == expected == high else f"{expected}, from {low} to {high}"


def _count(number: float) -> str:
    """`12345678` -> `12.3 million`; three digits are more than an estimate has."""
    if math.isinf(number):
        return "nobody knows"
    for size, name in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million")):
        if number >= size:
            return f"{number / size:.3g}{name}"
    return f"{float(f'{number:.3g}'):,.0f}"
