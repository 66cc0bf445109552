"""Tunes the regressor of `source/train.py` with a SageMaker hyperparameter tuning job.

Generates data, puts it and the source into S3, runs the tuning job and prints its best training
job. The clients are boto3's own: whether they reach AWS or local services is up to the environment
(README.md).
"""

import argparse
import io
import json
import os
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import boto3
import numpy as np

SOURCE = Path(__file__).with_name("source")
IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.0-5"
ROLE = "arn:aws:iam::123456789012:role/sagemaker"


def main() -> None:
    """Run the tuning job to its end."""
    options = parse_arguments()
    folder = f"s3://{options.bucket}/{options.name}"
    s3 = boto3.client("s3")
    objects = {
        "source/sourcedir.tar.gz": source_archive(),
        "train/part-0.csv": generated_rows(options.rows, seed=0),
        "validation/part-0.csv": generated_rows(options.rows // 4, seed=1),
    }
    for key, content in objects.items():
        s3.put_object(Bucket=options.bucket, Key=f"{options.name}/{key}", Body=content)

    sagemaker = boto3.client("sagemaker")
    sagemaker.create_hyper_parameter_tuning_job(**tuning_request(options, folder))
    while True:
        job = sagemaker.describe_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=options.name
        )
        counters = job["TrainingJobStatusCounters"]
        sys.stderr.write(f"{job['HyperParameterTuningJobStatus']}: {counters}\n")
        if job["HyperParameterTuningJobStatus"] in ("Completed", "Failed", "Stopped"):
            break
        time.sleep(options.interval)
    if "BestTrainingJob" not in job:
        reason = job.get("FailureReason", "no training job has ended with an objective")
        sys.exit(f"{options.name} {job['HyperParameterTuningJobStatus']}: {reason}")
    best = job["BestTrainingJob"]
    objective = best["FinalHyperParameterTuningJobObjectiveMetric"]
    summary = {
        "training_job": best["TrainingJobName"],
        "hyperparameters": best["TunedHyperParameters"],
        objective["MetricName"]: objective["Value"],
        "model": f"{folder}/models/{best['TrainingJobName']}/output/model.tar.gz",
    }
    sys.stdout.write(json.dumps(summary, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--name", default=f"xgboost-{time.strftime('%Y%m%d-%H%M%S')}")
    parser.add_argument("--image", default=IMAGE, help="that of your region; see the AWS docs")
    parser.add_argument("--role", default=ROLE, help="ARN; any will do locally")
    parser.add_argument("--jobs", type=int, default=6, help="training jobs")
    parser.add_argument("--parallel", type=int, default=2, help="of them, at a time")
    parser.add_argument(
        "--strategy", default="Random", help="Random or Bayesian, as SageMaker names them"
    )
    parser.add_argument("--rounds", type=int, default=30, help="trees of each model")
    parser.add_argument("--rows", type=int, default=400, help="of generated training data")
    parser.add_argument("--interval", type=float, default=2, help="seconds between two looks")
    return parser.parse_args()


def source_archive() -> bytes:
    """Return the source as the `tar.gz` that script mode unpacks."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for path in sorted(path for path in SOURCE.iterdir() if path.is_file()):
            tar.add(path, arcname=path.name)
    return archive.getvalue()


def generated_rows(count: int, seed: int) -> bytes:
    """Return CSV rows of Friedman's first function, a usual benchmark of regressors.

    Of ten features in [0, 1] five matter; the label, which comes first, has noise of 1.
    """
    generator = np.random.default_rng(seed)
    x = generator.random((count, 10))
    label = (
        10 * np.sin(np.pi * x[:, 0] * x[:, 1])
        + 20 * (x[:, 2] - 0.5) ** 2
        + 10 * x[:, 3]
        + 5 * x[:, 4]
        + generator.normal(size=count)
    )
    text = io.StringIO()
    np.savetxt(text, np.column_stack([label, x]), delimiter=",", fmt="%.6f")
    return text.getvalue().encode()


def tuning_request(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Return the CreateHyperParameterTuningJob request."""
    tracking = {
        name: os.environ[name]
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")
        if name in os.environ
    }
    return {
        "HyperParameterTuningJobName": options.name,
        "HyperParameterTuningJobConfig": {
            "Strategy": options.strategy,
            "HyperParameterTuningJobObjective": {
                "Type": "Minimize",
                "MetricName": "validation:rmse",
            },
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": options.jobs,
                "MaxParallelTrainingJobs": options.parallel,
            },
            "ParameterRanges": {
                "ContinuousParameterRanges": [
                    {
                        "Name": "eta",
                        "MinValue": "0.03",
                        "MaxValue": "0.5",
                        "ScalingType": "Logarithmic",
                    },
                    {"Name": "subsample", "MinValue": "0.5", "MaxValue": "1.0"},
                ],
                "IntegerParameterRanges": [
                    {"Name": "max_depth", "MinValue": "2", "MaxValue": "8"},
                ],
            },
            "RandomSeed": 0,
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": options.image,
                "TrainingInputMode": "File",
                "MetricDefinitions": [
                    {"Name": "train:rmse", "Regex": r"train-rmse=(\S+)"},
                    {"Name": "validation:rmse", "Regex": r"validation-rmse=(\S+)"},
                ],
            },
            "StaticHyperParameters": {
                # The values are JSON, as the SageMaker SDK writes them.
                "sagemaker_program": json.dumps("train.py"),
                "sagemaker_submit_directory": json.dumps(f"{folder}/source/sourcedir.tar.gz"),
                "sagemaker_region": json.dumps(boto3.Session().region_name),
                "num_round": str(options.rounds),
            },
            "InputDataConfig": [
                {
                    "ChannelName": name,
                    "ContentType": "text/csv",
                    "DataSource": {
                        "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{folder}/{name}/"}
                    },
                }
                for name in ("train", "validation")
            ],
            "OutputDataConfig": {"S3OutputPath": f"{folder}/models"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            "RoleArn": options.role,
            "Environment": tracking,
        },
    }


if __name__ == "__main__":
    main()
