"""What a run of another orchestrator leaves running is found by its name, whatever its kind."""

import json
from pathlib import Path

import pytest

from recsys_assets.resources.sagemaker import leftovers
from recsys_assets.resources.sagemaker.leftovers import clean_up_after
from recsys_assets_tests.sagemaker_local.endpoint import ENDED, Endpoint, eventually
from recsys_assets_tests.sagemaker_local.test_processing import process, processing_job

RUN_ID = "1ef70e45-0000-4000-8000-000000000000"
RANGES = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}


def test_searches_and_processing_are_stopped_but_not_the_job_that_cleans_up(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other, another_runs = (
        f"clean-up-{RUN_ID[:8]}-1",
        f"recommendations-{RUN_ID[:8]}-1",
        "recommendations-7ef70e45-1",
    )
    config = tmp_path / "processingjobconfig.json"
    config.write_text(json.dumps({"ProcessingJobName": own}))
    monkeypatch.setattr(leftovers, "_OWN_PROCESSING_JOB", config)
    search = f"tuned-model-{RUN_ID[:8]}-1"
    endpoint.tune(search, RANGES, jobs=2, parallel=1, static={"seconds": 600})
    for name in (own, other, another_runs):
        process(endpoint, name, {"SECONDS": 600})
    said: list[str] = []
    try:
        found = clean_up_after(RUN_ID, endpoint.sagemaker, said.append)
        assert {search, other} <= set(found["stopped"])
        assert set(found["stopped"]).isdisjoint({own, another_runs})
        assert said[0] == f"stopped hyper parameter tuning job {search}"
        assert endpoint.ended_tuning_job(search)["HyperParameterTuningJobStatus"] == "Stopped"
        assert len(endpoint.children(search)) <= 1
        eventually(lambda: processing_job(endpoint, other)["ProcessingJobStatus"] == "Stopped")
        for name in (own, another_runs):
            assert processing_job(endpoint, name)["ProcessingJobStatus"] not in ENDED
    finally:
        for name in (own, another_runs):
            endpoint.sagemaker.stop_processing_job(ProcessingJobName=name)


def test_more_jobs_than_a_page_of_a_list_holds_are_all_found(endpoint: Endpoint) -> None:
    run_id = "1ef70e46-0000-4000-8000-000000000000"
    names = {f"fm-model-{run_id[:8]}-{number}" for number in range(12)}
    for name in names:
        endpoint.train(name, {"seconds": 600})
    assert set(clean_up_after(run_id, endpoint.sagemaker, print)["stopped"]) == names
    for name in names:
        endpoint.ended_training_job(name)
    assert clean_up_after(run_id, endpoint.sagemaker, print) == {"stopped": [], "deleted": []}


def test_a_model_that_transforms_share_with_others_is_left(endpoint: Endpoint) -> None:
    run_id = "1ef70e47-0000-4000-8000-000000000000"
    own, registered = (f"{name}-{run_id[:8]}-1" for name in ("scores", "registered-model"))
    endpoint.put("rows/1.csv", b"1\n")
    for name, model in ((own, own), (f"more-{own}", registered), (f"others-{own}", "shared")):
        endpoint.create_model(model)
        endpoint.transform(name, model, "rows")
    assert clean_up_after(run_id, endpoint.sagemaker, print)["deleted"] == [own]
    left = [model["ModelName"] for model in endpoint.sagemaker.list_models()["Models"]]
    assert {registered, "shared"} <= set(left)
    assert own not in left
