"""Which program stands for which container image.

SageMaker runs an image with the argument ``train`` or ``serve``, or with arguments that a request
names; here each repository of images is mapped to a program that takes the same arguments. The
table knows the built-in Factorization Machines image of every region, with the metric definitions
that SageMaker itself has for it; more come from the command line.
"""

import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsys_assets.sagemaker_local.errors import validation_error

_FACTORIZATION_MACHINE = "recsys_assets.domain.factorization_machine.container"


def _quality_metrics(dataset: str, name: str, line: str, kind: str) -> dict[str, str]:
    final = rf"#quality_metric: host=\S+, {dataset} {line} <{kind}>=(\S+)"
    if dataset == "test":
        return {f"test:{name}": final}
    return {
        f"train:{name}": final,
        f"train:{name}:epoch": (
            rf"#quality_metric: host=\S+, epoch=\S+, {dataset} {line} <{kind}>=(\S+)"
        ),
        f"train:{name}:batch": (
            rf"#quality_metric: host=\S+, epoch=\S+, batch=\S+ {dataset} {line} <{kind}>=(\S+)"
        ),
    }


_FACTORIZATION_MACHINE_OBJECTIVES = {
    "test:rmse": "Minimize",
    "test:binary_classification_accuracy": "Maximize",
    "test:binary_classification_cross_entropy": "Minimize",
    "test:binary_f_beta": "Maximize",
}

_FACTORIZATION_MACHINE_TUNABLE = frozenset(
    {"epochs", "mini_batch_size"}
    | {
        f"{group}_{setting}"
        for group in ("bias", "linear", "factors")
        for setting in ("lr", "wd", "init_scale", "init_sigma", "init_value")
    }
)


def _factorization_machine_metrics() -> tuple[Mapping[str, str], ...]:
    regexes = {
        "train:progress": r"#progress_metric: host=\S+, completed (\S+) %",
        "train:throughput": r"#throughput_metric: host=\S+, train throughput=(\S+) records/second",
    }
    for dataset in ("train", "test"):
        for name, line, kind in (
            ("rmse", "rmse", "loss"),
            ("binary_classification_accuracy", "binary_classification_accuracy", "score"),
            (
                "binary_classification_cross_entropy",
                "binary_classification_cross_entropy",
                "loss",
            ),
            ("binary_f_beta", r"binary_f_\S+", "score"),
        ):
            regexes.update(_quality_metrics(dataset, name, line, kind))
    return tuple({"Name": name, "Regex": regex} for name, regex in regexes.items())


@dataclass(frozen=True)
class Program:
    """The commands that stand for an image.

    Attributes
    ----------
    train, serve
        What ``docker run <image> train`` and ``... serve`` would run: arguments, the first of them
        a program.
    entrypoint
        What comes before the arguments of ``docker run <image> ...``; empty for a program that
        knows only ``train`` and ``serve``.
    metric_definitions
        ``Name`` and ``Regex`` of the metrics that SageMaker knows for a built-in algorithm; empty
        for other images, whose metrics each request defines.
    objective_metrics
        Those of them that a tuning job may have as its objective, each with whether that is to
        ``Minimize`` or to ``Maximize``; such a built-in algorithm emits them once, at its end.
    tunable_hyperparameters
        Names of the hyperparameters of a built-in algorithm that a tuning job may tune; empty for
        other images, of whose hyperparameters nothing is known.
    """

    train: tuple[str, ...]
    serve: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    metric_definitions: tuple[Mapping[str, str], ...] = ()
    objective_metrics: Mapping[str, str] = field(default_factory=dict)
    tunable_hyperparameters: frozenset[str] = frozenset()

    def command(self, specification: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what ``docker run`` would run with a request's own entrypoint or arguments.

        Parameters
        ----------
        specification
            May have ``ContainerEntrypoint`` and ``ContainerArguments``.

        Raises
        ------
        ServiceError
            When neither the request nor the image has an entrypoint.
        """
        entrypoint = specification.get("ContainerEntrypoint", self.entrypoint)
        if not entrypoint:
            raise validation_error(
                "The program that stands for the image at the local SageMaker endpoint knows only"
                " train and serve: ContainerEntrypoint must name another one."
            )
        return (*entrypoint, *specification.get("ContainerArguments", ()))


BUILT_IN: Mapping[str, Program] = {
    "factorization-machines": Program(
        train=(sys.executable, "-m", f"{_FACTORIZATION_MACHINE}.train"),
        serve=(sys.executable, "-m", f"{_FACTORIZATION_MACHINE}.serve"),
        metric_definitions=_factorization_machine_metrics(),
        objective_metrics=_FACTORIZATION_MACHINE_OBJECTIVES,
        tunable_hyperparameters=_FACTORIZATION_MACHINE_TUNABLE,
    ),
}
"""Programs by image repository, known without any configuration."""


SCRIPT_MODE = (sys.executable, "-m", "recsys_assets.sagemaker_local.script_mode")
"""The program that ``script-mode`` means on the command line."""


class Images:
    """The table of programs by image repository.

    Parameters
    ----------
    programs
        By repository name, without registry and tag.
    """

    def __init__(self, programs: Mapping[str, Program] = BUILT_IN) -> None:
        self._programs = dict(programs)

    def program(self, image: str) -> Program:
        """Return the program that stands for an image.

        Parameters
        ----------
        image
            An image URI, such as
            ``382416733822.dkr.ecr.us-east-1.amazonaws.com/factorization-machines:1``.

        Raises
        ------
        ServiceError
            When no program is known for the image's repository.
        """
        try:
            return self._programs[repository(image)]
        except KeyError:
            known = ", ".join(sorted(self._programs))
            raise validation_error(
                f"The local SageMaker endpoint has no program for image {image!r} (repository"
                f" {repository(image)!r}); it has programs for: {known}."
                " Others are given with --image REPOSITORY=PROGRAM when it starts, where PROGRAM is"
                " script-mode for images that run a user's scripts."
            ) from None


def repository(image: str) -> str:
    """Return an image URI's repository: without registry, tag and digest."""
    registry, slash, path = image.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        path = image
    return path.partition("@")[0].partition(":")[0]


def parse_mappings(mappings: Iterable[str]) -> dict[str, Program]:
    """Return the built-in programs and those of ``REPOSITORY=PROGRAM`` arguments.

    Parameters
    ----------
    mappings
        PROGRAM is a command line in shell syntax, to which ``train`` or ``serve`` is appended as
        SageMaker does. Its first word is looked up as a shell would, but for ``script-mode``, the
        program for images that run a user's scripts; other paths in it must be absolute, for jobs
        run in folders of their own.

    Raises
    ------
    ValueError
        When an argument is not of that form or its program cannot be found.
    """
    programs = dict(BUILT_IN)
    for mapping in mappings:
        name, equals, command = mapping.partition("=")
        words = shlex.split(command)
        if not name or not equals or not words:
            raise ValueError(f"expected REPOSITORY=PROGRAM, got {mapping!r}")
        command_line = (*_program(words[0], name), *words[1:])
        programs[name] = Program((*command_line, "train"), (*command_line, "serve"), command_line)
    return programs


def _program(word: str, name: str) -> tuple[str, ...]:
    if word == "script-mode":
        return SCRIPT_MODE
    executable = shutil.which(word)
    if executable is None:
        raise ValueError(f"no program {word!r} (for image repository {name!r})")
    return (str(Path(executable).absolute()),)
