"""A stand-in for `recsys-assets task`, run in processing jobs: puts a result where it is told."""

import argparse
import json
import os
import sys
from typing import Any
from urllib.parse import urlsplit

import boto3


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command")
    for command in ("run", "check", "clean-up"):
        sub = commands.add_parser(command)
        sub.add_argument("assets", nargs="*")
        sub.add_argument("--run", required=True)
        sub.add_argument("--definitions")
        sub.add_argument("--partition")
        sub.add_argument("--created", nargs=3, action="append", default=[])
        sub.add_argument("--result-uri")
    task, *arguments = sys.argv[1:]
    assert task == "task"
    given = parser.parse_args(arguments)
    params = json.loads(os.environ["RECSYS_TASK_PARAMS"])
    name = given.command if given.command == "clean-up" else given.assets[0]
    if params["fails"] == name:
        sys.exit(1)
    s3 = boto3.client("s3")
    bucket = os.environ["RECSYS_BUCKET"]
    seen = {"arguments": arguments, "params": params}
    s3.put_object(
        Bucket=bucket, Key=f"seen/{given.run}/{given.command}-{name}.json", Body=json.dumps(seen)
    )
    if given.command == "clean-up":
        return
    if given.command == "check":
        result: dict[str, Any] = {"passed": params["checks_pass"], "checks": {}}
    else:
        uri = f"s3://{bucket}/{name}/{given.run}/data/"
        s3.put_object(Bucket=bucket, Key=f"{name}/{given.run}/data/part.csv", Body=b"1\n2\n")
        result = {name: {"uri": uri, "content_hash": "0", "rows": 2, **artefact(given.created)}}
    if params["lacks"] == name:
        result = {}
    place = urlsplit(given.result_uri)
    s3.put_object(Bucket=place.netloc, Key=place.path.lstrip("/"), Body=json.dumps(result))


def artefact(created: list[list[str]]) -> dict[str, str]:
    """Return where the model of what was created is, if it was a training or a tuning job."""
    sagemaker = boto3.client("sagemaker")
    for _, kind, name in created:
        if name and kind in ("sagemaker_training", "sagemaker_tuning"):
            job = name
            if kind == "sagemaker_tuning":
                tuning = sagemaker.describe_hyper_parameter_tuning_job(
                    HyperParameterTuningJobName=name
                )
                job = tuning["BestTrainingJob"]["TrainingJobName"]
            model = sagemaker.describe_training_job(TrainingJobName=job)["ModelArtifacts"]
            return {"artefact": model["S3ModelArtifacts"]}
    return {}


main()
