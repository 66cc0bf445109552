"""Two programs that follow SageMaker's container contract: ``train`` and ``serve``.

What belongs here: the folder layout that SageMaker mounts, the log lines it reads and the HTTP
routes it calls. What does not: any of the mathematics, or starting these programs.
"""
