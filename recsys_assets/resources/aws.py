"""Clients of AWS, or of the services that stand in for it on this machine.

What belongs here: making boto3 clients. What does not: any knowledge of what they are used for.
"""

from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.credentials import Credentials
from dagster_aws.utils import ResourceWithBoto3Configuration
from pydantic import Field

from recsys_assets.resources.patience import make_patient
from recsys_assets.services.clients import isolated_session
from recsys_assets.services.control import start_services
from recsys_assets.settings import Settings

# Tries are counted and spaced by `patience`, not by botocore.
_CONFIG = Config(connect_timeout=10, retries={"mode": "standard", "total_max_attempts": 1})


class AwsClients(ResourceWithBoto3Configuration):
    """Makes boto3 clients.

    With ``local`` set, clients reach the local services, which are started if they do not run, and
    nothing of the surrounding AWS configuration is read. Otherwise AWS's own chain of configuration
    and the fields of this resource decide. Either have patience (``patience.py``): a local service
    that was killed is back after some seconds.
    """

    local: bool = Field(description="Use the local services rather than AWS.")
    max_attempts: int = Field(
        default=1, ge=1, le=1, description="Not of use here: `patience_seconds` limits the tries."
    )
    patience_seconds: float = Field(
        default=300.0,
        ge=0,
        description="How long a call is tried again while it is throttled, times out, is "
        "answered with 5xx, the network is cut or the credentials have expired.",
    )

    def client(self, service: str, patience_seconds: float | None = None) -> Any:
        """Return a boto3 client, e.g. of ``s3``, ``sagemaker`` or ``logs``.

        Parameters
        ----------
        service
            As boto3 calls it.
        patience_seconds
            How long its calls are tried; by default as long as this resource says.

        Raises
        ------
        recsys_assets.services.control.ServicesError
            If the local services are wanted and cannot be started.
        """
        patience = self.patience_seconds if patience_seconds is None else patience_seconds
        if self.local:
            services, _ = start_services(Settings.from_environment())
            session = isolated_session(
                services.access_key_id, services.secret_access_key, services.region
            )
            url = services.s3_url if service == "s3" else services.sagemaker_url
            client = session.client(service, endpoint_url=url, config=_CONFIG)
            make_patient(client, patience, session.get_credentials(), lambda: None)
            return client
        session = self._session()
        client = session.client(
            service,
            use_ssl=self.use_ssl,
            verify=self.verify,
            endpoint_url=self.endpoint_url,
            config=_CONFIG,
        )
        make_patient(
            client,
            patience,
            session.get_credentials(),
            lambda: self._renew(session),
        )
        return client

    def _session(self) -> boto3.Session:
        return boto3.Session(
            profile_name=self.profile_name,
            region_name=self.region_name,
            aws_access_key_id=self.aws_access_key_id,
            aws_secret_access_key=self.aws_secret_access_key,
            aws_session_token=self.aws_session_token,
        )

    def _renew(self, session: boto3.Session) -> None:
        """Read a session's credentials again, from wherever the chain finds them now.

        Those of a role renew themselves; those of a file that somebody has written anew do not.
        """
        held, found = session.get_credentials(), self._session().get_credentials()
        if type(held) is Credentials and found is not None:
            fresh = found.get_frozen_credentials()
            held.token = fresh.token
            held.access_key = fresh.access_key  # type: ignore[assignment]
            held.secret_key = fresh.secret_key  # type: ignore[assignment]


def is_aws(client: Any) -> bool:
    """Tell whether a client reaches AWS itself and not something that stands in for it."""
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))
