"""The memory of what was received: bounded, searchable, a tree for each trace."""

from __future__ import annotations

from dataclasses import replace

import pytest

from persistasaurus.dev import _telemetry
from persistasaurus.dev._telemetry import LogRecord, Point, Series, Span, Telemetry

SPAN = Span(
    trace_id="t",
    span_id="s",
    parent_id="",
    name="root",
    kind="internal",
    resource="api",
    instance="api",
    scope="",
    start_ns=0,
    end_ns=10,
    status="unset",
    message="",
    attributes={},
    events=(),
    links=(),
)
RECORD = LogRecord(
    at_ns=0,
    resource="api",
    instance="",
    scope="",
    severity=9,
    level="INFO",
    text="",
    trace_id="",
    span_id="",
    attributes={},
)


def span(span_id: str, parent_id: str = "", **fields: object) -> Span:
    return replace(SPAN, span_id=span_id, parent_id=parent_id, **fields)


def rows(telemetry: Telemetry, trace_id: str = "t") -> list[tuple[str, int]]:
    return [(branch.span.span_id, branch.depth) for branch in telemetry.trace(trace_id)]


def test_a_trace_is_read_as_a_tree():
    """Children behind their parent, by their start, in whatever order they arrived."""
    telemetry = Telemetry()
    telemetry.add_spans([span("c", "b", start_ns=3), span("d", "a", start_ns=4), span("b", "a", start_ns=2)])
    telemetry.add_spans([span("a", start_ns=1)])

    assert rows(telemetry) == [("a", 0), ("b", 1), ("c", 2), ("d", 1)]


def test_a_span_whose_parent_is_not_there_is_a_root():
    """It may come later, or never."""
    telemetry = Telemetry()
    telemetry.add_spans([span("b", "gone", start_ns=2), span("c", "b", start_ns=3)])

    assert rows(telemetry) == [("b", 0), ("c", 1)]


def test_spans_that_are_each_others_parents_are_shown_once():
    """Nobody sends this by accident, and it must not hang the page."""
    telemetry = Telemetry()
    telemetry.add_spans([span("a", "b"), span("b", "a"), span("c", "c"), span("r")])

    assert sorted(span_id for span_id, _ in rows(telemetry)) == ["a", "b", "c", "r"]


def test_a_trace_may_be_thousands_deep():
    """The tree is no recursion."""
    telemetry = Telemetry()
    telemetry.add_spans(span(str(n), str(n - 1) if n else "") for n in range(5_000))

    assert rows(telemetry)[-1] == ("4999", 4_999)


def test_the_oldest_traces_make_room(monkeypatch):
    """Whole, and a trace that is larger than the memory loses its first spans."""
    monkeypatch.setattr(_telemetry, "SPANS", 3)
    telemetry = Telemetry()

    telemetry.add_spans([span("a", trace_id="1"), span("b", trace_id="1"), span("a", trace_id="2")])
    telemetry.add_spans([span("b", trace_id="2")])
    assert (rows(telemetry, "1"), telemetry.span_count) == ([], 2)

    telemetry.add_spans(span(str(n), trace_id="3") for n in range(5))
    assert (sorted(rows(telemetry, "3")), telemetry.span_count) == ([("2", 0), ("3", 0), ("4", 0)], 3)


def test_a_span_that_arrives_twice_is_kept_once():
    """An exporter sends again where the answer was lost."""
    telemetry = Telemetry()
    telemetry.add_spans([SPAN])
    telemetry.add_spans([SPAN])

    assert telemetry.span_count == 1


def test_traces_are_listed_newest_first_and_filtered():
    """By resource, text, error and duration."""
    telemetry = Telemetry()
    telemetry.add_spans(
        [
            span("a", trace_id="old", start_ns=1, end_ns=2),
            span("b", "a", trace_id="old", start_ns=1, end_ns=2, resource="shop", name="SELECT"),
            span("c", trace_id="new", start_ns=5, end_ns=9_000_000, status="error"),
        ]
    )

    def ids(**which: object) -> list[str]:
        return [trace.trace_id for trace in telemetry.traces(**which)]

    assert ids() == ["new", "old"]
    assert ids(limit=1) == ["new"]
    assert ids(resource="shop") == ["old"]
    assert ids(text="select") == ["old"]
    assert ids(errors_only=True) == ["new"]
    assert ids(shortest_ms=8) == ["new"]
    (old,) = telemetry.traces(resource="shop")
    assert (old.name, old.resource, old.resources, old.spans, old.errors) == (
        "root",
        "api",
        ("api", "shop"),
        2,
        0,
    )


def test_logs_are_filtered_and_followed():
    """The last ones that fit, oldest first, and those after a number."""
    telemetry = Telemetry()
    telemetry.add_logs(replace(RECORD, text=f"line {n}", severity=n) for n in range(1, 5))

    assert [record.text for record in telemetry.logs(limit=2)] == ["line 3", "line 4"]
    assert [record.number for record in telemetry.logs(after=3)] == [4]
    assert [record.severity for record in telemetry.logs(lowest_severity=4)] == [4]
    assert telemetry.logs(resource="shop") == []


@pytest.mark.parametrize("attributes, expected", [({"a": 1}, 1), ({"a": 2}, 2)])
def test_points_with_other_attributes_are_another_series(monkeypatch, attributes, expected):
    """And the oldest points make room."""
    monkeypatch.setattr(_telemetry, "POINTS", 2)
    telemetry = Telemetry()
    series = Series(
        name="m",
        kind="sum",
        unit="",
        description="",
        resource="api",
        instance="",
        attributes={"a": 1},
        is_monotonic=True,
        points=tuple(Point(at_ns=n, value=n) for n in range(3)),
    )

    telemetry.add_points([series])
    telemetry.add_points([replace(series, attributes=attributes, points=(Point(at_ns=9, value=9),))])

    assert len(telemetry.series("m")) == expected
    assert [p.at_ns for p in telemetry.series("m")[-1].points] == ([2, 9] if expected == 1 else [9])
