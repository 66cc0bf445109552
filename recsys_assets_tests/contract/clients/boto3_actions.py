"""Boto3: every action that the local services support, done and refused.

What belongs here: calls of boto3's clients, paginators and waiters. Each action is done by a case,
listed page by page where it lists, and refused with AWS's error code where AWS refuses it.
"""

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import api_requests
import boto3
from botocore import xform_name
from botocore.exceptions import ClientError
from cases import (
    BUCKET,
    DATA,
    ENDLESS,
    JSON_LINES,
    RECORDIO,
    ROLE,
    Evidence,
    case,
    eventually,
    needs_opt_ml,
    once,
    report,
    s3_key,
    scores_in,
    unique,
)

Request = dict[str, Any]

RUN = unique("b")
"""Part of every name of this run, so that lists can be narrowed to it."""

LOGS = "/aws/sagemaker/TrainingJobs"
OBJECTS = boto3.client("s3")
QUICK = {"Delay": 1, "MaxAttempts": 120}


@functools.cache
def client(service: str) -> Any:
    return boto3.client(service)


def call(action: str, service: str = "sagemaker", **request: Any) -> Any:
    """Send a request by AWS's name of its action."""
    return getattr(client(service), xform_name(action))(**request)


def refusal(action: str, what: str, code: str, service: str = "sagemaker") -> Any:
    """Make a case of a request, which the decorated function returns, that must be refused."""

    def register(request: Callable[[], Request]) -> Callable[[], Request]:
        @case(f"{action} refuses {what}: {code}")
        def refused() -> Evidence:
            try:
                answer = call(action, service, **request())
            except ClientError as error:
                assert error.response["Error"]["Code"] == code, error
                assert error.response["Error"]["Message"], error
                return None
            raise AssertionError(f"{action} was not refused: {answer}")

        return request

    return register


# What the cases work on; each is made when the first case needs it


@once
def trained() -> str:
    """Name of a training job that has completed."""
    name = f"{RUN}-trained"
    call("CreateTrainingJob", **api_requests.training(name), Tags=[{"Key": "a", "Value": "1"}])
    waiter = client("sagemaker").get_waiter("training_job_completed_or_stopped")
    waiter.wait(TrainingJobName=name, WaiterConfig=QUICK)
    return name


@once
def stopped() -> str:
    """Name of a training job that was stopped while it ran."""
    name = f"{RUN}-stopped"
    call("CreateTrainingJob", **api_requests.training(name, **ENDLESS))
    eventually(lambda: any("#quality_metric" in line for line in log_of(name)))
    call("StopTrainingJob", TrainingJobName=name)
    ended("DescribeTrainingJob", "TrainingJob", name)
    return name


@once
def failed() -> str:
    """Name of a training job that failed."""
    name = f"{RUN}-failed"
    call("CreateTrainingJob", **api_requests.training(name, mini_batch_siz="1"))
    ended("DescribeTrainingJob", "TrainingJob", name)
    return name


@once
def tuned() -> str:
    """Name of a tuning job that has completed."""
    name = f"{RUN}-tuned"
    call("CreateHyperParameterTuningJob", **api_requests.tuning(name, jobs=3))
    ended("DescribeHyperParameterTuningJob", "HyperParameterTuningJob", name)
    return name


@once
def stopped_tuning() -> str:
    """Name of a tuning job that was stopped while its training job ran."""
    name = f"{RUN}-stopped"
    call("CreateHyperParameterTuningJob", **api_requests.tuning(name, 1, 1, **ENDLESS))
    eventually(lambda: children(name))
    call("StopHyperParameterTuningJob", HyperParameterTuningJobName=name)
    ended("DescribeHyperParameterTuningJob", "HyperParameterTuningJob", name)
    return name


@once
def models() -> list[str]:
    """Names of three models of the same artefact."""
    names = [f"{RUN}-model-{number}" for number in range(3)]
    for name in names:
        call("CreateModel", **api_requests.model(name, artefact()))
    return names


@once
def transformed() -> str:
    """Name of a transform job that has completed."""
    name = f"{RUN}-transformed"
    call("CreateTransformJob", **api_requests.transform(name, models()[0]))
    waiter = client("sagemaker").get_waiter("transform_job_completed_or_stopped")
    waiter.wait(TransformJobName=name, WaiterConfig=QUICK)
    return name


@once
def stopped_transform() -> str:
    """Name of a transform job that was stopped."""
    name = f"{RUN}-stopped"
    call("CreateTransformJob", **api_requests.long_transform(name, models()[0]))
    call("StopTransformJob", TransformJobName=name)
    ended("DescribeTransformJob", "TransformJob", name)
    return name


@once
def processed() -> str:
    """Name of a processing job that has completed."""
    needs_opt_ml()
    name = f"{RUN}-processed"
    call("CreateProcessingJob", **api_requests.processing(name, *api_requests.COPY))
    waiter = client("sagemaker").get_waiter("processing_job_completed_or_stopped")
    waiter.wait(ProcessingJobName=name, WaiterConfig=QUICK)
    return name


@once
def stopped_processing() -> str:
    """Name of a processing job that was stopped while it ran."""
    needs_opt_ml()
    name = f"{RUN}-stopped"
    call("CreateProcessingJob", **api_requests.processing(name, "sleep", "600"))
    call("StopProcessingJob", ProcessingJobName=name)
    ended("DescribeProcessingJob", "ProcessingJob", name)
    return name


@once
def configs() -> list[str]:
    """Names of two configurations of endpoints, of different models."""
    names = [f"{RUN}-config-{number}" for number in range(2)]
    for name, model in zip(names, models(), strict=False):
        call("CreateEndpointConfig", **api_requests.endpoint_config(name, model))
    return names


@once
def endpoints() -> list[str]:
    """Names of two endpoints in service."""
    names = [f"{RUN}-endpoint-{number}" for number in range(2)]
    for name in names:
        call("CreateEndpoint", EndpointName=name, EndpointConfigName=configs()[0])
    for name in names:
        await_endpoint("endpoint_in_service", name)
    return names


def await_endpoint(waiter: str, name: str) -> None:
    found = client("sagemaker").get_waiter(waiter)
    found.wait(EndpointName=name, WaiterConfig=QUICK)


def ended(action: str, kind: str, name: str) -> Any:
    """Wait for the end of a job and return its description."""

    def description() -> Any:
        job = call(action, **{f"{kind}Name": name})
        return job[f"{kind}Status"] in ("Completed", "Failed", "Stopped") and job

    return eventually(description)


def training_job(name: str) -> Any:
    return call("DescribeTrainingJob", TrainingJobName=name)


def log_of(name: str) -> list[str]:
    """Return the lines that a training job has logged so far."""
    try:
        found = call("DescribeLogStreams", "logs", logGroupName=LOGS, logStreamNamePrefix=name)
    except client("logs").exceptions.ResourceNotFoundException:
        return []
    return [
        event["message"]
        for stream in found["logStreams"]
        for event in call(
            "GetLogEvents", "logs", logGroupName=LOGS, logStreamName=stream["logStreamName"]
        )["events"]
    ]


def artefact() -> str:
    uri: str = training_job(trained())["ModelArtifacts"]["S3ModelArtifacts"]
    return uri


def children(name: str) -> list[Any]:
    action = "ListTrainingJobsForHyperParameterTuningJob"
    found: list[Any] = call(action, HyperParameterTuningJobName=name)["TrainingJobSummaries"]
    return found


# Training jobs


@case("CreateTrainingJob, DescribeTrainingJob and the waiter: from data to metrics")
def _() -> Evidence:
    job = training_job(trained())
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Completed", job
    assert job["HyperParameters"] == api_requests.training("x")["HyperParameters"]
    messages = [change["StatusMessage"] for change in job["SecondaryStatusTransitions"]]
    assert len(set(messages)) == len(messages) > 2, messages
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    assert metrics["test:rmse"] > 0
    assert metrics["train:progress"] == 100
    return {"model": artefact(), "test_rmse": metrics["test:rmse"]}


@case("StopTrainingJob ends a running job")
def _() -> Evidence:
    job = training_job(stopped())
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Stopped", job
    return None


@case("DescribeTrainingJob tells why a job failed")
def _() -> Evidence:
    job = training_job(failed())
    assert job["TrainingJobStatus"] == "Failed", job
    assert "mini_batch_siz" in job["FailureReason"], job
    return None


@refusal("CreateTrainingJob", "a name that is taken", "ResourceInUse")
def _() -> Request:
    return api_requests.training(trained())


@refusal("CreateTrainingJob", "a name of wrong characters", "ValidationException")
def _() -> Request:
    return api_requests.training("under_score")


@refusal("CreateTrainingJob", "a channel without objects", "ValidationException")
def _() -> Request:
    return api_requests.training("x") | {"InputDataConfig": [api_requests.channel("nothing")]}


@refusal("CreateTrainingJob", "an unknown image", "ValidationException")
def _() -> Request:
    specification = {"TrainingImage": "nobody/knows:1", "TrainingInputMode": "File"}
    return api_requests.training("x") | {"AlgorithmSpecification": specification}


@refusal("CreateTrainingJob", "a cluster, which is not supported here", "ValidationException")
def _() -> Request:
    return api_requests.training("x") | {
        "ResourceConfig": api_requests.RESOURCES | {"InstanceCount": 2}
    }


@refusal("DescribeTrainingJob", "a missing job", "ValidationException")
def _() -> Request:
    return {"TrainingJobName": "missing"}


@refusal("StopTrainingJob", "a missing job", "ResourceNotFound")
def _() -> Request:
    return {"TrainingJobName": "missing"}


@refusal("StopTrainingJob", "a job that has ended", "ValidationException")
def _() -> Request:
    return {"TrainingJobName": trained()}


# Tuning jobs


@case("CreateHyperParameterTuningJob finds the best of its training jobs")
def _() -> Evidence:
    job = call("DescribeHyperParameterTuningJob", HyperParameterTuningJobName=tuned())
    assert job["HyperParameterTuningJobStatus"] == "Completed", job
    assert job["TrainingJobStatusCounters"]["Completed"] == 3
    assert job["ObjectiveStatusCounters"]["Succeeded"] == 3
    scores = {
        child["TrainingJobName"]: child["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
        for child in children(tuned())
    }
    best = job["BestTrainingJob"]["TrainingJobName"]
    assert len(scores) == 3
    assert scores[best] == min(scores.values())
    uri = training_job(best)["ModelArtifacts"]["S3ModelArtifacts"]
    return {"model": uri, "test_rmse": scores[best]}


@case("StopHyperParameterTuningJob ends a running job and its training jobs")
def _() -> Evidence:
    job = call("DescribeHyperParameterTuningJob", HyperParameterTuningJobName=stopped_tuning())
    assert job["HyperParameterTuningJobStatus"] == "Stopped", job
    (child,) = children(stopped_tuning())
    assert child["TrainingJobStatus"] == "Stopped", child
    return None


@case("CreateHyperParameterTuningJob: Grid tries every combination once")
def _() -> Evidence:
    request = api_requests.tuning(unique("grid"), jobs=2)
    values = {"Name": api_requests.TUNED, "Values": ["0.01", "0.02"]}
    config = request["HyperParameterTuningJobConfig"]
    config |= {"Strategy": "Grid", "ParameterRanges": {"CategoricalParameterRanges": [values]}}
    assert _tuned_values(request) == ["0.01", "0.02"]
    return None


@case("CreateHyperParameterTuningJob: Bayesian, warm-started from another tuning job")
def _() -> Evidence:
    parents = [{"HyperParameterTuningJobName": tuned()}]
    warm_start = {
        "ParentHyperParameterTuningJobs": parents,
        "WarmStartType": "IdenticalDataAndAlgorithm",
    }
    request = api_requests.tuning(unique("bayes")) | {"WarmStartConfig": warm_start}
    request["HyperParameterTuningJobConfig"]["Strategy"] = "Bayesian"
    assert len(set(_tuned_values(request))) == 2
    return None


def _tuned_values(request: Request) -> list[str]:
    """Run a tuning job and return what it tried, in order of size."""
    name = request["HyperParameterTuningJobName"]
    call("CreateHyperParameterTuningJob", **request)
    job = ended("DescribeHyperParameterTuningJob", "HyperParameterTuningJob", name)
    assert job["HyperParameterTuningJobStatus"] == "Completed", job
    return sorted(child["TunedHyperParameters"][api_requests.TUNED] for child in children(name))


@case("DeleteHyperParameterTuningJob leaves the training jobs")
def _() -> Evidence:
    name = f"{RUN}-deleted"
    call("CreateHyperParameterTuningJob", **api_requests.tuning(name, 1, 1))
    ended("DescribeHyperParameterTuningJob", "HyperParameterTuningJob", name)
    (child,) = children(name)
    call("DeleteHyperParameterTuningJob", HyperParameterTuningJobName=name)
    action = "ListHyperParameterTuningJobs"
    assert call(action, NameContains=name)["HyperParameterTuningJobSummaries"] == []
    assert training_job(child["TrainingJobName"])["TrainingJobStatus"] == "Completed"
    return None


@refusal("DeleteHyperParameterTuningJob", "a missing job", "ResourceNotFound")
def _() -> Request:
    return {"HyperParameterTuningJobName": "missing"}


@refusal("CreateHyperParameterTuningJob", "a name that is taken", "ResourceInUse")
def _() -> Request:
    return api_requests.tuning(tuned())


@refusal("CreateHyperParameterTuningJob", "a name of 33 characters", "ValidationException")
def _() -> Request:
    return api_requests.tuning("a" * 33)


@refusal("CreateHyperParameterTuningJob", "Hyperband for this algorithm", "ValidationException")
def _() -> Request:
    request = api_requests.tuning("x")
    request["HyperParameterTuningJobConfig"] |= {
        "Strategy": "Hyperband",
        "StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 3}},
    }
    return request


@refusal("CreateHyperParameterTuningJob", "an unknown objective", "ValidationException")
def _() -> Request:
    request = api_requests.tuning("x")
    objective = {"Type": "Minimize", "MetricName": "test:unknown"}
    request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"] = objective
    return request


@refusal("DescribeHyperParameterTuningJob", "a missing job", "ResourceNotFound")
def _() -> Request:
    return {"HyperParameterTuningJobName": "missing"}


@refusal("StopHyperParameterTuningJob", "a missing job", "ResourceNotFound")
def _() -> Request:
    return {"HyperParameterTuningJobName": "missing"}


@refusal("StopHyperParameterTuningJob", "a job that has ended", "ValidationException")
def _() -> Request:
    return {"HyperParameterTuningJobName": tuned()}


@refusal("ListTrainingJobsForHyperParameterTuningJob", "a missing job", "ResourceNotFound")
def _() -> Request:
    return {"HyperParameterTuningJobName": "missing"}


# Models


@case("CreateModel and DescribeModel: what was told is told back")
def _() -> Evidence:
    name = models()[0]
    told, model = api_requests.model(name, artefact()), call("DescribeModel", ModelName=name)
    assert model.items() >= told.items(), model
    assert "VpcConfig" not in model
    return None


@case("DeleteModel leaves the artefact")
def _() -> Evidence:
    name = f"{RUN}-deleted"
    call("CreateModel", **api_requests.model(name, artefact()))
    call("DeleteModel", ModelName=name)
    listed = call("ListModels", NameContains=name)
    assert listed["Models"] == [], listed
    OBJECTS.head_object(Bucket=BUCKET, Key=s3_key(artefact()))
    return None


@refusal("CreateModel", "a name that is taken", "ValidationException")
def _() -> Request:
    return api_requests.model(models()[0], artefact())


@refusal("CreateModel", "an unknown image", "ValidationException")
def _() -> Request:
    container = {"Image": "nobody/knows:1", "ModelDataUrl": artefact()}
    return api_requests.model("x", artefact()) | {"PrimaryContainer": container}


@refusal("DescribeModel", "a missing model", "ValidationException")
def _() -> Request:
    return {"ModelName": "missing"}


@refusal("DeleteModel", "a missing model", "ValidationException")
def _() -> Request:
    return {"ModelName": "missing"}


# Transform jobs


@case("CreateTransformJob, DescribeTransformJob and the waiter: the model's scores")
def _() -> Evidence:
    job = call("DescribeTransformJob", TransformJobName=transformed())
    assert job["TransformJobStatus"] == "Completed", job
    prefix = s3_key(job["TransformOutput"]["S3OutputPath"])
    objects = OBJECTS.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
    keys = [found["Key"] for found in objects]
    assert keys == [f"{prefix}/chunk-0.pbr.out", f"{prefix}/chunk-1.pbr.out"], keys
    scores = [
        score
        for key in keys
        for score in scores_in(OBJECTS.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    ]
    return {"model": artefact(), "scores": scores}


@case("StopTransformJob ends a job")
def _() -> Evidence:
    job = call("DescribeTransformJob", TransformJobName=stopped_transform())
    assert job["TransformJobStatus"] == "Stopped", job
    return None


@refusal("CreateTransformJob", "a name that is taken", "ResourceInUse")
def _() -> Request:
    return api_requests.transform(transformed(), models()[0])


@refusal("CreateTransformJob", "a missing model", "ResourceNotFound")
def _() -> Request:
    return api_requests.transform("x", "missing")


@refusal("DescribeTransformJob", "a missing job", "ValidationException")
def _() -> Request:
    return {"TransformJobName": "missing"}


@refusal("StopTransformJob", "a missing job", "ResourceNotFound")
def _() -> Request:
    return {"TransformJobName": "missing"}


@refusal("StopTransformJob", "a job that has ended", "ValidationException")
def _() -> Request:
    return {"TransformJobName": transformed()}


# Processing jobs


@case("CreateProcessingJob, DescribeProcessingJob and the waiter: a command's output in S3")
def _() -> Evidence:
    job = call("DescribeProcessingJob", ProcessingJobName=processed())
    assert job["ProcessingJobStatus"] == "Completed", job
    (output,) = job["ProcessingOutputConfig"]["Outputs"]
    copied = objects_at(output["S3Output"]["S3Uri"])
    assert copied == objects_at(f"{DATA}/unlabelled"), list(copied)
    return None


def objects_at(uri: str) -> dict[str, bytes]:
    """Return the objects below an S3 URI by the rest of their keys."""
    prefix = s3_key(uri) + "/"
    return {
        found["Key"].removeprefix(prefix): OBJECTS.get_object(Bucket=BUCKET, Key=found["Key"])[
            "Body"
        ].read()
        for found in OBJECTS.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
    }


@case("StopProcessingJob ends a job")
def _() -> Evidence:
    job = call("DescribeProcessingJob", ProcessingJobName=stopped_processing())
    assert job["ProcessingJobStatus"] == "Stopped", job
    return None


@refusal("CreateProcessingJob", "a name that is taken", "ResourceInUse")
def _() -> Request:
    return api_requests.processing(processed(), "true")


@refusal("CreateProcessingJob", "an unknown image", "ValidationException")
def _() -> Request:
    request = api_requests.processing("x", "true")
    return request | {"AppSpecification": {"ImageUri": "nobody/knows:1"}}


@refusal("DescribeProcessingJob", "a missing job", "ValidationException")
def _() -> Request:
    return {"ProcessingJobName": "missing"}


@refusal("StopProcessingJob", "a missing job", "ResourceNotFound")
def _() -> Request:
    return {"ProcessingJobName": "missing"}


@refusal("StopProcessingJob", "a job that has ended", "ValidationException")
def _() -> Request:
    return {"ProcessingJobName": processed()}


# Endpoint configurations and endpoints


@case("CreateEndpointConfig and DescribeEndpointConfig: what was told is told back")
def _() -> Evidence:
    told = api_requests.endpoint_config(configs()[0], models()[0])
    config = call("DescribeEndpointConfig", EndpointConfigName=configs()[0])
    assert config["ProductionVariants"] == told["ProductionVariants"], config
    return None


@case("DeleteEndpointConfig forgets a configuration")
def _() -> Evidence:
    name = f"{RUN}-forgotten"
    call("CreateEndpointConfig", **api_requests.endpoint_config(name, models()[0]))
    call("DeleteEndpointConfig", EndpointConfigName=name)
    assert call("ListEndpointConfigs", NameContains=name)["EndpointConfigs"] == []
    return None


@case("CreateEndpoint, the waiter, DescribeEndpoint and InvokeEndpoint: the model's scores")
def _() -> Evidence:
    endpoint = call("DescribeEndpoint", EndpointName=endpoints()[0])
    assert endpoint["EndpointStatus"] == "InService", endpoint
    answer = invoke(endpoints()[0], JSON_LINES, json_lines(), Accept=JSON_LINES)
    assert answer["InvokedProductionVariant"] == "all", answer
    assert answer["ContentType"] == JSON_LINES, answer
    return {"model": artefact(), "scores": scores_in(answer["Body"].read())}


@case("InvokeEndpoint with JSON and RecordIO")
def _() -> Evidence:
    rows = [json.loads(line) for line in json_lines().splitlines()]
    answer = invoke(endpoints()[0], "application/json", json.dumps({"instances": rows}))
    predictions = json.loads(answer["Body"].read())["predictions"]
    records = b"".join(objects_at(f"{DATA}/unlabelled").values())
    from_records = invoke(endpoints()[0], RECORDIO, records, Accept=JSON_LINES)
    scores = [prediction["score"] for prediction in predictions]
    assert scores_in(from_records["Body"].read()) == scores
    return {"model": artefact(), "scores": scores}


def invoke(endpoint: str, content_type: str, body: str | bytes, **options: Any) -> Any:
    return call(
        "InvokeEndpoint",
        "sagemaker-runtime",
        EndpointName=endpoint,
        ContentType=content_type,
        Body=body,
        **options,
    )


def json_lines() -> bytes:
    (rows,) = objects_at(f"{DATA}/lines").values()
    return rows


@case("UpdateEndpoint brings another configuration into service")
def _() -> Evidence:
    name = endpoints()[0]
    call("UpdateEndpoint", EndpointName=name, EndpointConfigName=configs()[1])
    await_endpoint("endpoint_in_service", name)
    endpoint = call("DescribeEndpoint", EndpointName=name)
    assert endpoint["EndpointConfigName"] == configs()[1], endpoint
    return None


@case("UpdateEndpointWeightsAndCapacities changes the number of instances")
def _() -> Evidence:
    name = endpoints()[1]
    wanted = {"VariantName": "all", "DesiredInstanceCount": 2, "DesiredWeight": 3.0}
    call(
        "UpdateEndpointWeightsAndCapacities",
        EndpointName=name,
        DesiredWeightsAndCapacities=[wanted],
    )
    await_endpoint("endpoint_in_service", name)
    (variant,) = call("DescribeEndpoint", EndpointName=name)["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["CurrentWeight"]) == (2, 3.0), variant
    return None


@case("DeleteEndpoint and the waiter: it is gone")
def _() -> Evidence:
    name = f"{RUN}-short"
    call("CreateEndpoint", EndpointName=name, EndpointConfigName=configs()[0])
    await_endpoint("endpoint_in_service", name)
    call("DeleteEndpoint", EndpointName=name)
    await_endpoint("endpoint_deleted", name)
    return None


@refusal("CreateEndpointConfig", "a name that is taken", "ValidationException")
def _() -> Request:
    return api_requests.endpoint_config(configs()[0], models()[0])


@refusal("CreateEndpointConfig", "a missing model", "ValidationException")
def _() -> Request:
    return api_requests.endpoint_config("x", "missing")


@refusal("DescribeEndpointConfig", "a missing configuration", "ValidationException")
def _() -> Request:
    return {"EndpointConfigName": "missing"}


@refusal("DeleteEndpointConfig", "a missing configuration", "ValidationException")
def _() -> Request:
    return {"EndpointConfigName": "missing"}


@refusal("CreateEndpoint", "a name that is taken", "ValidationException")
def _() -> Request:
    return {"EndpointName": endpoints()[0], "EndpointConfigName": configs()[0]}


@refusal("CreateEndpoint", "a missing configuration", "ValidationException")
def _() -> Request:
    return {"EndpointName": "x", "EndpointConfigName": "missing"}


@refusal("UpdateEndpoint", "a missing endpoint", "ValidationException")
def _() -> Request:
    return {"EndpointName": "missing", "EndpointConfigName": configs()[0]}


@refusal("UpdateEndpointWeightsAndCapacities", "an unknown variant", "ValidationException")
def _() -> Request:
    wanted = [{"VariantName": "unknown", "DesiredWeight": 1.0}]
    return {"EndpointName": endpoints()[1], "DesiredWeightsAndCapacities": wanted}


@refusal("DescribeEndpoint", "a missing endpoint", "ValidationException")
def _() -> Request:
    return {"EndpointName": "missing"}


@refusal("DeleteEndpoint", "a missing endpoint", "ValidationException")
def _() -> Request:
    return {"EndpointName": "missing"}


@refusal("InvokeEndpoint", "a missing endpoint", "ValidationError", "sagemaker-runtime")
def _() -> Request:
    return {"EndpointName": "missing", "Body": b"{}"}


@refusal("InvokeEndpoint", "what the model cannot read", "ModelError", "sagemaker-runtime")
def _() -> Request:
    return {"EndpointName": endpoints()[0], "ContentType": JSON_LINES, "Body": b"not JSON"}


# Tags


@case("AddTags and ListTags: tags of the creation, added and replaced ones")
def _() -> Evidence:
    arn = training_job(trained())["TrainingJobArn"]
    added = [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": ""}]
    call("AddTags", ResourceArn=arn, Tags=added)
    pages = client("sagemaker").get_paginator("list_tags").paginate(ResourceArn=arn)
    tags = [tag for page in pages for tag in page["Tags"]]
    assert sorted(tags, key=lambda tag: tag["Key"]) == added, tags
    return None


@case("DeleteTags takes tags away")
def _() -> Evidence:
    arn = call("DescribeModel", ModelName=models()[0])["ModelArn"]
    call("AddTags", ResourceArn=arn, Tags=[{"Key": key, "Value": "x"} for key in "ab"])
    call("DeleteTags", ResourceArn=arn, TagKeys=["a", "absent"])
    assert call("ListTags", ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": "x"}]
    return None


@refusal("DeleteTags", "a missing resource", "ValidationException")
def _() -> Request:
    arn = call("DescribeModel", ModelName=models()[0])["ModelArn"].replace(RUN, "missing")
    return {"ResourceArn": arn, "TagKeys": ["a"]}


@refusal("AddTags", "a missing resource", "ValidationException")
def _() -> Request:
    arn = training_job(trained())["TrainingJobArn"].replace(RUN, "missing")
    return {"ResourceArn": arn, "Tags": [{"Key": "a", "Value": "1"}]}


@refusal("ListTags", "what is no ARN", "ValidationException")
def _() -> Request:
    return {"ResourceArn": "not an arn"}


# Logs


@case("DescribeLogStreams and GetLogEvents: a job's log, forwards, backwards and in pages")
def _() -> Evidence:
    prefix = f"{trained()}/"
    streams = call("DescribeLogStreams", "logs", logGroupName=LOGS, logStreamNamePrefix=prefix)
    (stream,) = streams["logStreams"]
    where = {"logGroupName": LOGS, "logStreamName": stream["logStreamName"]}
    whole = call("GetLogEvents", "logs", **where, startFromHead=True)
    messages = [event["message"] for event in whole["events"]]
    assert any("#quality_metric" in message for message in messages), messages
    again = call(
        "GetLogEvents", "logs", **where, startFromHead=True, nextToken=whole["nextForwardToken"]
    )
    assert again["events"] == []
    assert again["nextForwardToken"] == whole["nextForwardToken"]
    forwards = list(_pages_of_log(where, "nextForwardToken", startFromHead=True))
    assert [line for page in forwards for line in page] == messages
    backwards = list(_pages_of_log(where, "nextBackwardToken", startFromHead=False))
    assert [line for page in reversed(backwards) for line in page] == messages
    return None


def _pages_of_log(where: Request, token: str, **options: Any) -> Iterator[list[str]]:
    while True:
        answer = call("GetLogEvents", "logs", **where, **options, limit=7)
        if not answer["events"]:
            return
        yield [event["message"] for event in answer["events"]]
        options["nextToken"] = answer[token]


@case("FilterLogEvents: lines with a word, over all pages")
def _() -> Evidence:
    pages = client("logs").get_paginator("filter_log_events")
    found = pages.paginate(
        logGroupName=LOGS,
        logStreamNamePrefix=trained(),
        filterPattern="quality_metric",
        PaginationConfig={"PageSize": 2},
    )
    messages = [event["message"] for page in found for event in page["events"]]
    assert messages == [line for line in log_of(trained()) if "quality_metric" in line]
    assert len(messages) > 2
    return None


@case("DescribeLogGroups")
def _() -> Evidence:
    trained()
    groups = call("DescribeLogGroups", "logs", logGroupNamePrefix="/aws/sagemaker/")
    assert LOGS in [group["logGroupName"] for group in groups["logGroups"]], groups
    return None


@refusal("FilterLogEvents", "a missing group", "ResourceNotFoundException", "logs")
def _() -> Request:
    return {"logGroupName": "/aws/missing"}


@refusal("DescribeLogGroups", "a token of nobody", "InvalidParameterException", "logs")
def _() -> Request:
    return {"nextToken": "made-up"}


@refusal("DescribeLogStreams", "a missing group", "ResourceNotFoundException", "logs")
def _() -> Request:
    return {"logGroupName": "/aws/missing"}


@refusal("GetLogEvents", "a missing stream", "ResourceNotFoundException", "logs")
def _() -> Request:
    return {"logGroupName": LOGS, "logStreamName": "missing"}


@refusal("GetLogEvents", "a token of nobody", "InvalidParameterException", "logs")
def _() -> Request:
    return {"logGroupName": LOGS, "logStreamName": "missing", "nextToken": "made-up"}


# Identity


@case("GetCallerIdentity: one account, that of the resources")
def _() -> Evidence:
    account = call("GetCallerIdentity", "sts")["Account"]
    assert f":{account}:" in training_job(trained())["TrainingJobArn"]
    assert f":{account}:" in ROLE
    return None


@case("GetRole: the role that jobs take, which SageMaker may assume")
def _() -> Evidence:
    role = call("GetRole", "iam", RoleName=ROLE.rpartition("/")[2])["Role"]
    assert role["Arn"] == ROLE
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}, role
    return None


@case("SimulatePrincipalPolicy, in pages")
def _() -> Evidence:
    actions = ["s3:GetObject", "s3:PutObject", "logs:PutLogEvents"]
    pages = client("iam").get_paginator("simulate_principal_policy")
    found = pages.paginate(
        PolicySourceArn=ROLE, ActionNames=actions, PaginationConfig={"PageSize": 2}
    )
    results = [result for page in found for result in page["EvaluationResults"]]
    assert [result["EvalActionName"] for result in results] == actions, results
    assert {result["EvalDecision"] for result in results} == {"allowed"}, results
    return None


@refusal("GetRole", "a missing role", "NoSuchEntity", "iam")
def _() -> Request:
    return {"RoleName": "missing"}


@refusal("SimulatePrincipalPolicy", "a missing role", "NoSuchEntity", "iam")
def _() -> Request:
    arn = ROLE.rpartition("/")[0] + "/missing"
    return {"PolicySourceArn": arn, "ActionNames": ["s3:GetObject"]}


# Lists


@dataclass(frozen=True)
class Listing:
    """A List action, and resources of this run for it to list."""

    action: str
    answers: str
    name: str
    resources: Callable[[], list[str]]
    status: tuple[str, str] | None = None  # and the one resource of it
    request: Callable[[], Request] = lambda: {"NameContains": RUN}

    def names(self, **options: Any) -> list[str]:
        """Return names over all pages, which the paginator puts together."""
        pages = client("sagemaker").get_paginator(xform_name(self.action))
        found = pages.paginate(**(self.request() | options))
        return [item[self.name] for page in found for item in page[self.answers]]

    def items(self) -> list[Any]:
        answer = call(self.action, **self.request())
        items: list[Any] = answer[self.answers]
        return items


def _tuning_children() -> list[str]:
    return [child["TrainingJobName"] for child in children(tuned())]


LISTINGS = [
    Listing(
        "ListTrainingJobs",
        "TrainingJobSummaries",
        "TrainingJobName",
        lambda: [trained(), failed(), stopped()],
        ("Failed", f"{RUN}-failed"),
        # The training jobs of tuning jobs begin with the name of theirs.
        lambda: {"NameContains": f"{RUN}-", "CreationTimeBefore": _tuning_began()},
    ),
    Listing(
        "ListHyperParameterTuningJobs",
        "HyperParameterTuningJobSummaries",
        "HyperParameterTuningJobName",
        lambda: [tuned(), stopped_tuning()],
        ("Stopped", f"{RUN}-stopped"),
    ),
    Listing(
        "ListTrainingJobsForHyperParameterTuningJob",
        "TrainingJobSummaries",
        "TrainingJobName",
        _tuning_children,
        request=lambda: {"HyperParameterTuningJobName": tuned()},
    ),
    Listing("ListModels", "Models", "ModelName", models),
    Listing(
        "ListTransformJobs",
        "TransformJobSummaries",
        "TransformJobName",
        lambda: [transformed(), stopped_transform()],
        ("Completed", f"{RUN}-transformed"),
    ),
    Listing(
        "ListProcessingJobs",
        "ProcessingJobSummaries",
        "ProcessingJobName",
        lambda: [processed(), stopped_processing()],
        ("Completed", f"{RUN}-processed"),
    ),
    Listing("ListEndpointConfigs", "EndpointConfigs", "EndpointConfigName", configs),
    Listing("ListEndpoints", "Endpoints", "EndpointName", endpoints),
]


def _list_cases(listing: Listing) -> None:
    action = listing.action

    @case(f"{action}: one a page, sorted both ways")
    def sorted_pages() -> Evidence:
        resources = listing.resources()
        one_a_page: Request = {"PaginationConfig": {"PageSize": 1}}
        for order in ("Ascending", "Descending"):
            names = listing.names(SortBy="Name", SortOrder=order, **one_a_page)
            assert names == sorted(resources, reverse=order == "Descending"), names
            made = listing.names(SortBy="CreationTime", SortOrder=order, **one_a_page)
            times = {item[listing.name]: item["CreationTime"] for item in listing.items()}
            expected = sorted(times.values(), reverse=order == "Descending")
            assert [times[name] for name in made] == expected, made
        return None

    if listing.status:
        status, name = listing.status

        @case(f"{action}: filtered by status")
        def of_status() -> Evidence:
            listing.resources()
            names = listing.names(StatusEquals=status)
            assert names == [name], names
            return None

    if "HyperParameterTuningJobName" not in action and listing.name != "TrainingJobName":

        @case(f"{action}: filtered by creation time")
        def of_time() -> Evidence:
            listing.resources()
            times = sorted(item["CreationTime"] for item in listing.items())
            after = listing.names(CreationTimeAfter=times[-1] + timedelta(seconds=1))
            before = listing.names(CreationTimeBefore=times[0] - timedelta(seconds=1))
            assert after == before == []
            return None

    @refusal(action, "a NextToken of nobody", "ValidationException")
    def foreign_token() -> Request:
        return listing.request() | {"NextToken": "made-up"}

    @refusal(action, "an unknown SortBy", "ValidationException")
    def unknown_sort() -> Request:
        return listing.request() | {"SortBy": "Colour"}


def _tuning_began() -> Any:
    job = call("DescribeHyperParameterTuningJob", HyperParameterTuningJobName=tuned())
    return job["CreationTime"]


for _listing in LISTINGS:
    _list_cases(_listing)


if __name__ == "__main__":
    report("boto3", "botocore")
