"""DataProcessing of batch transform: InputFilter, JoinSource and OutputFilter.

What of each record the model is sent, and what of the record and the answer is written. Records
and answers are JSON values here; a CSV row is an array of texts. Cutting objects into records and
asking the model are the business of others (``splitting``, ``objects``).

Source: "Associate Prediction Results with Input Records" in the Amazon SageMaker developer guide.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from recsys_assets.sagemaker_local.errors import validation_error
from recsys_assets.sagemaker_local.jobs.transform.json_path import Selector
from recsys_assets.sagemaker_local.jobs.transform.splitting import BadInput, Record
from recsys_assets.sagemaker_local.validation import no_constant

_NO_SPACE = re.compile(r"[^ \t\r\n]")


class BadAnswer(Exception):  # noqa: N818 - what it says
    """A model's answer cannot be read or joined; the message says why."""


class DataProcessing:
    """What is done to the records of a job and to the model's answers.

    A filter of records, or a join, needs ``text/csv``, ``application/jsonlines`` (both by Line) or
    ``application/json`` (by Line or None) for their ContentType; a filter of answers, or a join,
    the same for Accept. A join needs both sides of one kind and with one delimiter, and as many
    answers as records. All else is refused when the job is created, or fails the object.

    Parameters
    ----------
    job
        A checked CreateTransformJob request, or the record of a job.

    Raises
    ------
    ServiceError
        When a filter is no JSONPath of SageMaker's, or the job's types and delimiters are not
        such as filters and joins can work on.
    """

    def __init__(self, job: Mapping[str, Any]) -> None:
        config = job.get("DataProcessing", {})
        given, wanted = job["TransformInput"], job["TransformOutput"]
        self._joins = config.get("JoinSource") == "Input"
        self._input_filter = _selector(config, "InputFilter")
        self._output_filter = _selector(config, "OutputFilter")
        # None where records or answers are passed on as they are.
        self._records: _Form | None = None
        self._answers: _Form | None = None
        if self._joins or not self._input_filter.selects_all:
            self._records = _form(
                ("TransformInput.ContentType", given.get("ContentType", "")),
                ("TransformInput.SplitType", given.get("SplitType", "None")),
                self._input_filter,
            )
        if self._joins or not self._output_filter.selects_all:
            self._answers = _form(
                ("TransformOutput.Accept", wanted.get("Accept", "")),
                ("TransformOutput.AssembleWith", wanted.get("AssembleWith", "None")),
                self._output_filter,
            )
        if self._joins and (
            self._records is not self._answers
            or given.get("SplitType", "None") != wanted.get("AssembleWith", "None")
        ):
            raise validation_error(
                "JoinSource Input needs records and answers of the same kind: both text/csv or both"
                " JSON, and SplitType and AssembleWith both None or both Line."
            )

    @property
    def reads_records(self) -> bool:
        """Whether records are read at all, for a filter or a join."""
        return self._records is not None

    def prepare(self, records: Iterable[Record]) -> Iterator[Record]:
        """Apply the InputFilter to what is sent of records.

        Blank records are left out if records are read at all.

        Raises
        ------
        BadInput
            When a record is not of its type or has not what the filter selects.
        """
        for record in records:
            if self._records is None:
                yield record
            elif record.original.strip():
                yield Record(record.original, self._sent(self._records, record))

    def _sent(self, form: "_Form", record: Record) -> bytes:
        if self._input_filter.selects_all:
            return record.sent
        try:
            selected = self._input_filter.select(_value(form, record))
        except LookupError as error:
            raise BadInput(f"InputFilter {error}: {_start(record)}") from error
        return form.write(selected) + (b"\n" if record.original.endswith(b"\n") else b"")

    def finish(self, records: Sequence[Record], answer: bytes) -> bytes:
        """Apply JoinSource and OutputFilter: return what is written for a payload.

        Parameters
        ----------
        records
            The payload's records.
        answer
            The model's answer to it.

        Raises
        ------
        BadAnswer
            When the answer is not of its type, has not one part for each record that it is joined
            with, or has not what the filter selects.
        BadInput
            When a record that is joined is not of its type.
        """
        form = self._answers
        if form is None:
            return answer
        try:
            values = form.read(answer)
        except ValueError as error:
            raise BadAnswer(
                f"Failed to parse output from the algorithm as {form.name}: {error}"
            ) from error
        if self._joins:
            if len(values) != len(records):
                raise BadAnswer(
                    "Fail to join data: mismatched line count between the input and the output:"
                    f" {len(records)} and {len(values)}"
                )
            values = [
                form.join(_value(form, record), value)
                for record, value in zip(records, values, strict=True)
            ]
        try:
            return b"\n".join(form.write(self._output_filter.select(value)) for value in values)
        except LookupError as error:
            raise BadAnswer(f"OutputFilter {error}") from error


class _Form(Protocol):
    """How values are written in a format."""

    name: str

    def read(self, content: bytes) -> list[Any]:
        """Return the values of a text; ValueError for anything else."""
        ...

    def write(self, value: Any) -> bytes:
        """Return the text of a value, on one line."""
        ...

    def join(self, value: Any, answer: Any) -> Any:
        """Return a value with the model's answer to it."""
        ...


class _Csv:
    """Rows by RFC 4180."""

    name = "CSV"

    def read(self, content: bytes) -> list[Any]:
        rows = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
        try:
            return [row for row in rows if row]
        except csv.Error as error:
            raise ValueError(str(error)) from error

    def write(self, value: Any) -> bytes:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value if isinstance(value, list) else [value])
        return line.getvalue().encode()

    def join(self, value: Any, answer: Any) -> Any:
        return [*value, *answer]


class _Json:
    """JSON values, one after the other, with any space between them."""

    name = "JSON"

    def read(self, content: bytes) -> list[Any]:
        text = content.decode()
        values = []
        position = 0
        decoder = json.JSONDecoder(parse_constant=no_constant)
        try:
            while found := _NO_SPACE.search(text, position):
                value, position = decoder.raw_decode(text, found.start())
                values.append(value)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return values

    def write(self, value: Any) -> bytes:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode(errors="replace")  # JSON may name halves of characters

    def join(self, value: Any, answer: Any) -> Any:
        record = value if isinstance(value, dict) else {"SageMakerInput": value}
        return {**record, "SageMakerOutput": answer}


_CSV, _JSON, _JSON_LINES = "text/csv", "application/json", "application/jsonlines"

_FORMS: Mapping[str, _Form] = {_CSV: _Csv(), **dict.fromkeys((_JSON, _JSON_LINES), _Json())}


def _form(content_type: tuple[str, str], delimiter: tuple[str, str], selector: Selector) -> _Form:
    """Return how records or answers are read and written.

    Parameters
    ----------
    content_type, delimiter
        Members of the request with their values.
    selector
        What is applied to them.

    Raises
    ------
    ServiceError
        When they cannot be read so, or the selector cannot be applied.
    """
    member, text = content_type
    media_type = text.partition(";")[0].strip().lower()
    if media_type not in _FORMS:
        raise validation_error(
            f"Filters and joins of DataProcessing need {' or '.join(_FORMS)} for {member},"
            f" not {text!r}."
        )
    member, text = delimiter
    allowed = ("None", "Line") if media_type == _JSON else ("Line",)
    if text not in allowed:
        raise validation_error(
            f"Filters and joins of DataProcessing need {' or '.join(allowed)} for {member} with"
            f" {media_type}, not {text!r}."
        )
    if media_type == _CSV and not selector.selects_by_position:
        raise validation_error(
            f"Rows of {_CSV} have positions only, as in $[0] or $[1:], not {selector.expression!r}."
        )
    return _FORMS[media_type]


def _selector(config: Mapping[str, Any], member: str) -> Selector:
    try:
        return Selector(config.get(member, "$"))
    except ValueError as error:
        raise validation_error(f"DataProcessing.{member}: {error}") from error


def _value(form: _Form, record: Record) -> Any:
    """Return the one value that a record is."""
    try:
        values = form.read(record.original)
    except ValueError as error:
        raise BadInput(f"expected {form.name}: {error}: {_start(record)}") from error
    if len(values) != 1:
        raise BadInput(f"expected one record of {form.name}, found {len(values)}: {_start(record)}")
    return values[0]


def _start(record: Record) -> str:
    return repr(record.original[:50])
