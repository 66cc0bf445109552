"""What the parts of one endpoint share; only the wiring, no behaviour."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from recsys_assets.sagemaker_local.hosting.routing import Routing
from recsys_assets.sagemaker_local.identity import DEFAULT_ROLE
from recsys_assets.sagemaker_local.images import Images
from recsys_assets.sagemaker_local.s3 import ObjectStore
from recsys_assets.sagemaker_local.store import Store


@dataclass(frozen=True)
class Context:
    """The shared parts of an endpoint.

    Attributes
    ----------
    store
        Its memory.
    objects
        The S3-compatible store.
    images
        Which program stands for which image.
    work_folder
        Where running jobs keep their files, each in a folder of its own.
    lock
        Descriptor of the locked file that marks the state folder as in use. Whatever process
        outlives the endpoint holds it too, so that the next endpoint waits for its end.
    changed
        Set when there may be something to do for the scheduler: a job was created, stopped or
        ended.
    roles
        Names of the roles that the account has.
    hosting_changed
        Set when there may be something to do for the host: an endpoint was created, changed or
        deleted, or an instance is ready or has ended.
    routing
        Which instances answer for which endpoint.
    """

    store: Store
    objects: ObjectStore
    images: Images
    work_folder: Path
    lock: int
    changed: threading.Event = field(default_factory=threading.Event)
    roles: frozenset[str] = frozenset({DEFAULT_ROLE})
    hosting_changed: threading.Event = field(default_factory=threading.Event)
    routing: Routing = field(default_factory=Routing)
