"""`recsys-assets export`, as typed."""

from pathlib import Path

import yaml

from recsys_assets_tests.main_job.command import only_sentence, recsys_assets

ROLE = "arn:aws:iam::210987654321:role/theirs"
IMAGE = "210987654321.dkr.ecr.eu-west-1.amazonaws.com/platform:1"
AWS = {"RECSYS_ENV": "aws", "RECSYS_BUCKET": "theirs", "RECSYS_PREFIX": "some/where"}


def export(out: Path, target: str, *options: str | Path, **variables: str) -> dict[str, str]:
    done = recsys_assets("export", target, "--out", out, *options, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(path) for path in sorted(out.iterdir(), key=_as_written)]
    return {path.name: path.read_text() for path in out.iterdir()}


def _as_written(path: Path) -> list[str]:
    """The main file comes first."""
    return [("0" if path.name.endswith((".py", ".asl.json")) else "1"), path.name]


def test_airflow_files_hold_the_deployment_s_settings_and_their_own_command(
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"ops": {"recommendations": {"config": {"count": 3}}}}))
    options = ("--role-arn", ROLE, "--region", "eu-west-1", "--config", config, "--no-logs")
    out = tmp_path / "out"
    files = export(out, "airflow", *options, "--dag-id", "theirs", "--deferrable", **AWS)
    dag = files["theirs.py"]
    assert sorted(files) == ["theirs.assets.json", "theirs.py"]
    assert f'ROLE_ARN = "{ROLE}"' in dag
    assert ".dkr.ecr.eu-west-1.amazonaws.com/factorization-machines:1" in dag
    assert "s3://theirs/some/where/fm_model/" in dag
    assert str(out) not in dag

    # The command in the header makes the same files.
    (line,) = [line for line in dag.splitlines() if "recsys-assets export" in line]
    again = tmp_path / "again"
    words = line.split()
    words[words.index(".")] = str(again)
    assert recsys_assets(*words[1:], **AWS).returncode == 0
    assert (again / "theirs.py").read_text() == dag


def test_python_tasks_can_be_processing_jobs(tmp_path: Path) -> None:
    options = ("--role-arn", ROLE, "--region", "eu-west-1", "--processing-image", IMAGE)
    dag = export(tmp_path, "airflow", *options, **AWS)["recsys_assets.py"]
    assert IMAGE in dag
    assert "SageMakerProcessingOperator" in dag
    assert "BashOperator" not in dag.partition("with DAG(")[2]
    assert "s3://theirs/some/where/tasks" in dag


def test_a_state_machine_comes_with_its_input_and_its_policy(tmp_path: Path) -> None:
    options = ("--role-arn", ROLE, "--region", "eu-west-1", "--processing-image", IMAGE)
    files = export(tmp_path, "step-functions", *options, "--name", "theirs", **AWS)
    assert sorted(files) == ["theirs.asl.json", "theirs.input.json", "theirs.policy.json"]
    assert "arn:aws:states:::sagemaker:createTrainingJob.sync" in files["theirs.asl.json"]
    polling = export(tmp_path / "polling", "step-functions", *options, "--polling", **AWS)
    assert ".sync" not in polling["recsys_assets.asl.json"]


def test_a_mistake_is_one_sentence(tmp_path: Path) -> None:
    def said(*words: str, **variables: str) -> str:
        sentence = only_sentence(recsys_assets("export", *words, **variables))
        assert not list(tmp_path.iterdir())
        return sentence

    out = str(tmp_path)
    airflow = ("airflow", "--out", out)
    assert said(*airflow, "--definitions", "nowhere:defs").startswith(
        "expected module:attribute of Dagster definitions, got nowhere:defs"
    )
    assert said(*airflow, "--schedule", "@daily", "--after-asset", "s3://x/y").startswith(
        "expected a schedule or an asset that starts the DAG, got both"
    )
    assert said(*airflow, RECSYS_ENV="aws", RECSYS_BUCKET="x") == "No role: set RECSYS_ROLE_ARN."
    assert said(*airflow, "--role-arn", ROLE, RECSYS_ENV="aws") == "No bucket: set RECSYS_BUCKET."
    machine = ("step-functions", "--out", out, "--processing-image", IMAGE)
    assert said(*machine, RECSYS_MLFLOW_TRACKING_URI="http://me:secret@mlflow") == (
        "RECSYS_MLFLOW_TRACKING_URI holds a password, which would stand in the exported file"
    )
