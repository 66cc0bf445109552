"""Boto3 sessions for the local services that see nothing of the surrounding AWS configuration.

What belongs here: how such a session is made. What does not: which service is where (``record``).
"""

import os

import boto3
import botocore.session
from botocore.config import Config

# No proxy stands between this machine and itself; retries smooth over a service that restarts.
_LOCAL_CONFIG = Config(
    proxies={}, retries={"mode": "standard", "max_attempts": 5}, s3={"addressing_style": "path"}
)


def isolated_session(access_key_id: str, secret_access_key: str, region: str) -> boto3.Session:
    """Return a session that reads neither ``~/.aws`` nor the AWS variables of the environment."""
    session = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
            "ignore_configured_endpoint_urls": (None, None, True, None),
        }
    )
    session.set_default_client_config(_LOCAL_CONFIG)
    return boto3.Session(
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        region_name=region,
        botocore_session=session,
    )
