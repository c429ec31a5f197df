"""The questions of `init` at a terminal: each shows what is proposed, and comes again after an answer that is wrong.

It asks and checks; what an answer means is in `first_manifest`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rembert_ray.errors import UnusableError
from rembert_ray.starter import first_manifest as first
from rembert_ray.starter.corpus import Corpus, check_kept, guess_columns, look_at_corpus
from rembert_ray.tasks.base import find_task

Ask = Callable[[str, str], str]
"""Question and proposal (empty: none) -> answer."""
Complain = Callable[[UnusableError], None]
Answer = TypeVar("Answer")


def draft_by_asking(answers: first.Answers, ask: Ask, complain: Complain) -> first.Draft:
    """The draft of what was given as flags and what is asked for now.

    Raises:
        UnusableError: a flag is wrong: it is not asked for again.
    """

    def answered(given: str | None, question: str, proposal: str, check: Callable[[str], Answer]) -> Answer:
        if given is not None:
            return check(given)
        while True:
            try:
                return check(ask(question, proposal))
            except UnusableError as error:
                complain(error)

    corpus = answered(answers.corpus, "Corpus: Parquet file, folder or glob; local or URL", "", look_at_corpus)
    model = answered(answers.model, "Model: folder or URL of a checkpoint", "", first.look_at_model)
    can = ", ".join(model.tasks)
    task = answered(
        answers.task, f"Task ({can})", model.proposed, lambda text: first.check_task_of(model, text.strip())
    )
    columns = _ask_columns(answers, corpus, task, answered)
    keep = answers.keep
    if keep is None:
        proposed = ", ".join(first.kept_for(corpus, model, task, columns))
        keep = answered(
            None, "Columns to keep in the output, - for none", proposed or "-", lambda text: _kept(corpus, text)
        )
    else:
        check_kept(corpus, keep)
    output = answered(answers.output, "Output: folder or URL", f"output/{task}", first.check_output_place)
    return first.Draft(corpus, model, task, columns, keep, output)


def _ask_columns(
    answers: first.Answers, corpus: Corpus, task: str, answered: Callable[..., dict[str, str]]
) -> dict[str, str]:
    """Columns by name, one question each; those that were given are not asked for."""
    try:
        proposed = first.columns_for(corpus, task, answers.columns)
    except UnusableError:
        if answers.columns:
            raise
        proposed = dict.fromkeys(find_task(task).input_forms[0], "")
    if answers.columns:
        return proposed
    found: dict[str, str] = {}
    for name, column in proposed.items():
        fitting = [fit.name for fit in corpus.fitting(name)]
        found |= answered(
            None,
            f"Column for {name} ({', '.join(fitting)})",
            column,
            lambda text, name=name: {name: _one_of(corpus, name, text.strip())},
        )
    return found


def _one_of(corpus: Corpus, name: str, column: str) -> str:
    return guess_columns(corpus, [(name,)], {name: column}, where=name)[name]


def _kept(corpus: Corpus, text: str) -> list[str]:
    names = [] if text.strip() == "-" else [name.strip() for name in text.split(",") if name.strip()]
    check_kept(corpus, names)
    return names
