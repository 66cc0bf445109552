"""The endpoint as a process under test, its clients and the requests that tests send it."""

import contextlib
import io
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config

from recsys_assets.service_model import service_model, violations

BUCKET = "endpoint-tests"
ROLE = "arn:aws:iam::123456789012:role/sagemaker"
STAND_IN = "123456789012.dkr.ecr.us-east-1.amazonaws.com/stand-in:latest"
ENDED = ("Completed", "Failed", "Stopped")

OBJECTIVE = {"Name": "objective", "Regex": r"objective=(\S+);"}

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "tester-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}

_PROGRAM = shlex.join([sys.executable, str(Path(__file__).with_name("stand_in.py"))])


def aws_client(service: str, url: str, config: Config | None = None) -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        config=config,
        region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


def free_port() -> int:
    """Return a port that stays free while no endpoint listens: clients are given higher ones."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def eventually(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Return the first true value of a condition."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still {value!r} after {seconds} seconds"
        time.sleep(0.02)
    return value


class Endpoint:
    """One endpoint process on a state folder, which may be started again and again."""

    def __init__(self, state: Path, object_store: str, port: int, *options: str) -> None:
        self.state = state
        self.url = f"http://127.0.0.1:{port}"
        self.s3 = aws_client("s3", object_store)
        self._object_store = object_store
        self.options = list(options)
        self._command = [
            sys.executable,
            "-m",
            "recsys_assets.sagemaker_local",
            f"--port={port}",
            f"--state={state}",
            f"--image=stand-in={_PROGRAM}",
            "--image=sagemaker-xgboost=script-mode",
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.spawn()
        eventually(self.answers)

    def spawn(self) -> None:
        log = self.state.with_name(f"{self.state.name}.log").open("ab")
        self.process = subprocess.Popen(
            [*self._command, *self.options],
            env={**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL_S3": self._object_store},
            stdout=log,
            stderr=log,
        )

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the endpoint ended"
        try:
            return httpx.get(f"{self.url}/ping", timeout=5).is_success
        except httpx.TransportError:
            return False

    def signal(self, number: signal.Signals) -> int:
        """Send a signal that ends the process; return its status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=10)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)

    # Clients, whose responses are all checked against botocore's model

    @cached_property
    def sagemaker(self) -> Any:
        return self._client("sagemaker")

    @cached_property
    def logs(self) -> Any:
        return self._client("logs")

    @cached_property
    def runtime(self) -> Any:
        return aws_client("sagemaker-runtime", self.url)

    def _client(self, service: str) -> Any:
        client = aws_client(service, self.url)

        def check(response_dict: Mapping[str, Any] | None, event_name: str, **_: Any) -> None:
            if response_dict is not None and response_dict["status_code"] == 200:
                operation = service_model(service).operation_model(event_name.split(".")[-1])
                if operation.output_shape is not None:
                    answer = json.loads(response_dict["body"])
                    assert not list(violations(operation.output_shape, answer)), answer

        client.meta.events.register(f"response-received.{service}", check)
        return client

    # Training jobs

    def training_request(
        self, name: str, hyperparameters: Mapping[str, object] | None = None, **changes: Any
    ) -> dict[str, Any]:
        texts = {key: str(value) for key, value in (hyperparameters or {}).items()}
        return {
            "TrainingJobName": name,
            "HyperParameters": texts,
            "AlgorithmSpecification": {"TrainingImage": STAND_IN, "TrainingInputMode": "File"},
            "RoleArn": ROLE,
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/models"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 10,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            **changes,
        }

    def train(
        self, name: str, hyperparameters: Mapping[str, object] | None = None, **changes: Any
    ) -> None:
        request = self.training_request(name, hyperparameters, **changes)
        self.sagemaker.create_training_job(**request)

    def training_job(self, name: str) -> dict[str, Any]:
        job: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return job

    def ended_training_job(self, name: str) -> dict[str, Any]:
        eventually(lambda: self.training_job(name)["TrainingJobStatus"] in ENDED)
        return self.training_job(name)

    def log_lines(self, kind: str, name: str) -> list[str]:
        """Return a job's log so far; ``kind`` is Training, Processing or Transform."""
        group = f"/aws/sagemaker/{kind}Jobs"
        try:
            streams = self.logs.describe_log_streams(
                logGroupName=group, logStreamNamePrefix=f"{name}/"
            )["logStreams"]
        except self.logs.exceptions.ResourceNotFoundException:
            return []
        return [
            event["message"]
            for stream in streams
            for event in self.logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
            )["events"]
        ]

    # Tuning jobs

    def tuning_request(
        self,
        name: str,
        ranges: Mapping[str, Any],
        *,
        jobs: int,
        parallel: int,
        static: Mapping[str, object] | None = None,
        kind: str = "Minimize",
        **config: Any,
    ) -> dict[str, Any]:
        definition = self.training_request("unused")
        del definition["TrainingJobName"], definition["HyperParameters"]
        definition["AlgorithmSpecification"]["MetricDefinitions"] = [OBJECTIVE]
        definition["StaticHyperParameters"] = {
            key: str(value) for key, value in (static or {}).items()
        }
        return {
            "HyperParameterTuningJobName": name,
            "HyperParameterTuningJobConfig": {
                "Strategy": "Random",
                "HyperParameterTuningJobObjective": {"Type": kind, "MetricName": "objective"},
                "ResourceLimits": {
                    "MaxNumberOfTrainingJobs": jobs,
                    "MaxParallelTrainingJobs": parallel,
                },
                "ParameterRanges": ranges,
                **config,
            },
            "TrainingJobDefinition": definition,
        }

    def tune(self, name: str, ranges: Mapping[str, Any], **options: Any) -> None:
        request = self.tuning_request(name, ranges, **options)
        self.sagemaker.create_hyper_parameter_tuning_job(**request)

    def tuning_job(self, name: str) -> dict[str, Any]:
        job: dict[str, Any] = self.sagemaker.describe_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name
        )
        return job

    def ended_tuning_job(self, name: str) -> dict[str, Any]:
        eventually(lambda: self.tuning_job(name)["HyperParameterTuningJobStatus"] in ENDED)
        return self.tuning_job(name)

    def children(self, name: str, **options: Any) -> list[dict[str, Any]]:
        children: list[dict[str, Any]] = (
            self.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
                HyperParameterTuningJobName=name, **{"MaxResults": 100, **options}
            )["TrainingJobSummaries"]
        )
        return children

    # Models and transform jobs

    def create_model(self, name: str, **environment: str) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            content = b"{}"
            member = tarfile.TarInfo("weights.json")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        self.put(f"artefacts/{name}/model.tar.gz", archive.getvalue())
        self.sagemaker.create_model(
            ModelName=name,
            PrimaryContainer={
                "Image": STAND_IN,
                "ModelDataUrl": f"s3://{BUCKET}/artefacts/{name}/model.tar.gz",
                "Environment": environment,
            },
            ExecutionRoleArn=ROLE,
        )

    def transform(self, name: str, model: str, prefix: str, **changes: Any) -> None:
        """Create a transform job; ``given`` and ``wanted`` change its input and output."""
        given, wanted = changes.pop("given", {}), changes.pop("wanted", {})
        self.sagemaker.create_transform_job(
            TransformJobName=name,
            ModelName=model,
            TransformInput={
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": f"s3://{BUCKET}/{prefix}",
                    }
                },
                **given,
            },
            TransformOutput={"S3OutputPath": f"s3://{BUCKET}/out/{name}", **wanted},
            TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
            **changes,
        )

    def transform_job(self, name: str) -> dict[str, Any]:
        job: dict[str, Any] = self.sagemaker.describe_transform_job(TransformJobName=name)
        return job

    def ended_transform_job(self, name: str) -> dict[str, Any]:
        eventually(lambda: self.transform_job(name)["TransformJobStatus"] in ENDED)
        return self.transform_job(name)

    # Endpoints

    def create_endpoint_config(self, name: str, *variants: Mapping[str, Any]) -> None:
        """Create a configuration of variants that each name at least their model."""
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {
                    "VariantName": "AllTraffic",
                    "InitialInstanceCount": 1,
                    "InstanceType": "ml.m5.large",
                    **variant,
                }
                for variant in variants
            ],
        )

    def host(self, name: str, *variants: Mapping[str, Any]) -> None:
        """Create an endpoint and a configuration of the same name."""
        self.create_endpoint_config(name, *variants)
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)

    def hosted(self, name: str) -> dict[str, Any]:
        hosted: dict[str, Any] = self.sagemaker.describe_endpoint(EndpointName=name)
        return hosted

    def settled_endpoint(self, name: str) -> dict[str, Any]:
        """Return an endpoint's description when nothing is being done to it any more."""
        eventually(lambda: self.hosted(name)["EndpointStatus"] in ("InService", "Failed"))
        return self.hosted(name)

    def invoke(self, name: str, **arguments: Any) -> Any:
        return self.runtime.invoke_endpoint(
            EndpointName=name, **{"Body": b"{}", "ContentType": "application/json", **arguments}
        )

    def tell(self, name: str, request: Mapping[str, Any] | None = None, **arguments: Any) -> Any:
        """Return what a model of MODE tell answers."""
        response = self.invoke(name, Body=json.dumps(request or {}).encode(), **arguments)
        return json.loads(response["Body"].read())

    # Objects

    def put(self, key: str, content: bytes) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=content)

    def get(self, key: str) -> bytes:
        content: bytes = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def keys(self, prefix: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", [])]

    def archive(self, uri: str) -> dict[str, bytes]:
        """Return the files of a ``tar.gz`` in S3."""
        content = self.get(uri.removeprefix(f"s3://{BUCKET}/"))
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            files = {member.name: tar.extractfile(member) for member in tar}
            return {name: file.read() for name, file in files.items() if file is not None}
