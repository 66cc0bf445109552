"""Which program stands for which container image.

SageMaker runs an image with the argument ``train`` or ``serve``; here each repository of images
is mapped to a program that takes the same argument. The table knows the built-in Factorization
Machines image of every region, with the metric definitions that SageMaker itself has for it; more
come from the command line.
"""

import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

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
    metric_definitions
        ``Name`` and ``Regex`` of the metrics that SageMaker knows for a built-in algorithm; empty
        for other images, whose metrics each request defines.
    """

    train: tuple[str, ...]
    serve: tuple[str, ...]
    metric_definitions: tuple[Mapping[str, str], ...] = ()


BUILT_IN: Mapping[str, Program] = {
    "factorization-machines": Program(
        train=(sys.executable, "-m", f"{_FACTORIZATION_MACHINE}.train"),
        serve=(sys.executable, "-m", f"{_FACTORIZATION_MACHINE}.serve"),
        metric_definitions=_factorization_machine_metrics(),
    ),
}
"""Programs by image repository, known without any configuration."""


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
                " Others are given with --image REPOSITORY=PROGRAM when it starts."
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
        SageMaker does. Its first word is looked up as a shell would; other paths in it must be
        absolute, for jobs run in folders of their own.

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
        executable = shutil.which(words[0])
        if executable is None:
            raise ValueError(f"no program {words[0]!r} (for image repository {name!r})")
        command_line = (str(Path(executable).absolute()), *words[1:])
        programs[name] = Program((*command_line, "train"), (*command_line, "serve"))
    return programs
