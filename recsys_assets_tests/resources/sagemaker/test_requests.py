"""What a deployment asks for stands in the requests, in the API's words, and nothing else does."""

from typing import Any

import pytest
from dagster import Failure

from recsys_assets.resources.sagemaker import Range, Run, Training, Tuning
from recsys_assets.resources.sagemaker.config import (
    EncryptionConfig,
    EndpointConfig,
    NetworkConfig,
    TrainingConfig,
    TransformConfig,
)
from recsys_assets.resources.sagemaker.requests import Request, RequestMaker, require_valid

ROLE = "arn:aws:iam::123456789012:role/recsys"
IMAGE = "382416733822.dkr.ecr.us-east-1.amazonaws.com/factorization-machines:1"
RUN = Run("r", "root", "fm_model")
TRAINING = Training({"num_factors": "8"}, "s3://b/train/", "s3://b/validate/", "s3://b/out/")
TUNING = Tuning(TRAINING, (Range("epochs", "Integer", 1, 9),), "Random", 4, 2, seed=7)

NETWORK = NetworkConfig(
    subnets=["subnet-1"], security_group_ids=["sg-1"], isolation=True, encrypt_traffic=True
)
ENCRYPTION = EncryptionConfig(volume_kms_key_id="volume-key", output_kms_key_id="output-key")
VPC = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}


def maker(
    network: NetworkConfig | None = None, encryption: EncryptionConfig | None = None
) -> RequestMaker:
    return RequestMaker(IMAGE, ROLE, network or NetworkConfig(), encryption or EncryptionConfig())


def members(request: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of a request by their dotted paths; lists are transparent."""
    if isinstance(request, dict):
        return {
            key: value
            for name, item in request.items()
            for key, value in members(item, f"{path}.{name}" if path else name).items()
        }
    if isinstance(request, list):
        return {key: value for item in request for key, value in members(item, path).items()}
    return {path: request}


def added(request: Request, plain: Request) -> dict[str, Any]:
    """Return the leaves that a request has beyond or other than another one."""
    before = members(plain)
    return {k: v for k, v in members(request).items() if k not in before or before[k] != v}


def requests(made_by: RequestMaker) -> dict[str, Request]:
    return {
        "TrainingJob": made_by.training(TrainingConfig(), TRAINING, RUN),
        "HyperParameterTuningJob": made_by.tuning(TrainingConfig(), TUNING, RUN),
        "TransformJob": made_by.transform(TransformConfig(), "m", "s3://b/in/", "s3://b/out/"),
        "Model": made_by.model("s3://b/model.tar.gz"),
        "EndpointConfig": made_by.endpoint_config(EndpointConfig(), "m"),
    }


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("noun", requests(maker()))
def test_requests_fit_botocores_model(noun: str, everything: bool) -> None:
    made_by = maker(NETWORK, ENCRYPTION) if everything else maker()
    require_valid(f"Create{noun}", {f"{noun}Name": "a", **requests(made_by)[noun]})


def test_network_and_keys_stand_where_the_api_has_them() -> None:
    plain, full = requests(maker()), requests(maker(NETWORK, ENCRYPTION))
    vpc = {"VpcConfig.Subnets": "subnet-1", "VpcConfig.SecurityGroupIds": "sg-1"}
    training = {
        **vpc,
        "EnableNetworkIsolation": True,
        "EnableInterContainerTrafficEncryption": True,
        "OutputDataConfig.KmsKeyId": "output-key",
        "ResourceConfig.VolumeKmsKeyId": "volume-key",
    }
    assert {noun: added(full[noun], plain[noun]) for noun in plain} == {
        "TrainingJob": training,
        "HyperParameterTuningJob": {
            f"TrainingJobDefinition.{path}": value for path, value in training.items()
        },
        "TransformJob": {
            "TransformOutput.KmsKeyId": "output-key",
            "TransformResources.VolumeKmsKeyId": "volume-key",
        },
        "Model": {**vpc, "EnableNetworkIsolation": True},
        "EndpointConfig": {"KmsKeyId": "volume-key"},
    }


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"instance_type": "ml.c5.xlarge"}, {"ResourceConfig.InstanceType": "ml.c5.xlarge"}),
        ({"instance_count": 2}, {"ResourceConfig.InstanceCount": 2}),
        ({"volume_gb": 99}, {"ResourceConfig.VolumeSizeInGB": 99}),
        ({"max_runtime_seconds": 60}, {"StoppingCondition.MaxRuntimeInSeconds": 60}),
        ({"input_mode": "Pipe"}, {"AlgorithmSpecification.TrainingInputMode": "Pipe"}),
        ({"warm_pool_seconds": 600}, {"ResourceConfig.KeepAlivePeriodInSeconds": 600}),
        (
            {"metric_definitions": {"loss": "loss=(.*)"}},
            {
                "AlgorithmSpecification.MetricDefinitions.Name": "loss",
                "AlgorithmSpecification.MetricDefinitions.Regex": "loss=(.*)",
            },
        ),
        (
            {
                "max_runtime_seconds": 600,
                "spot": {"max_wait_seconds": 900, "checkpoint_uri": "s3://b/checkpoints/"},
            },
            {
                "EnableManagedSpotTraining": True,
                "StoppingCondition.MaxRuntimeInSeconds": 600,
                "StoppingCondition.MaxWaitTimeInSeconds": 900,
                "CheckpointConfig.S3Uri": "s3://b/checkpoints/fm_model/root",
            },
        ),
    ],
)
def test_each_setting_of_training_is_one_member(
    config: dict[str, Any], expected: dict[str, Any]
) -> None:
    plain = maker().training(TrainingConfig(), TRAINING, RUN)
    request = maker().training(TrainingConfig(**config), TRAINING, RUN)
    assert added(request, plain) == expected
    require_valid("CreateTrainingJob", {"TrainingJobName": "a", **request})


def test_a_search_leaves_out_of_the_static_hyperparameters_what_it_searches() -> None:
    tuning = Tuning(TRAINING, (Range("num_factors", "Integer", 2, 9),), "Random", 4, 2, seed=7)
    request = maker().tuning(TrainingConfig(), tuning, RUN)
    assert request["TrainingJobDefinition"]["StaticHyperParameters"] == {}
    (searched,) = request["HyperParameterTuningJobConfig"]["ParameterRanges"][
        "IntegerParameterRanges"
    ]
    assert searched == {
        "Name": "num_factors",
        "MinValue": "2",
        "MaxValue": "9",
        "ScalingType": "Auto",
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"RoleArn": "recsys"}, "Value 'recsys' at 'roleArn' failed to satisfy constraint"),
        ({"HyperParameters": {"epochs": 5}}, "can not be converted to string"),
        ({"ResourceConfig": {"InstanceType": "ml.x"}}, "Member must satisfy enum value set"),
    ],
)
def test_what_boto3_itself_lets_through_is_refused_here(change: Request, told: str) -> None:
    request = {**maker().training(TrainingConfig(), TRAINING, RUN), **change}
    with pytest.raises(Failure, match="CreateTrainingJob does not fit") as caught:
        require_valid("CreateTrainingJob", {"TrainingJobName": "a", **request})
    assert told in str(caught.value.description)
    assert caught.value.allow_retries is False
