"""Models in use: in the registry, and behind an endpoint that answers single requests.

What belongs here: registered_model and endpoint, and the check between them. What does not: making
and judging models (``models.py``, ``predictions.py``).

They are no part of the main job: an endpoint costs money for as long as it stands, which the job
``stop_serving`` ends.
"""

from typing import Any

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetExecutionContext,
    AssetIn,
    Config,
    MetadataValue,
    OpExecutionContext,
    Output,
    asset,
    asset_check,
    job,
    op,
)
from pydantic import Field

from recsys_assets.assets.models import run_of, run_to_come
from recsys_assets.export.metadata import ENDPOINT, ENDPOINT_CONFIG, MODEL, opt_in, remote_work
from recsys_assets.export.requests import RequestContext
from recsys_assets.io_managers import Document
from recsys_assets.resources.registry import register_model
from recsys_assets.resources.retries import retried_asset
from recsys_assets.resources.sagemaker import SageMaker
from recsys_assets.resources.tracking import MlflowTracking

SERVING_GROUP = "serving"

_DEPLOY = opt_in("deploy", "Register the model and put it behind the endpoint, if good enough.")


class RegistryConfig(Config):
    """Where a model is registered."""

    name: str = Field(
        default="recsys_assets",
        pattern=r"^[\w. -]+$",
        description="Of the registered model in MLflow; each model is a version of it.",
    )


def model_request(context: RequestContext) -> dict[str, Any]:
    """Return what registered_model asks of SageMaker, for an orchestrator that asks itself."""
    sagemaker: SageMaker = context.resources["sagemaker"]
    request = sagemaker.requests().model(context.result("selected_model", "artefact"))
    return {MODEL: sagemaker.tagged(request, run_to_come(context))}


def endpoint_requests(context: RequestContext) -> dict[str, Any]:
    """Return what endpoint asks of SageMaker, for an orchestrator that asks itself."""
    sagemaker: SageMaker = context.resources["sagemaker"]
    run = run_to_come(context)
    model = context.result("registered_model", "model_name")
    config = sagemaker.requests().endpoint_config(sagemaker.endpoint, model)
    endpoint = {
        "EndpointName": sagemaker.endpoint.name,
        "EndpointConfigName": context.created(ENDPOINT_CONFIG),
    }
    return {
        ENDPOINT_CONFIG: sagemaker.tagged(config, run),
        ENDPOINT: sagemaker.tagged(endpoint, run),
    }


@asset(
    group_name=SERVING_GROUP,
    kinds={"mlflow", "sagemaker"},
    io_manager_key="document_io_manager",
    metadata={**_DEPLOY, **remote_work(MODEL, requests=f"{__name__}:model_request")},
)
@retried_asset
def registered_model(
    context: AssetExecutionContext,
    config: RegistryConfig,
    selected_model: Document,
    sagemaker: SageMaker,
    tracking: MlflowTracking,
) -> Output[Document]:
    """The selected model as a version in MLflow's model registry and as a SageMaker model."""
    record = selected_model.content
    run = run_of(context, "registered_model")
    model = sagemaker.ensure_model(record["artefact"], run)
    tags = {"sagemaker.model": model, "sagemaker.job": record["job_name"]}
    version = register_model(
        tracking.client, config.name, record["artefact"], record["mlflow_run_id"], tags
    )
    links = sagemaker.links()
    return Output(
        Document(
            {
                "registered_model": config.name,
                "version": version,
                "sagemaker_model": model,
                "job_name": record["job_name"],
                "artefact": record["artefact"],
                "mlflow_run_id": record["mlflow_run_id"],
            }
        ),
        metadata={
            "registered_model": config.name,
            "version": MetadataValue.text(version),
            "model_name": model,
            "sagemaker_model": links.resource("Model", model),
            "artefact": links.object(record["artefact"]),
            "trained_by": record["job_name"],
        },
    )


class GoodEnoughConfig(Config):
    """What a model must reach before it is deployed."""

    margin: float = Field(
        default=0.01,
        description="Stars by which the model's test RMSE may be above that of the customer + "
        "video biases.",
    )


@asset_check(
    asset="registered_model",
    additional_ins={"model_evaluation": AssetIn("model_evaluation")},
    blocking=True,
)
def good_enough(
    context: AssetCheckExecutionContext,
    config: GoodEnoughConfig,
    registered_model: Document,
    model_evaluation: Document,
) -> AssetCheckResult:
    """The model is no worse than the customer + video biases; else no endpoint is made."""
    reason = _reason_not_to_deploy(
        registered_model.content, model_evaluation.content, config.margin
    )
    if reason is not None:
        context.log.error(reason)
    return AssetCheckResult(passed=reason is None, description=reason)


@asset(
    group_name=SERVING_GROUP,
    kinds={"sagemaker"},
    io_manager_key="document_io_manager",
    metadata={
        **_DEPLOY,
        **remote_work(ENDPOINT_CONFIG, ENDPOINT, requests=f"{__name__}:endpoint_requests"),
    },
)
@retried_asset
def endpoint(
    context: AssetExecutionContext,
    registered_model: Document,
    model_evaluation: Document,
    sagemaker: SageMaker,
) -> Output[Document]:
    """The SageMaker endpoint that serves the registered model; it costs money while it stands."""
    model, evaluation = registered_model.content, model_evaluation.content
    run = run_of(context, "endpoint")
    found = sagemaker.deploy(model["sagemaker_model"], run, context.log.info)
    what = sagemaker.endpoint_fleet()
    usd = what.usd(3600)
    return Output(
        Document(
            {
                "endpoint": found["EndpointName"],
                "endpoint_arn": found["EndpointArn"],
                "endpoint_config": found["EndpointConfigName"],
                **model,
            }
        ),
        metadata={
            "endpoint": sagemaker.links().resource("Endpoint", found["EndpointName"]),
            "model_version": f"{model['registered_model']} {model['version']}",
            "instances": f"{what.instance_count} x {what.instance_type}",
            **({} if usd is None else {"estimated_usd_per_hour": usd, "price": what.price_source}),
            "test_rmse": evaluation["test_rmse"],
            "bias_rmse": evaluation["bias_rmse"],
        },
    )


@op
def delete_endpoint(context: OpExecutionContext, sagemaker: SageMaker) -> None:
    """Delete the endpoint with its configuration and its model; nothing if there is none."""
    sagemaker.delete_endpoint(context.log.info)


@job(description="Delete the endpoint, and so end what it costs.")
def stop_serving() -> None:
    """Delete the endpoint."""
    delete_endpoint()


def _reason_not_to_deploy(
    model: dict[str, Any], evaluation: dict[str, Any], margin: float
) -> str | None:
    if evaluation["model"] != model["job_name"]:
        return (
            f"model_evaluation is of {evaluation['model']}, registered_model of "
            f"{model['job_name']}; materialize batch_predictions and model_evaluation first."
        )
    rmse, baseline = evaluation["test_rmse"], evaluation["bias_rmse"]
    if not rmse <= baseline + margin:
        return (
            f"Not deployed: test RMSE {rmse:.4f}, customer + video biases {baseline:.4f}; the "
            f"model may be {margin:g} stars worse than these (margin)."
        )
    return None
