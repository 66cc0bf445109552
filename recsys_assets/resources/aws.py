"""Clients of AWS, or of the services that stand in for it on this machine.

What belongs here: making boto3 clients. What does not: any knowledge of what they are used for.
"""

from typing import Any

import boto3
from dagster_aws.utils import (
    ResourceWithBoto3Configuration,
    construct_boto_client_retry_config,
)
from pydantic import Field

from recsys_assets.services.clients import isolated_session
from recsys_assets.services.control import start_services
from recsys_assets.settings import Settings


class AwsClients(ResourceWithBoto3Configuration):
    """Makes boto3 clients.

    With ``local`` set, clients reach the local services, which are started if they do not run, and
    nothing of the surrounding AWS configuration is read. Otherwise AWS's own chain of configuration
    and the fields of this resource decide.
    """

    local: bool = Field(description="Use the local services rather than AWS.")

    def client(self, service: str) -> Any:
        """Return a boto3 client, e.g. of ``s3``, ``sagemaker`` or ``logs``.

        Raises
        ------
        recsys_assets.services.control.ServicesError
            If the local services are wanted and cannot be started.
        """
        if self.local:
            services, _ = start_services(Settings.from_environment())
            session = isolated_session(
                services.access_key_id, services.secret_access_key, services.region
            )
            url = services.s3_url if service == "s3" else services.sagemaker_url
            return session.client(service, endpoint_url=url)
        return boto3.Session(profile_name=self.profile_name).client(
            service,
            region_name=self.region_name,
            use_ssl=self.use_ssl,
            verify=self.verify,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.aws_access_key_id,
            aws_secret_access_key=self.aws_secret_access_key,
            aws_session_token=self.aws_session_token,
            config=construct_boto_client_retry_config(self.max_attempts),  # type: ignore[no-untyped-call]
        )
