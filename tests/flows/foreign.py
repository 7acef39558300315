"""A module with flows of its own, for tests of what belongs to whom."""

from persistasaurus import flow, step


@step
def foreign_step(n: int) -> int:
    return n


@flow
def foreign_flow(n: int) -> int:
    return foreign_step(n)
