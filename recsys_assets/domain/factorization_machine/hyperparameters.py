"""The hyperparameters of SageMaker's built-in Factorization Machines.

What belongs here: their names, defaults and valid values, and reading them from the strings that
SageMaker sends. What does not: what they do, which is said in ``solvers``.

Source: "Factorization Machines Hyperparameters" in the Amazon SageMaker developer guide.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

PredictorType = Literal["regressor", "binary_classifier"]
InitMethod = Literal["normal", "uniform", "constant"]


class HyperparameterError(ValueError):
    """Hyperparameters that the built-in would refuse; the message is in its words."""


def _refuse_loose_integers(value: Any) -> Any:
    """Let through only the texts that the built-in takes for integers: "10.0" is none."""
    if isinstance(value, str) and not re.fullmatch("[1-9][0-9]{0,17}", value):
        raise ValueError("Input should be a positive integer")
    return value


PositiveInteger = Annotated[int, BeforeValidator(_refuse_loose_integers), Field(gt=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(allow_inf_nan=False, ge=0)]


class Hyperparameters(BaseModel):
    """Validated, immutable hyperparameters.

    A model has three groups of parameters: the bias w0, the linear weights w1 (one a feature) and
    the factors v (`num_factors` a feature). Each group has its own rates and initial values.

    Attributes
    ----------
    feature_dim
        Number of features: the width of every record. AWS suggests 10,000 to 10,000,000.
    num_factors
        Number of factors a feature. AWS suggests 2 to 1000 and calls 64 typical.
    predictor_type
        "regressor" (squared error) or "binary_classifier" (logistic loss, labels 0 and 1).
    epochs
        Passes over the training data.
    mini_batch_size
        Records an update of the parameters.
    bias_lr, linear_lr, factors_lr
        Adam's learning rates. AWS suggests 1e-8 to 512.
    bias_wd, linear_wd, factors_wd
        Weight decays: each adds itself times the parameter to the gradient. AWS suggests 1e-8 to
        512.
    bias_init_method, linear_init_method, factors_init_method
        Where initial values come from: "normal" draws from N(0, sigma²), "uniform" from
        [-scale, scale], "constant" takes the value.
    bias_init_sigma, linear_init_sigma, factors_init_sigma
        Standard deviations for "normal".
    bias_init_scale, linear_init_scale, factors_init_scale
        Half widths for "uniform", which requires them.
    bias_init_value, linear_init_value, factors_init_value
        Values for "constant", which requires them.
    clip_gradient
        If given and not 0, gradients are clipped to [-clip_gradient, clip_gradient].
    eps
        Added to Adam's denominator; MXNet's 1e-8 if not given.
    rescale_grad
        Factor of a mini-batch's summed gradient; 1 / mini_batch_size if not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature_dim: PositiveInteger
    num_factors: PositiveInteger
    predictor_type: PredictorType
    epochs: PositiveInteger = 1
    mini_batch_size: PositiveInteger = 1000
    bias_lr: NonNegative = 0.1
    linear_lr: NonNegative = 0.001
    factors_lr: NonNegative = 0.0001
    bias_wd: NonNegative = 0.01
    linear_wd: NonNegative = 0.001
    factors_wd: NonNegative = 0.00001
    bias_init_method: InitMethod = "normal"
    bias_init_sigma: NonNegative = 0.01
    bias_init_scale: NonNegative | None = None
    bias_init_value: Number | None = None
    linear_init_method: InitMethod = "normal"
    linear_init_sigma: NonNegative = 0.01
    linear_init_scale: NonNegative | None = None
    linear_init_value: Number | None = None
    factors_init_method: InitMethod = "normal"
    factors_init_sigma: NonNegative = 0.001
    factors_init_scale: NonNegative | None = None
    factors_init_value: Number | None = None
    clip_gradient: NonNegative | None = None
    eps: NonNegative | None = None
    rescale_grad: Number | None = None

    @model_validator(mode="after")
    def _init_methods_have_their_number(self) -> Self:
        for group in ("bias", "linear", "factors"):
            method = getattr(self, f"{group}_init_method")
            needed = {"uniform": "scale", "constant": "value"}.get(method)
            if needed and getattr(self, f"{group}_init_{needed}") is None:
                raise ValueError(
                    f"'{group}_init_{needed}' is a required property when "
                    f"'{group}_init_method' is {method!r}"
                )
        return self

    @classmethod
    def from_strings(cls, values: Mapping[str, str]) -> Self:
        """Read the hyperparameters of a training job.

        Parameters
        ----------
        values
            Names and texts, as in ``hyperparameters.json``. Names that start with an underscore
            are the container's own; they are accepted and ignored.

        Raises
        ------
        HyperparameterError
            If a name is unknown, a required one is missing or a value is not valid. The message
            names every fault, in the words of the built-in's JSON schema validator.
        """
        try:
            return cls.model_validate(
                {name: value for name, value in values.items() if not name.startswith("_")}
            )
        except ValidationError as error:
            raise HyperparameterError(_in_the_built_ins_words(error)) from None

    @classmethod
    def defaults(cls) -> dict[str, str]:
        """Return the defaults as SageMaker's strings, without the ones that stand for "none"."""
        return {
            name: str(field.default)
            for name, field in cls.model_fields.items()
            if not field.is_required() and field.default is not None
        }


def _in_the_built_ins_words(error: ValidationError) -> str:
    faults = error.errors()
    unknown = [str(fault["loc"][0]) for fault in faults if fault["type"] == "extra_forbidden"]
    sentences = []
    if unknown:
        names = ", ".join(repr(name) for name in unknown)
        verb = "was" if len(unknown) == 1 else "were"
        sentences.append(f"Additional properties are not allowed ({names} {verb} unexpected)")
    for fault in faults:
        reason = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "missing":
            sentences.append(f"{fault['loc'][0]!r} is a required property")
        elif not fault["loc"]:
            sentences.append(reason)
        elif fault["type"] != "extra_forbidden":
            sentences.append(
                f"{fault['input']!r} is not valid under any of the given schemas: "
                f"Failed validating {fault['loc'][0]!r}: {reason}"
            )
    return "; ".join(sentences)
