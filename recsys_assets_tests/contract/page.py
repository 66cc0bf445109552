"""``docs/clients.md``, written from the clients' results.

What belongs here: the page's words and tables. What does not: getting results (``test_clients``).
Usage: ``python -m recsys_assets_tests.contract.page``.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recsys_assets_tests.contract.running import CLIENTS, Client

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"

_HEAD = """\
# Clients

What unmodified AWS clients do on the local services, each run in an environment of its own. This
page is written by `make contracts` from the results of that run; do not edit it.

To point a client at the local services, give it what

```sh
eval "$(recsys-assets services env)"
```

sets: the services' addresses (`AWS_ENDPOINT_URL_S3` and so on, which boto3 and all that is built on
it read), keys, a region, a bucket and a role. Beyond that:

- **SageMaker Python SDKs**: name your bucket (`Session(default_bucket=...)`) and the role's full
  ARN: the SDKs look up a default bucket's account at AWS itself, whatever address is set. To stop
  their telemetry, point `SAGEMAKER_USER_CONFIG_OVERRIDE` at a file with
  `SageMaker.PythonSDK.Modules.TelemetryOptOut: true`. The check of roles by SDK 3 may stay on.
- **Airflow**: name the role's full ARN. The region comes from the environment or the connection:
  an operator's `region_name` does not reach its hooks for S3 and logs. Deferrable operators need
  the extra `aiobotocore`. Jobs take seconds here, so lower `check_interval`; with `print_log` an
  operator looks for the end of its job only every 30 seconds, whatever the interval is.
- **AWS CLI**: its `wait` commands look every 30 to 120 seconds, which cannot be changed.

There are no CloudWatch metrics. A folder of the local object store that has lost its last object is
listed for some more seconds by `ListObjectsV2` with a delimiter.
"""

_RESULTS = ("passed", "failed", "not run")


def page() -> str:
    """Return the page for the results that there are."""
    results = {client: _results(client) for client in CLIENTS}
    summary = [
        (client.title, _versions(found), *_counts(found)) for client, found in results.items()
    ]
    parts = [_HEAD, _table(("client", "versions", *_RESULTS), summary)]
    for client, found in results.items():
        if found is not None:
            parts += [f"## {client.title}\n", _cases(found), _calls(found)]
    return "\n".join(parts)


def _results(client: Client) -> dict[str, Any] | None:
    if not client.results.exists():
        return None
    found: dict[str, Any] = json.loads(client.results.read_text())
    return found


def _versions(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not run"
    return ", ".join(f"{package} {version}" for package, version in found["versions"].items())


def _counts(found: dict[str, Any] | None) -> list[str]:
    counts = Counter(case["result"] for case in found["cases"]) if found else Counter[str]()
    return [str(counts[result]) for result in _RESULTS]


def _cases(found: dict[str, Any]) -> str:
    rows = []
    for case in found["cases"]:
        reason = case["detail"].strip().splitlines()[-1:]
        rows.append((case["case"], ": ".join([case["result"], *reason])))
    return _table(("case", "result"), rows)


def _calls(found: dict[str, Any]) -> str:
    actions = defaultdict(list)
    for call in found["calls"]:
        service, _, action = call.partition(":")
        actions[service].append(action)
    lines = [f"- {service}: {', '.join(names)}" for service, names in actions.items()]
    return "It called:\n\n" + "\n".join(lines) + "\n"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(head), *map(list, rows)]
    cells.insert(1, ["---"] * len(cells[0]))
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
