"""The checkpoints of one pre-training run: where each lies and how far training had come."""

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xlingjax.errors import InputError
from xlingjax.models import Model, load_model
from xlingjax.models.series import tokens_seen
from xlingjax.models.weights.files import is_inside


@dataclasses.dataclass(frozen=True)
class Source:
    """One checkpoint.

    Attributes:
        name: hub repository or folder.
        revision: tag, branch or commit of the repository, sub-folder of a folder on disk; or None.
        subfolder: folder within the revision, or None.
        label: what axes and tables call it.
        step: training step, or None where the label holds no number.
        tokens: tokens seen, or None where tokens per step are not known.
    """

    name: str
    revision: str | None
    subfolder: str | None
    label: str
    step: int | None
    tokens: int | None


def load_source(source: Source, dtype: str, mesh: Any = None, tokenizer: Any = None) -> Model:
    """A checkpoint with its tokenizer.

    Args:
        dtype, mesh, tokenizer: as of `load_model`.

    Raises:
        InputError: it cannot be loaded, or brings no tokenizer and none is named.
    """
    model = load_model(source.name, source.revision, source.subfolder, dtype, mesh, tokenizer)
    if model.tokenizer is None:
        raise InputError(
            f"checkpoint {source.label!r} of {source.name} brings no tokenizer; name the "
            "folder or repository that has it with --tokenizer")
    return model


def step_of(label: str) -> int | None:
    """The training step in a checkpoint's name: the last run of digits.

    >>> step_of("global_step1000"), step_of("step512-tokens2B"), step_of("main")
    (1000, 512, None)
    """
    named = re.search(r"step[_-]?(\d+)", label)
    numbers = re.findall(r"\d+", label)
    if named:
        return int(named.group(1))
    return int(numbers[-1]) if numbers else None


def sources(model: str, revisions: Sequence[str] = (), subfolders: Sequence[str] = (),
            tokens_per_step: float | None = None) -> tuple[Source, ...]:
    """The checkpoints a user named, in order of training step.

    Args:
        model: hub repository or folder.
        revisions: tags or branches, or sub-folders of a folder; `{step}` templates are expanded by
            the caller with `expand`.
        subfolders: folders of one revision; then at most one revision.
        tokens_per_step: overrides what is published (`models.series`).

    Raises:
        InputError: both lists have several entries, a checkpoint is named twice, or by a name that
            leads out of the model's folder, or `tokens_per_step` is not above 0.
    """
    if len(revisions) > 1 and subfolders:
        raise InputError(
            f"{len(revisions)} revisions and {len(subfolders)} subfolders were given; checkpoints are "
            "either revisions or subfolders of one revision")
    if tokens_per_step is not None and not 0 < tokens_per_step < math.inf:
        raise InputError(f"tokens_per_step is {tokens_per_step:g}; give a number above 0")
    named: list[tuple[str | None, str | None]]
    if subfolders:
        named = [(revisions[0] if revisions else None, subfolder) for subfolder in subfolders]
    else:
        named = [(revision, None) for revision in revisions] or [(None, None)]
    labels = [subfolder or revision or Path(model).resolve().name for revision, subfolder in named]
    outside = [label for label in labels if not is_inside(label)]
    if outside:
        raise InputError(
            f"checkpoint {outside[0]!r} is no plain name; give the folder that holds it as the model")
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(f"checkpoint {twice[0]!r} is named twice; name each once")
    found = []
    for (revision, subfolder), label in zip(named, labels):
        step = step_of(label)
        found.append(Source(model, revision, subfolder, label, step, tokens_seen(model, label, step, tokens_per_step)))
    if all(source.step is not None for source in found):
        found.sort(key=lambda source: source.step or 0)
    return tuple(found)


def expand(template: str, steps: Sequence[int]) -> tuple[str, ...]:
    """`"global_step{step}"` and steps -> names.

    >>> expand("global_step{step}", (1000, 10000))
    ('global_step1000', 'global_step10000')
    """
    if "{step}" not in template:
        raise InputError(f"template {template!r} has no {{step}}; write for example global_step{{step}}")
    return tuple(template.replace("{step}", str(step)) for step in steps)
