"""How damage is shown."""

from __future__ import annotations

from persistasaurus._store.verification import Finding
from persistasaurus.cli._output import Output


def show(out: Output, finding: Finding) -> None:
    """Print one finding."""
    if out.as_json:
        out.line({"flow_id": finding.flow_id, "problem": finding.problem})
        return
    where = "the database" if finding.flow_id is None else f"flow {finding.flow_id}"
    out.text(f"{where}: {finding.problem}")
