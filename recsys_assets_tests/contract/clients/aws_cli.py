"""The AWS CLI: jobs from the command line, from JSON files and from options in its shorthand.

What belongs here: command lines of ``aws`` and what they print.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import api_requests
from cases import (
    DATA,
    ENDLESS,
    HYPERPARAMETERS,
    IMAGE,
    JSON_LINES,
    ROLE,
    Evidence,
    case,
    eventually,
    needs_opt_ml,
    once,
    raises,
    report,
    scores_in,
    unique,
)

AWS = Path(sys.executable).with_name("aws")
FOLDER = Path("files").absolute()
LOGS = "/aws/sagemaker/TrainingJobs"


class CommandError(RuntimeError):
    """The command failed; the message is its error output."""


def aws(*arguments: str) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run([AWS, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise CommandError(done.stderr.strip())
    return done.stdout


def sagemaker(command: str, *arguments: str) -> Any:
    output = aws("sagemaker", command, *arguments)
    return json.loads(output) if output.strip() else None


def create(command: str, request: dict[str, Any]) -> Any:
    return sagemaker(command, "--cli-input-json", json.dumps(request))


def ended(command: str, kind: str, option: str, name: str) -> Any:
    """Wait for the end of a job and return its description."""

    def description() -> Any:
        job = sagemaker(command, option, name)
        return job[f"{kind}Status"] in ("Completed", "Failed", "Stopped") and job

    return eventually(description)


def training_job(name: str) -> Any:
    return sagemaker("describe-training-job", "--training-job-name", name)


@once
def trained() -> str:
    """Name of a training job that has completed."""
    name = unique("cli")
    create("create-training-job", api_requests.training(name))
    ended("describe-training-job", "TrainingJob", "--training-job-name", name)
    return name


@once
def model() -> str:
    """Name of a model."""
    name = unique("cli")
    artefact = training_job(trained())["ModelArtifacts"]["S3ModelArtifacts"]
    create("create-model", api_requests.model(name, artefact))
    return name


@case("`sts get-caller-identity`")
def _() -> Evidence:
    identity = json.loads(aws("sts", "get-caller-identity"))
    assert f":{identity['Account']}:" in ROLE
    return None


@case("`s3 cp`, `ls`, `sync` and `rm`")
def _() -> Evidence:
    local, remote = FOLDER / "folder", f"{DATA}/cli-{unique('x')}"
    local.mkdir(parents=True)
    local.joinpath("large").write_bytes(b"x" * (9 << 20))  # above the size of one part
    local.joinpath("small").write_bytes(b"y")
    aws("s3", "cp", str(local / "large"), f"{remote}/large")
    aws("s3", "sync", str(local), remote)
    names = [line.split()[-1] for line in aws("s3", "ls", f"{remote}/").splitlines()]
    assert names == ["large", "small"], names
    aws("s3", "cp", f"{remote}/large", str(FOLDER / "copy"))
    assert FOLDER.joinpath("copy").stat().st_size == 9 << 20
    aws("s3", "rm", "--recursive", remote)
    # Recursive, for the local object store forgets an empty folder only after some seconds.
    raises("", aws, "s3", "ls", "--recursive", f"{remote}/")
    return None


@case("`create-training-job` from JSON, `describe-training-job` and `wait`")
def _() -> Evidence:
    aws("sagemaker", "wait", "training-job-completed-or-stopped", "--training-job-name", trained())
    job = training_job(trained())
    assert job["TrainingJobStatus"] == "Completed", job
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    artefact = job["ModelArtifacts"]["S3ModelArtifacts"]
    return {"model": artefact, "test_rmse": metrics["test:rmse"]}


@case("`create-training-job` from options in shorthand, with tags")
def _() -> Evidence:
    name = unique("cli")
    hyperparameters = ",".join(f"{key}={value}" for key, value in HYPERPARAMETERS.items())
    source = f"S3DataSource={{S3DataType=S3Prefix,S3Uri={DATA}/train}}"
    created = sagemaker(
        "create-training-job",
        *("--training-job-name", name),
        *("--hyper-parameters", hyperparameters),
        *("--algorithm-specification", f"TrainingImage={IMAGE},TrainingInputMode=File"),
        *("--role-arn", ROLE),
        *("--input-data-config", f"ChannelName=train,DataSource={{{source}}}"),
        *("--output-data-config", f"S3OutputPath={DATA}/models"),
        *("--resource-config", "InstanceType=ml.m5.large,InstanceCount=1,VolumeSizeInGB=1"),
        *("--stopping-condition", "MaxRuntimeInSeconds=600"),
        *("--tags", "Key=team,Value=films"),
    )
    job = ended("describe-training-job", "TrainingJob", "--training-job-name", name)
    assert job["TrainingJobStatus"] == "Completed", job
    tags = sagemaker("list-tags", "--resource-arn", created["TrainingJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "films"}], tags
    return {"model": job["ModelArtifacts"]["S3ModelArtifacts"]}


@case("`create-training-job` with a name that is taken")
def _() -> Evidence:
    request = api_requests.training(trained())
    raises("(ResourceInUse)", create, "create-training-job", request)
    return None


@case("`describe-training-job` of a missing job")
def _() -> Evidence:
    raises("(ValidationException)", training_job, "missing")
    return None


@case("`stop-training-job`")
def _() -> Evidence:
    name = unique("cli")
    create("create-training-job", api_requests.training(name, **ENDLESS))
    sagemaker("stop-training-job", "--training-job-name", name)
    job = ended("describe-training-job", "TrainingJob", "--training-job-name", name)
    assert job["TrainingJobStatus"] == "Stopped", job
    return None


@case("`list-training-jobs` in pages, with `--query` and text output")
def _() -> Evidence:
    for _ in range(2):
        create("create-training-job", api_requests.training(unique("page")))
    query = "TrainingJobSummaries[].TrainingJobName"
    command = ("list-training-jobs", "--name-contains", "page-", "--query", query)
    names = aws("sagemaker", *command, "--page-size", "1", "--output", "text").split()
    assert len(names) >= 2
    assert len(set(names)) == len(names)
    first = sagemaker("list-training-jobs", "--name-contains", "page-", "--max-items", "1")
    assert [job["TrainingJobName"] for job in first["TrainingJobSummaries"]] == names[:1]
    rest = sagemaker(*command, "--starting-token", first["NextToken"])
    assert rest == names[1:]
    return None


@case("`add-tags`, `delete-tags` and `list-tags`")
def _() -> Evidence:
    arn = training_job(trained())["TrainingJobArn"]
    sagemaker("add-tags", "--resource-arn", arn, "--tags", "Key=a,Value=1", "Key=b,Value=2")
    sagemaker("delete-tags", "--resource-arn", arn, "--tag-keys", "b")
    tags = sagemaker("list-tags", "--resource-arn", arn)["Tags"]
    assert tags == [{"Key": "a", "Value": "1"}], tags
    return None


@case("`logs describe-log-streams`, `get-log-events` and `filter-log-events`")
def _() -> Evidence:
    prefix = ("--log-stream-name-prefix", f"{trained()}/")
    found = json.loads(aws("logs", "describe-log-streams", "--log-group-name", LOGS, *prefix))
    (stream,) = [stream["logStreamName"] for stream in found["logStreams"]]
    read = ("--log-group-name", LOGS, "--log-stream-name", stream, "--start-from-head")
    events = json.loads(aws("logs", "get-log-events", *read))["events"]
    scored = [event["message"] for event in events if "#quality_metric" in event["message"]]
    assert scored, events
    pattern = ("--log-group-name", LOGS, "--filter-pattern", '"#quality_metric"')
    filtered = json.loads(aws("logs", "filter-log-events", *pattern, *prefix))["events"]
    assert [event["message"] for event in filtered] == scored
    return None


@case("`create-hyper-parameter-tuning-job` and the list of its training jobs")
def _() -> Evidence:
    name = unique("cli")
    option = "--hyper-parameter-tuning-job-name"
    create("create-hyper-parameter-tuning-job", api_requests.tuning(name))
    job = ended("describe-hyper-parameter-tuning-job", "HyperParameterTuningJob", option, name)
    assert job["HyperParameterTuningJobStatus"] == "Completed", job
    children = sagemaker(
        "list-training-jobs-for-hyper-parameter-tuning-job",
        *(option, name, "--sort-by", "FinalObjectiveMetricValue", "--sort-order", "Ascending"),
    )["TrainingJobSummaries"]
    assert len(children) == 2
    best = job["BestTrainingJob"]
    assert children[0]["TrainingJobName"] == best["TrainingJobName"]
    artefact = training_job(best["TrainingJobName"])["ModelArtifacts"]["S3ModelArtifacts"]
    rmse = best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    return {"model": artefact, "test_rmse": rmse}


@case("`stop-hyper-parameter-tuning-job`")
def _() -> Evidence:
    name = unique("cli")
    option = "--hyper-parameter-tuning-job-name"
    create("create-hyper-parameter-tuning-job", api_requests.tuning(name, 1, 1, **ENDLESS))
    sagemaker("stop-hyper-parameter-tuning-job", option, name)
    job = ended("describe-hyper-parameter-tuning-job", "HyperParameterTuningJob", option, name)
    assert job["HyperParameterTuningJobStatus"] == "Stopped", job
    return None


@case("`create-model`, `describe-model`, `list-models` and `delete-model`")
def _() -> Evidence:
    name = unique("cli")
    create("create-model", api_requests.model(name, f"{DATA}/anything.tar.gz"))
    assert sagemaker("describe-model", "--model-name", name)["ModelName"] == name
    listed = sagemaker("list-models", "--name-contains", name)["Models"]
    assert [model["ModelName"] for model in listed] == [name]
    sagemaker("delete-model", "--model-name", name)
    raises("(ValidationException)", sagemaker, "describe-model", "--model-name", name)
    return None


@case("`create-transform-job`, and its scores by `s3 cp`")
def _() -> Evidence:
    name = unique("cli")
    create("create-transform-job", api_requests.transform(name, model()))
    job = ended("describe-transform-job", "TransformJob", "--transform-job-name", name)
    assert job["TransformJobStatus"] == "Completed", job
    output = FOLDER / "scores"
    aws("s3", "cp", "--recursive", job["TransformOutput"]["S3OutputPath"], str(output))
    scores = [score for file in sorted(output.iterdir()) for score in scores_in(file.read_text())]
    artefact = training_job(trained())["ModelArtifacts"]["S3ModelArtifacts"]
    return {"model": artefact, "scores": scores}


@case("`stop-transform-job`")
def _() -> Evidence:
    name = unique("cli")
    create("create-transform-job", api_requests.long_transform(name, model()))
    sagemaker("stop-transform-job", "--transform-job-name", name)
    job = ended("describe-transform-job", "TransformJob", "--transform-job-name", name)
    assert job["TransformJobStatus"] == "Stopped", job
    return None


@case("`create-endpoint`, `invoke-endpoint`, `update-endpoint` and `delete-endpoint`")
def _() -> Evidence:
    name, other = unique("cli"), unique("cli")
    for config in (name, other):
        create("create-endpoint-config", api_requests.endpoint_config(config, model()))
    named = ("--endpoint-name", name)
    sagemaker("create-endpoint", *named, "--endpoint-config-name", name)
    in_service(name)
    rows = FOLDER / "rows.jsonl"
    aws("s3", "cp", f"{DATA}/lines/rows.jsonl", str(rows))
    answer = FOLDER / "answer.jsonl"
    told = aws(
        *("sagemaker-runtime", "invoke-endpoint", *named),
        *("--body", f"fileb://{rows}"),
        *("--content-type", JSON_LINES, "--accept", JSON_LINES, str(answer)),
    )
    assert json.loads(told)["InvokedProductionVariant"] == "all", told
    sagemaker("update-endpoint", *named, "--endpoint-config-name", other)
    in_service(name)
    described = sagemaker("describe-endpoint", *named)
    assert described["EndpointConfigName"] == other, described
    sagemaker("delete-endpoint", *named)
    eventually(lambda: not sagemaker("list-endpoints", "--name-contains", name)["Endpoints"])
    aws("sagemaker", "wait", "endpoint-deleted", *named)
    sagemaker("delete-endpoint-config", "--endpoint-config-name", name)
    missing = ("--endpoint-config-name", name)
    raises("(ValidationException)", sagemaker, "describe-endpoint-config", *missing)
    artefact = training_job(trained())["ModelArtifacts"]["S3ModelArtifacts"]
    return {"model": artefact, "scores": scores_in(answer.read_text())}


def in_service(endpoint: str) -> None:
    """Wait for an endpoint as the CLI does, which would look again after 30 seconds."""
    named = ("--endpoint-name", endpoint)
    status = "EndpointStatus"
    eventually(lambda: sagemaker("describe-endpoint", *named)[status] == "InService")
    aws("sagemaker", "wait", "endpoint-in-service", *named)


@case("`create-processing-job` and `stop-processing-job`")
def _() -> Evidence:
    needs_opt_ml()
    name, option = unique("cli"), "--processing-job-name"
    create("create-processing-job", api_requests.processing(name, *api_requests.COPY))
    job = ended("describe-processing-job", "ProcessingJob", option, name)
    assert job["ProcessingJobStatus"] == "Completed", job
    listed = aws("s3", "ls", f"{DATA}/processed/{name}/").splitlines()
    assert [line.split()[-1] for line in listed] == ["chunk-0.pbr", "chunk-1.pbr"], listed
    name = unique("cli")
    create("create-processing-job", api_requests.processing(name, "sleep", "600"))
    sagemaker("stop-processing-job", option, name)
    job = ended("describe-processing-job", "ProcessingJob", option, name)
    assert job["ProcessingJobStatus"] == "Stopped", job
    return None


if __name__ == "__main__":
    report("awscli")
