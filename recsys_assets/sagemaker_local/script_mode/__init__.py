"""Script mode: the program that stands for images which run a user's own scripts.

AWS's framework images (XGBoost, scikit-learn, PyTorch, ...) fetch a source archive and run a script
of it; so does ``python -m recsys_assets.sagemaker_local.script_mode train|serve``, which
``--image REPOSITORY=script-mode`` maps an image to. What belongs here is what the SageMaker
training and inference toolkits do inside a container. The frameworks themselves do not: a script
finds what is installed in the endpoint's Python, or in the one that ``--python`` names.
"""
