"""Errors that a client sees: AWS's error codes with their HTTP statuses.

Only the shape of an error and the codes in use belong here; the words of a particular refusal
stand where the refusal is decided.
"""


class ServiceError(Exception):
    """A request that is refused or cannot be answered.

    Parameters
    ----------
    code
        AWS's error code, which clients compare, such as ``ValidationException``.
    message
        What was expected, what came and where.
    status
        HTTP status; 4xx for the caller's fault, which clients do not retry, 5xx otherwise.
    **details
        Further members that the service model has for this error.
    """

    def __init__(self, code: str, message: str, status: int = 400, **details: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.details = details


def validation_error(message: str) -> ServiceError:
    """Say that a request's content is wrong (SageMaker's code for nearly all of these)."""
    return ServiceError("ValidationException", message)


def resource_in_use(message: str) -> ServiceError:
    """Say that the name of a new job is taken."""
    return ServiceError("ResourceInUse", message)


def resource_not_found(message: str) -> ServiceError:
    """Say that a resource named by a request does not exist."""
    return ServiceError("ResourceNotFound", message)
