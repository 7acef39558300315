"""The API against its own description: whatever fits it, and whatever does not, no answer is a surprise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.web.serving import Server

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.real_time
@pytest.mark.parametrize("ids", ["made up", "real"])
def test_no_answer_contradicts_the_description(server: Server, tmp_path: Path, ids: str) -> None:
    """Requests that are made up from the OpenAPI document, good and bad ones, over real HTTP."""
    # given
    body = {"userName": "alice", "email": "alice@example.com"}
    flow_id = server.client.post("/signups", json=body).json()["flowId"]
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(f'[parameters]\n"path.flow_id" = "{flow_id}"\n' if ids == "real" else "", "utf-8")

    # when
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", settings),
        *("run", f"{server.url}/openapi.json", "--checks", CHECKS, "--max-examples", "20"),
        *("--phases", "examples,coverage,fuzzing", "--generation-deterministic"),
        *("--suppress-health-check", "all", "--request-timeout", "20", "--no-color"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)

    # then
    told = done.stdout[-6_000:] + done.stderr[-2_000:] + server.log()[-2_000:]
    assert done.returncode == 0, told
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found is not None, told
    assert int(found[1]) == int(found[2]) > 300, told
    assert "Traceback" not in server.log()
