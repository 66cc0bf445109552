"""moto's server, run by an interpreter that has moto, with four of its ways put right.

Of what a state machine calls through the AWS SDK, Step Functions (a) names a service in errors as
the SDK for Java does (``SageMaker.``), (b) sends a body that is JSON as its text, (c) hands on a
body as its text, and (d) times as texts.
"""

import json
import sys
from typing import Any

from moto import server
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_aws_sdk as aws_sdk,
)

_NAMES = {"sagemaker": "SageMaker", "s3": "S3"}
_Task = aws_sdk.StateTaskServiceAwsSdk
_call = _Task._eval_service_task


def _eval_service_task(
    task: Any, env: Any, normalised_parameters: dict[str, Any], **others: Any
) -> None:
    if isinstance(normalised_parameters.get("Body"), dict):
        normalised_parameters["Body"] = json.dumps(normalised_parameters["Body"])
    _call(task, env=env, normalised_parameters=normalised_parameters, **others)
    answer = env.stack.pop()
    if "Body" in answer:
        answer["Body"] = answer["Body"].read().decode()
    env.stack.append(json.loads(json.dumps(answer, default=str)))


_Task._eval_service_task = _eval_service_task
_Task._normalise_service_error_name = staticmethod(_NAMES.__getitem__)
server.main(sys.argv[1:])
