"""The services that stand in for AWS on one machine: an object store and a SageMaker endpoint.

What belongs here: starting, stopping and finding them, one set for each state folder. What does
not: the SageMaker endpoint itself (``recsys_assets.sagemaker_local``) and the clients that use the
services (``recsys_assets.resources``).

``control`` is what others call; ``supervisor`` is the process that owns the two services;
``record`` is what the one writes down for the other.
"""
