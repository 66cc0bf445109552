"""The asset graph as an AWS Step Functions state machine, in the Amazon States Language.

What belongs here, in layers: what is done when (``plan.py``), which states a task becomes
(``tasks.py``), following what was created on SageMaker (``remote.py``), references as JSONPath
(``expressions.py``), the whole machine (``machine.py``) and what its role may do (``policy.py``).
What does not: any asset's name, and Dagster.
"""

from recsys_assets.export.step_functions.machine import export_step_functions
from recsys_assets.export.step_functions.options import StepFunctionsOptions

__all__ = ["StepFunctionsOptions", "export_step_functions"]
