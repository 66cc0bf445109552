"""`recsys-assets doctor`: what a run needs, and what of it is missing.

What belongs here: how findings are printed. What does not: the looking
(``recsys_assets.preflight``).
"""

from dataclasses import replace
from pathlib import Path

import click

from recsys_assets.cli.state import interruptible, running_services, settings_of
from recsys_assets.definitions import build_resources
from recsys_assets.preflight import examine


def print_findings(state: Path) -> bool:
    """Print what is found as it is found; return whether nothing is missing."""
    # Somebody is waiting; what does not answer at once is told.
    settings = replace(settings_of(state), patience_seconds=0.0)
    missing = 0
    with interruptible(), running_services(settings):
        configured = build_resources(settings)["sagemaker"]
        with configured.process_config_and_initialize_cm() as sagemaker:
            for finding in examine(settings, sagemaker):
                click.echo(f"{finding.verdict:<8} {finding.subject:<12} {finding.text}")
                missing += finding.verdict == "missing"
    click.echo(f"{missing} missing" if missing else "ready")
    return not missing
