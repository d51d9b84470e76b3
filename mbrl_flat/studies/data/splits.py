"""Splits of a labelled set: by chance with every class in every part, and by class."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mbrl_flat.errors import UserError


class Split(NamedTuple):
    """Inputs and labels to train on, to choose settings by, and to report."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def split_indices(y: Tensor, sizes: Mapping[str, int], *, seed: int) -> dict[str, Tensor]:
    """Choose disjoint parts at random, every class in every part.

    Args:
        y: Class labels ``[N]``, whole numbers from 0.
        sizes: Examples of each part, by its name; together at most N.
        seed: Determines the parts.

    Returns:
        Indices ``[n]`` of each part, in random order.

    Raises:
        UserError: If the parts are larger than the set, one is empty or lacks a class.
    """
    wanted = sum(sizes.values())
    if wanted > len(y) or min(sizes.values()) < 1:
        raise UserError(
            f"Parts of {', '.join(f'{n} {size}' for n, size in sizes.items())} cannot be had: "
            f"each needs at least 1, and there are {len(y)} examples for {wanted}."
        )
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    parts = dict(zip(sizes, order[:wanted].split(list(sizes.values())), strict=True))
    classes = set(y.unique().tolist())
    for name, part in parts.items():
        missing = sorted(classes - set(y[part].unique().tolist()))
        if missing:
            raise UserError(
                f"The part {name!r} of {len(part)} examples has none of class {missing[0]}; make "
                f"it larger or choose another seed than {seed}."
            )
    return parts


def train_validation_test(x: Tensor, y: Tensor, *, train: int, validation: int, seed: int) -> Split:
    """Split by chance; what is neither for training nor for validation is for the test.

    Args:
        x: Inputs ``[N, ...]``.
        y: Class labels ``[N]``, whole numbers from 0.
        train: Examples to train on.
        validation: Examples to choose settings by.
        seed: Determines the parts.

    Returns:
        The three parts.
    """
    sizes = {"train": train, "validation": validation, "test": len(y) - train - validation}
    parts = split_indices(y, sizes, seed=seed)
    return Split(*((x[parts[name]], y[parts[name]]) for name in sizes))


def class_split(
    x: Tensor, y: Tensor, tasks: Sequence[Sequence[int]]
) -> list[tuple[Tensor, Tensor]]:
    """Make the tasks of continual learning: each has the examples of its own classes.

    Args:
        x: Inputs ``[N, ...]``.
        y: Labels ``[N]``; they are kept as they are.
        tasks: Classes of each task; none twice.

    Returns:
        Inputs and labels of each task, in the order of the set.

    Raises:
        UserError: If a task is empty, a class is in two tasks, or a class has no example.
    """
    listed = [label for task in tasks for label in task]
    twice = sorted({label for label in listed if listed.count(label) > 1})
    if twice:
        raise UserError(f"Class {twice[0]} is in more than one task: {list(map(list, tasks))}.")
    if not tasks or any(len(task) == 0 for task in tasks):
        raise UserError(f"Every task needs at least one class, got {list(map(list, tasks))}.")
    absent = sorted(set(listed) - set(y.unique().tolist()))
    if absent:
        raise UserError(f"Class {absent[0]} has no example in this set.")
    masks = [torch.isin(y, torch.tensor(list(task))) for task in tasks]
    return [(x[mask], y[mask]) for mask in masks]


def standardised(reference: Tensor, *others: Tensor, per_pixel: bool = False) -> list[Tensor]:
    """Subtract the mean and divide by the deviation of ``reference`` from it and the others.

    Args:
        reference: The training inputs ``[N, ...]``.
        others: Further inputs.
        per_pixel: Take mean and deviation of every entry by itself, instead of one of all. Not
            for digits, where some pixels never change.

    Returns:
        ``reference`` and the others, standardised.

    Raises:
        UserError: If the deviation of an entry is zero.
    """
    mean = reference.mean(0) if per_pixel else reference.mean()
    deviation = reference.std(0, unbiased=False) if per_pixel else reference.std(unbiased=False)
    if bool((deviation == 0.0).any()):
        raise UserError("An input never changes, so it has no deviation: use per_pixel=False.")
    return [(x - mean) / deviation for x in (reference, *others)]
