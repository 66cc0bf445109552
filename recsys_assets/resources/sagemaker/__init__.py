"""SageMaker: training, tuning, transform, models and the endpoint, and what they cost.

What belongs here: everything between an asset that wants a job and the SageMaker API. What does
not: AWS clients and their patience (``aws.py``), and experiment tracking (``tracking.py``).
"""

from recsys_assets.resources.sagemaker.images import built_in_image
from recsys_assets.resources.sagemaker.jobs import JobFailed, Look, RemoteJob
from recsys_assets.resources.sagemaker.links import Links
from recsys_assets.resources.sagemaker.names import Run, job_name
from recsys_assets.resources.sagemaker.requests import OBJECTIVE, Range, Training, Tuning
from recsys_assets.resources.sagemaker.resource import (
    SageMaker,
    Trial,
    configured_sagemaker,
    epoch_loss,
    final_metrics,
)

__all__ = [
    "OBJECTIVE",
    "JobFailed",
    "Links",
    "Look",
    "Range",
    "RemoteJob",
    "Run",
    "SageMaker",
    "Training",
    "Trial",
    "Tuning",
    "built_in_image",
    "configured_sagemaker",
    "epoch_loss",
    "final_metrics",
    "job_name",
]
