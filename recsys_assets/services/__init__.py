"""The services that stand in for AWS on one machine: an object store and a SageMaker endpoint.

What belongs here: starting, stopping and finding them, one set for each state folder. What does
not: the SageMaker endpoint itself (``recsys_assets.sagemaker_local``) and the clients that use the
services (``recsys_assets.resources``).

``control`` is what others call; ``supervisor`` is the process that owns the two services;
``object_store`` is how one of them is called;
``record`` is what the supervisor writes down for the others.
"""
