"""What of a record a model is sent and what of its answer is written, without any model."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_assets.sagemaker_local.errors import ServiceError
from recsys_assets.sagemaker_local.jobs.transform.data_processing import BadAnswer, DataProcessing
from recsys_assets.sagemaker_local.jobs.transform.json_path import Selector
from recsys_assets.sagemaker_local.jobs.transform.splitting import BadInput, Record

ROW = ["a", "b", "c", "d", "e", "f", "g"]
DOCUMENT = {"id": 7, "f": {"a": 1, "b": [1, 2, 3]}, "l": [{"x": 1}, {"x": 2}]}


def processing(
    media_type: str = "text/csv",
    accept: str | None = None,
    delimiter: str = "Line",
    **config: str,
) -> DataProcessing:
    return DataProcessing(
        {
            "DataProcessing": config,
            "TransformInput": {"ContentType": media_type, "SplitType": delimiter},
            "TransformOutput": {"Accept": accept or media_type, "AssembleWith": delimiter},
        }
    )


def records(*lines: bytes) -> list[Record]:
    return [Record(line, line) for line in lines]


def sent(done: DataProcessing, *lines: bytes) -> list[bytes]:
    return [record.sent for record in done.prepare(records(*lines))]


@pytest.mark.parametrize(
    ("expression", "value", "selected"),
    [
        ("$", ROW, ROW),
        ("$[1:]", ROW, ROW[1:]),
        ("$[:2]", ROW, ["a", "b"]),
        ("$[2:5]", ROW, ["c", "d", "e"]),
        ("$[-2:]", ROW, ["f", "g"]),
        ("$[0,5:]", ROW, ["a", "f", "g"]),
        ("$[ 1:3 , -1 ]", ROW, ["b", "c", "g"]),
        ("$[1,3,5]", ROW, ["b", "d", "f"]),
        ("$[0,-1]", ROW, ["a", "g"]),
        ("$[-1]", ROW, "g"),
        ("$[*]", ROW, ROW),
        ("$", DOCUMENT, DOCUMENT),
        ("$.f", DOCUMENT, DOCUMENT["f"]),
        ("$.f.b[0]", DOCUMENT, 1),
        ("$.f.b[1:]", DOCUMENT, [2, 3]),
        ("$['f']['a']", DOCUMENT, 1),
        ("$['l','id']", DOCUMENT, {"l": DOCUMENT["l"], "id": 7}),
        ("$.f.['a','b']", DOCUMENT, DOCUMENT["f"]),
        ("$.f.*", DOCUMENT, [1, [1, 2, 3]]),
        ("$.l[*].x", DOCUMENT, [1, 2]),
        ("$.l[1,0].x", DOCUMENT, [2, 1]),
        ("$['a.b']", {"a.b": 1, "a": {"b": 2}}, 1),
        ('$["a,:b"]', {"a,:b": None}, None),
    ],
)
def test_a_path_selects_what_sagemaker_documents(
    expression: str, value: object, selected: object
) -> None:
    assert Selector(expression).select(value) == selected


@given(st.lists(st.integers(), min_size=1), st.data())
def test_positions_and_slices_are_those_of_python(row: list[int], data: st.DataObject) -> None:
    positions = st.integers(-len(row), len(row) - 1)
    first, second = data.draw(positions), data.draw(positions)
    assert Selector(f"$[{first},{second}]").select(row) == [row[first], row[second]]
    if row[first:]:
        assert Selector(f"$[{second},{first}:]").select(row) == [row[second], *row[first:]]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("$[7]", ROW),
        ("$[0,7]", ROW),
        ("$[0,7:]", ROW),
        ("$[7:]", ROW),
        ("$.id.x", DOCUMENT),
        ("$['id','nope']", DOCUMENT),
        ("$.f[0]", DOCUMENT),
        ("$.l[0,1,2].x", DOCUMENT),
        ("$.a", ROW),
    ],
)
def test_a_path_to_what_is_not_there_is_an_error(expression: str, value: object) -> None:
    with pytest.raises(LookupError, match="selects what is not there"):
        Selector(expression).select(value)


@pytest.mark.parametrize(
    "expression",
    [
        *("", "a", "$[", "$]", "$.", "$[0,", "$[0,:,]", "$[0,x:]", "$.a[0,1:].b"),
        *("$..a", "$[0:10:2]", "$[?(@.a)]", "$.`this`", "$.$.a", "@.a"),
    ],
)
def test_what_is_beyond_sagemakers_part_of_jsonpath_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"is not a JSONPath|beyond SageMaker's part of JSONPath"):
        Selector(expression)


def test_without_filters_nothing_is_read() -> None:
    done = processing("application/x-recordio-protobuf", delimiter="None")
    content = records(b"\xff\n", b"\n", b"")
    assert list(done.prepare(content)) == content
    assert done.finish(content, b"\xfe") == b"\xfe"
    assert not done.reads_records


def test_columns_of_csv_are_chosen_and_joined() -> None:
    done = processing(InputFilter="$[1:]", JoinSource="Input", OutputFilter="$[0,-1]")
    lines = [b"id-1,1,2\n", b"\n", b'"an ""id"",\xc3\xa9",3,4']
    prepared = list(done.prepare(records(*lines)))
    assert [record.sent for record in prepared] == [b"1,2\n", b"3,4"]
    assert done.finish(prepared, b"0.5\n0.25\n") == b'id-1,0.5\n"an ""id"",\xc3\xa9",0.25'


def test_joined_rows_are_the_input_followed_by_the_answer() -> None:
    done = processing(JoinSource="Input")
    assert sent(done, b"1,2,3\n") == [b"1,2,3\n"]
    assert done.finish(records(b"1,2,3\n"), b"1\n") == b"1,2,3,1", "the developer guide's example"


@pytest.mark.parametrize("media_type", ["application/json", "application/jsonlines"])
def test_members_of_json_are_chosen_and_joined(media_type: str) -> None:
    done = processing(
        media_type,
        InputFilter="$.features",
        JoinSource="Input",
        OutputFilter="$['id','SageMakerOutput']",
    )
    lines = [
        b'{"id": 1, "features": [1, 2], "name": "\xc3\xa9"}\n',
        b'{"features": ["\xc3\xa9"], "id": 2}\n',
    ]
    assert sent(done, *lines) == [b"[1,2]\n", b'["\xc3\xa9"]\n']
    answer = b'{"score": 1.5} {"score":\n2.5}'
    assert done.finish(records(*lines), answer) == (
        b'{"id":1,"SageMakerOutput":{"score":1.5}}\n{"id":2,"SageMakerOutput":{"score":2.5}}'
    )


@pytest.mark.parametrize(
    ("record", "joined"),
    [
        (b'{"key":1}', b'{"key":1,"SageMakerOutput":{"label":1}}'),
        (b"[1, 2]", b'{"SageMakerInput":[1,2],"SageMakerOutput":{"label":1}}'),
        (b'"text"', b'{"SageMakerInput":"text","SageMakerOutput":{"label":1}}'),
        (b'{"SageMakerOutput":0}', b'{"SageMakerOutput":{"label":1}}'),
    ],
)
def test_a_record_that_is_no_object_is_joined_in_a_new_one(record: bytes, joined: bytes) -> None:
    for delimiter in ("None", "Line"):
        done = processing("application/json", delimiter=delimiter, JoinSource="Input")
        assert done.finish(records(record), b'{"label": 1}') == joined


def test_a_whole_document_is_one_record() -> None:
    done = processing("application/json", delimiter="None", InputFilter="$.a")
    assert sent(done, b'{\n "a": {\n  "b": 1}\n}\n') == [b'{"b":1}\n']


def test_an_output_filter_without_a_join_reads_the_answer_alone() -> None:
    done = DataProcessing(
        {
            "DataProcessing": {"OutputFilter": "$.score"},
            "TransformInput": {"ContentType": "application/x-recordio-protobuf"},
            "TransformOutput": {"Accept": "application/jsonlines", "AssembleWith": "Line"},
        }
    )
    content = records(b"\x0a\x23")
    assert list(done.prepare(content)) == content
    assert done.finish(content, b'{"score": 1}\n{"score": 2}\n') == b"1\n2"


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"))
rows = st.lists(texts, min_size=2, max_size=4).filter(lambda row: any(text.strip() for text in row))


@given(st.lists(rows, min_size=1), st.data())
def test_any_row_survives_a_join(content: list[list[str]], data: st.DataObject) -> None:
    def written(rows: list[list[str]]) -> list[str]:
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows(rows)
        return [f"{line}\n" for line in lines.getvalue().split("\n")[:-1]]

    answers = [[data.draw(texts.filter(bool))] for _ in content]
    done = processing(JoinSource="Input")
    given_records = records(*(line.encode() for line in written(content)))
    output = done.finish(given_records, "".join(written(answers)).encode()).decode()
    assert list(csv.reader(io.StringIO(output, newline=""), strict=True)) == [
        [*row, *answer] for row, answer in zip(content, answers, strict=True)
    ]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda values: st.lists(values) | st.dictionaries(st.text(max_size=5), values),
    max_leaves=8,
)


@given(st.lists(json_values, min_size=1, max_size=5))
def test_any_json_survives_a_join(values: list[Any]) -> None:
    lines = [json.dumps(value).encode() + b"\n" for value in values]
    done = processing("application/jsonlines", JoinSource="Input")
    output = done.finish(records(*lines), b"".join(lines))
    for line, value in zip(output.splitlines(), values, strict=True):
        joined = json.loads(line)
        assert joined.pop("SageMakerOutput") == value
        expected = value if isinstance(value, dict) else {"SageMakerInput": value}
        expected.pop("SageMakerOutput", None)
        assert joined == expected


@pytest.mark.parametrize(
    ("media_type", "config", "line", "message"),
    [
        ("text/csv", {"InputFilter": "$[1]"}, b"1\n", r"InputFilter \$\[1\] selects what is not"),
        ("text/csv", {"InputFilter": "$[0]"}, b'"a\n', r"expected CSV: .*b'\"a\\n'"),
        ("text/csv", {"InputFilter": "$[0]"}, b"a\rb\n", "expected CSV|found 2"),
        ("text/csv", {"InputFilter": "$[0]"}, b"\xff\n", "expected CSV: 'utf-8'"),
        ("application/json", {"InputFilter": "$.a"}, b"{'a': 1}", "expected JSON: "),
        ("application/json", {"InputFilter": "$.a"}, b'{"a": 1} {"a": 1}', "one .*, found 2"),
        ("application/json", {"InputFilter": "$.a"}, b'{"a": NaN}', "NaN is not JSON"),
        ("application/json", {"InputFilter": "$.a"}, b"[" * 100_000, "nested too deeply"),
        ("application/json", {"InputFilter": "$.a"}, b'{"b": 1}', r"InputFilter \$\.a selects"),
    ],
)
def test_a_record_that_cannot_be_read_is_told(
    media_type: str, config: dict[str, str], line: bytes, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        sent(processing(media_type, **config), line)


@pytest.mark.parametrize(
    ("media_type", "answer", "message"),
    [
        ("text/csv", b"1\n2\n3\n", "mismatched line count .* 2 and 3"),
        ("text/csv", b'"1\n2\n', "Failed to parse output from the algorithm as CSV"),
        ("text/csv", b"1,1\n2\n", r"OutputFilter \$\[2\] selects what is not there"),
        ("application/jsonlines", b'{"predictions": []}', "mismatched line count .* 2 and 1"),
        ("application/jsonlines", b"1,\n2", "Failed to parse output from the algorithm as JSON"),
    ],
)
def test_an_answer_that_cannot_be_joined_is_told(
    media_type: str, answer: bytes, message: str
) -> None:
    output_filter = "$[2]" if media_type == "text/csv" else "$"
    done = processing(media_type, JoinSource="Input", OutputFilter=output_filter)
    with pytest.raises(BadAnswer, match=message):
        done.finish(records(b"1\n", b"2\n"), answer)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"InputFilter": "$..a"}, r"DataProcessing\.InputFilter: '\$\.\.a' is beyond"),
        ({"OutputFilter": "id"}, r"DataProcessing\.OutputFilter: 'id' is beyond"),
        ({"InputFilter": "$.a"}, r"positions only, .* not '\$\.a'"),
        ({"OutputFilter": "$[0][1]"}, r"positions only, .* not '\$\[0\]\[1\]'"),
        (
            {"InputFilter": "$[1:]", "ContentType": "application/x-npy"},
            "need text/csv or application/json or application/jsonlines for"
            r" TransformInput\.ContentType, not 'application/x-npy'",
        ),
        (
            {"JoinSource": "Input", "Accept": None},
            r"for TransformOutput\.Accept, not ''",
        ),
        (
            {"InputFilter": "$[1:]", "SplitType": "None"},
            r"need Line for TransformInput\.SplitType with text/csv, not 'None'",
        ),
        (
            {"InputFilter": "$.a", "ContentType": "application/json", "SplitType": "RecordIO"},
            "need None or Line for .* not 'RecordIO'",
        ),
        (
            {"OutputFilter": "$[0]", "AssembleWith": "None"},
            r"need Line for TransformOutput\.AssembleWith with text/csv, not 'None'",
        ),
        ({"JoinSource": "Input", "Accept": "application/jsonlines"}, "same kind"),
        (
            {
                "JoinSource": "Input",
                "ContentType": "application/json",
                "Accept": "application/json",
                "AssembleWith": "None",
            },
            "both None or both Line",
        ),
    ],
)
def test_parts_of_a_request_that_do_not_fit_together_are_refused(
    job: dict[str, str | None], message: str
) -> None:
    members = {
        **{"ContentType": "text/csv", "SplitType": "Line"},
        **{"Accept": "text/csv", "AssembleWith": "Line"},
        **job,
    }
    told = {name: value for name, value in members.items() if value is not None}
    with pytest.raises(ServiceError, match=message):
        DataProcessing({"DataProcessing": told, "TransformInput": told, "TransformOutput": told})


def test_a_media_type_may_have_parameters() -> None:
    done = processing("text/csv; charset=utf-8", "TEXT/CSV;label_size=0", JoinSource="Input")
    assert done.finish(records(b"1\n"), b"2") == b"1,2"
