"""Users' own scripts, in the images that are mapped to script mode."""

import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from recsys_assets.sagemaker_local.script_mode.training import command_line_arguments
from recsys_assets_tests.sagemaker_local.endpoint import (
    BUCKET,
    CREDENTIALS,
    ROLE,
    Endpoint,
    eventually,
)
from recsys_assets_tests.sagemaker_local.test_training import algorithm, channel
from recsys_assets_tests.sagemaker_local.test_training_inputs import needs_private_mounts

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"

TRAIN = """
import argparse, json, os, sys
from pathlib import Path

import helper

parser = argparse.ArgumentParser()
parser.add_argument("--learning-rate", type=float)
parser.add_argument("--name")
parser.add_argument("-k", type=int)
parser.add_argument("--flag")
options = parser.parse_args()
print(f"value={helper.double(options.learning_rate)};")
seen = {
    "arguments": sys.argv[1:],
    "environment": {key: value for key, value in os.environ.items() if key.startswith("SM_")},
    "files": sorted(os.listdir(os.environ["SM_CHANNEL_TRAIN"])),
    "folder": sorted(os.listdir()),
}
Path(os.environ["SM_MODEL_DIR"], "seen.json").write_text(json.dumps(seen))
Path(os.environ["SM_OUTPUT_DATA_DIR"], "notes.txt").write_text("notes")
"""

HELPER = "def double(x):\n    return 2 * x\n"


def archive(files: Mapping[str, str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


def train(
    endpoint: Endpoint,
    name: str,
    files: Mapping[str, str],
    hyperparameters: Mapping[str, Any] | None = None,
    program: str = "train.py",
    **changes: Any,
) -> dict[str, Any]:
    """Train as version 2 of the SageMaker SDK asks for it: every hyperparameter as JSON."""
    endpoint.put(f"{name}/source/sourcedir.tar.gz", archive(files))
    endpoint.put(f"{name}/in/part.csv", b"1,2\n")
    settings = {
        "sagemaker_submit_directory": f"s3://{BUCKET}/{name}/source/sourcedir.tar.gz",
        "sagemaker_program": program,
        "sagemaker_container_log_level": 20,
        "sagemaker_job_name": name,
        "sagemaker_region": "us-east-1",
    }
    encoded = {
        key: json.dumps(value) for key, value in {**settings, **(hyperparameters or {})}.items()
    }
    endpoint.train(
        name,
        encoded,
        AlgorithmSpecification=algorithm(
            TrainingImage=IMAGE,
            MetricDefinitions=[{"Name": "value", "Regex": r"value=(\S+);"}],
        ),
        InputDataConfig=[channel("train", f"{name}/in")],
        **changes,
    )
    return endpoint.ended_training_job(name)


def test_a_script_runs_with_its_hyperparameters_as_arguments_and_its_channels_as_variables(
    endpoint: Endpoint,
) -> None:
    job = train(
        endpoint,
        "scripted",
        {"train.py": TRAIN, "helper.py": HELPER},
        {"learning-rate": 0.25, "name": "two words", "k": 3, "flag": True},
    )
    assert job["TrainingJobStatus"] == "Completed", job["FailureReason"]
    assert [metric["Value"] for metric in job["FinalMetricDataList"]] == [0.5]
    uri = job["ModelArtifacts"]["S3ModelArtifacts"]
    seen = json.loads(endpoint.archive(uri)["seen.json"])
    assert shlex.join(seen["arguments"]) == (
        "--flag True -k 3 --learning-rate 0.25 --name 'two words'"
    )
    assert seen["files"] == ["part.csv"]
    assert set(seen["folder"]) >= {"train.py", "helper.py"}

    variables = seen["environment"]
    hyperparameters = {"learning-rate": 0.25, "name": "two words", "k": 3, "flag": True}
    assert json.loads(variables["SM_HPS"]) == hyperparameters
    assert variables["SM_HP_LEARNING_RATE"] == "0.25"
    assert variables["SM_HP_NAME"] == "two words"
    assert variables["SM_HP_FLAG"] == "true"
    assert json.loads(variables["SM_CHANNELS"]) == ["train"]
    assert json.loads(variables["SM_HOSTS"]) == [variables["SM_CURRENT_HOST"]] == ["algo-1"]
    assert json.loads(variables["SM_USER_ARGS"]) == seen["arguments"]
    assert variables["SM_USER_ENTRY_POINT"] == "train.py"
    assert variables["SM_MODULE_NAME"] == "train"
    assert int(variables["SM_NUM_CPUS"]) == os.cpu_count()
    everything = json.loads(variables["SM_TRAINING_ENV"])
    assert everything["hyperparameters"] == hyperparameters
    assert everything["job_name"] == "scripted"
    assert everything["model_dir"] == variables["SM_MODEL_DIR"]
    assert everything["channel_input_dirs"] == {"train": variables["SM_CHANNEL_TRAIN"]}
    assert everything["input_data_config"]["train"]["TrainingInputMode"] == "File"
    assert endpoint.archive(uri.replace("model.tar", "output.tar")) == {"notes.txt": b"notes"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "True"),
        (0.5, "0.5"),
        ("a b", "a b"),
        (None, ""),
        ([1, 2], "[1, 2]"),
        ({"b": 1, "a": 2}, "a=2,b=1"),
    ],
)
def test_a_hyperparameter_becomes_an_argument_as_the_toolkit_writes_it(
    value: object, text: str
) -> None:
    assert command_line_arguments({"x": value, "name": value}) == ["--name", text, "-x", text]


def test_a_script_that_fails_tells_its_last_words_and_its_exit_code(endpoint: Endpoint) -> None:
    source = "import sys\nprint('before', file=sys.stderr)\nraise KeyError('no such column')\n"
    job = train(endpoint, "raising", {"train.py": source})
    assert job["TrainingJobStatus"] == "Failed"
    reason = job["FailureReason"]
    assert reason.startswith("AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage ")
    assert "KeyError: 'no such column'" in reason
    assert reason.endswith('train.py", exit code: 1')
    assert "before" in endpoint.log_lines("Training", "raising")


def test_a_shell_script_may_tell_its_own_reason(endpoint: Endpoint) -> None:
    source = 'echo "ClientError: $2 is too much" > "$SM_OUTPUT_DIR/failure"; exit 7\n'
    job = train(endpoint, "shell", {"train.sh": source}, {"rows": 10}, program="train.sh")
    assert job["FailureReason"] == "ClientError: 10 is too much, exit code: 7"


def test_a_stopped_script_is_asked_to_end_and_leaves_its_model(endpoint: Endpoint) -> None:
    source = """
import os, signal, sys, time
def end(*_):
    open(os.path.join(os.environ["SM_MODEL_DIR"], "half"), "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("started", flush=True)
time.sleep(600)
"""
    endpoint.put("stopping/in/a", b"")
    endpoint.put("stopping/source.tar.gz", archive({"train.py": source}))
    endpoint.train(
        "stopping",
        {
            "sagemaker_program": "train.py",
            "sagemaker_submit_directory": f"s3://{BUCKET}/stopping/source.tar.gz",
        },
        AlgorithmSpecification=algorithm(TrainingImage=IMAGE),
    )
    eventually(lambda: "started" in endpoint.log_lines("Training", "stopping"))
    endpoint.sagemaker.stop_training_job(TrainingJobName="stopping")
    job = endpoint.ended_training_job("stopping")
    assert job["TrainingJobStatus"] == "Stopped"
    assert list(endpoint.archive(job["ModelArtifacts"]["S3ModelArtifacts"])) == ["half"]


@pytest.mark.parametrize(
    ("name", "files", "program", "reason"),
    [
        ("missing", {"other.py": ""}, "train.py", "There is no script 'train.py' in the source"),
        ("outside", {"a.py": ""}, "../a.py", "'../a.py' does not name a file below"),
        ("leading-out", {"../a.py": ""}, "a.py", "expected files and folders within it"),
        ("kind", {"train.r": ""}, "train.r", "a script that ends in .py or .sh, got 'train.r'"),
        (
            "lacking",
            {"train.py": "", "requirements.txt": "# ours\nboto3\nno-such-package>=2\n"},
            "train.py",
            "requirements.txt asks for no-such-package>=2, and .* has none",
        ),
        (
            "outdated",
            {"train.py": "", "requirements.txt": "boto3<1"},
            "train.py",
            "requirements.txt asks for boto3<1, and .* has version",
        ),
        (
            "option",
            {"train.py": "", "requirements.txt": "-r more.txt"},
            "train.py",
            "expected a package and its versions, got '-r more.txt'",
        ),
    ],
)
def test_a_source_that_cannot_run_fails_the_job_with_the_reason(
    endpoint: Endpoint, name: str, files: dict[str, str], program: str, reason: str
) -> None:
    job = train(endpoint, f"source-{name}", files, program=program)
    assert job["TrainingJobStatus"] == "Failed"
    with pytest.raises(ValueError, match=f"(?s)^ClientError: .*{reason}"):
        raise ValueError(job["FailureReason"])


def test_distributed_training_is_refused(endpoint: Endpoint) -> None:
    job = train(endpoint, "mpi", {"train.py": ""}, {"sagemaker_mpi_enabled": True})
    assert job["FailureReason"].startswith(
        "ClientError: The local SageMaker endpoint does not support sagemaker_mpi_enabled"
    )


def test_requirements_that_are_met_are_no_hindrance(endpoint: Endpoint) -> None:
    files = {"train.py": "", "requirements.txt": "boto3>1 # any\nwinonly; os_name == 'nt'\n"}
    assert train(endpoint, "required", files)["TrainingJobStatus"] == "Completed"


SERVE = """
import json, os

def model_fn(model_dir):
    print("loading", sorted(os.listdir(model_dir)))
    with open(os.path.join(model_dir, "weights.json")) as file:
        return json.load(file)

def predict_fn(data, model):
    return data.sum(axis=1) * model["factor"]
"""


def test_a_script_serves_the_model_that_it_lies_beside(endpoint: Endpoint) -> None:
    files = {"weights.json": '{"factor": 10}', "code/inference.py": SERVE}
    endpoint.put("served/model.tar.gz", archive(files))
    endpoint.sagemaker.create_model(
        ModelName="scripted",
        PrimaryContainer={"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/served/model.tar.gz"},
        ExecutionRoleArn=ROLE,
    )
    endpoint.put("served/in/rows.csv", b"1,2\n3,4\n")
    endpoint.transform(
        "scripted",
        "scripted",
        "served/in",
        given={"ContentType": "text/csv"},
        wanted={"Accept": "application/json"},
    )
    job = endpoint.ended_transform_job("scripted")
    assert job["TransformJobStatus"] == "Completed", job["FailureReason"]
    assert json.loads(endpoint.get("out/scripted/rows.csv.out")) == [30, 70]

    # Without a limit to payloads their length is not sent, and this server needs it.
    endpoint.transform("unlimited", "scripted", "served/in", MaxPayloadInMB=0)
    job = endpoint.ended_transform_job("unlimited")
    assert job["TransformJobStatus"] == "Failed"
    assert "411: a body in chunks, without Content-Length" in job["FailureReason"]


@pytest.mark.parametrize(
    ("name", "script", "reason"),
    [
        ("absent", None, "Cannot fetch the source "),
        ("no-model-fn", "", "inference.py must define model_fn(model_dir)"),
        (
            "transform-fn",
            "def model_fn(folder): ...\ndef transform_fn(model, body, type, accept): ...\n",
            "inference.py defines transform_fn, which is not supported here",
        ),
    ],
)
def test_a_model_that_cannot_be_served_fails_with_the_reason_in_the_log(
    endpoint: Endpoint, name: str, script: str | None, reason: str
) -> None:
    files = {"weights.json": "{}"} | ({} if script is None else {"code/inference.py": script})
    endpoint.put(f"unserved/{name}/model.tar.gz", archive(files))
    artefact = f"s3://{BUCKET}/unserved/{name}/model.tar.gz"
    endpoint.sagemaker.create_model(
        ModelName=f"unserved-{name}",
        PrimaryContainer={"Image": IMAGE, "ModelDataUrl": artefact},
        ExecutionRoleArn=ROLE,
    )
    endpoint.put("unserved/in/rows.csv", b"1,2\n")
    endpoint.transform(f"unserved-{name}", f"unserved-{name}", "unserved/in")
    job = endpoint.ended_transform_job(f"unserved-{name}")
    assert job["TransformJobStatus"] == "Failed"
    assert reason in "\n".join(endpoint.log_lines("Transform", f"unserved-{name}"))


MODEL_TRAINER = f"""
import boto3
from sagemaker.core.helper.session_helper import Session
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, OutputDataConfig, SourceCode

session = Session(boto_session=boto3.Session(), default_bucket="{BUCKET}")
trainer = ModelTrainer(
    training_image="{IMAGE}",
    sagemaker_session=session,
    role="{ROLE}",
    source_code=SourceCode(source_dir="source", entry_script="train.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1),
    hyperparameters={{"learning-rate": 0.25, "name": "two words"}},
    base_job_name="model-trainer",
    output_data_config=OutputDataConfig(s3_output_path="s3://{BUCKET}/model-trainer/out"),
)
data = InputData(channel_name="train", data_source="s3://{BUCKET}/model-trainer/in/")
trainer.train(input_data_config=[data], logs=False)
print(trainer._latest_training_job.model_artifacts.s3_model_artifacts)
"""


@pytest.mark.slow  # the SDK alone takes 15 seconds to import
@needs_private_mounts
def test_the_sdks_model_trainer_runs_a_script(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.put("model-trainer/in/part.csv", b"1,2\n")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "train.py").write_text(TRAIN)
    (tmp_path / "source" / "helper.py").write_text(HELPER)
    done = subprocess.run(
        [sys.executable, "-c", MODEL_TRAINER],
        cwd=tmp_path,
        env={
            **os.environ,
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": endpoint.url,
            "AWS_ENDPOINT_URL_S3": endpoint.s3.meta.endpoint_url,
            "SAGEMAKER_VALIDATE_ROLE": "false",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(endpoint.archive(done.stdout.split()[-1])["seen.json"])
    assert seen["arguments"] == ["--learning-rate", "0.25", "--name", "two words"]
    assert seen["environment"]["SM_MODEL_DIR"] == "/opt/ml/model"
