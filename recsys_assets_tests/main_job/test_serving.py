"""The job `serving`: behind the check an endpoint that answers, and a version in the registry."""

import json

import pytest
from dagster import DagsterInstance, ExecuteInProcessResult

from recsys_assets.definitions import SERVING_JOB, build_defs, build_resources
from recsys_assets.services.clients import isolated_session
from recsys_assets.services.record import Services
from recsys_assets.settings import Settings
from recsys_assets_tests.main_job.in_process import platform

pytestmark = pytest.mark.xdist_group("in_process")

CONFIG = {
    "raw_ratings": {"generated_rows": 4_000},
    "model_training": {"hyperparameters": {"epochs": 3, "num_factors": 4}},
}


def serve(settings: Settings, margin: float) -> ExecuteInProcessResult:
    run_config = {"ops": {"registered_model_good_enough": {"config": {"margin": margin}}}}
    with DagsterInstance.ephemeral() as instance:
        job = build_defs(settings).resolve_job_def(SERVING_JOB)
        return job.execute_in_process(
            run_config=run_config, instance=instance, raise_on_error=False
        )


def test_a_model_that_is_good_enough_is_registered_and_answers(
    settings: Settings, services: Services
) -> None:
    own = Settings(**{**vars(settings), "prefix": "serving"})
    with platform(settings, "serving") as made_by:
        made_by.run(CONFIG)
        refused = serve(own, margin=-5.0)
        assert not refused.success
        (evaluation,) = refused.get_asset_check_evaluations()
        assert str(evaluation.description).startswith("Not deployed: test RMSE")
        assert made_by.store.find("endpoint") is None
        assert serve(own, margin=5.0).success
        record = made_by.store.require("endpoint").facts["content"]
        trained = made_by.store.require("selected_model").facts["content"]

    session = isolated_session(services.access_key_id, services.secret_access_key, services.region)
    runtime = session.client("sagemaker-runtime", endpoint_url=services.sagemaker_url)
    feature_dim = int(trained["hyperparameters"]["feature_dim"])
    pair = {"keys": [0, feature_dim - 1], "shape": [feature_dim], "values": [1, 1]}
    answer = runtime.invoke_endpoint(
        EndpointName=record["endpoint"],
        ContentType="application/json",
        Body=json.dumps({"instances": [{"data": {"features": pair}}]}),
    )
    assert 0 < json.loads(answer["Body"].read())["predictions"][0]["score"] < 7

    with build_resources(own)["tracking"].process_config_and_initialize_cm() as tracking:
        version = tracking.client.get_model_version(record["registered_model"], record["version"])
    assert version.run_id == trained["mlflow_run_id"]
    assert version.source == trained["artefact"]
    assert version.tags["sagemaker.model"] == record["sagemaker_model"]
    with build_resources(own)["sagemaker"].process_config_and_initialize_cm() as sagemaker:
        sagemaker.delete_endpoint(print)
