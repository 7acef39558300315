"""Describing an application: what cannot work is refused with the cure, before anything starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from persistasaurus import UsageError
from persistasaurus.dev import AppHost, apphost_of
from persistasaurus.dev._apphost import Place
from persistasaurus.dev._environment import Wiring, import_folder, plans_of, service_variable


def test_the_methods_return_the_resource_they_are_called_on():
    """So that calls chain, with the type of the resource."""
    app = AppHost("chained")
    db = app.sqlite("flows.db")
    api = app.asgi("api", "module:app", health="/well", port=8000)

    assert api.uses(db).url("/docs", "API").env(A=1).after(db) is api
    assert (api.used, api.links, api.variables) == ([db], [("/docs", "API")], {"A": "1"})
    assert list(app.resources) == ["flows", "api"]


def test_relative_files_lie_beside_the_file_that_makes_the_apphost():
    """Wherever it is started from."""
    assert AppHost("here").folder == Path(__file__).resolve().parent


def test_a_test_never_uses_the_database_itself():
    """Also where it is named by its whole path."""
    db = AppHost("a").sqlite("/var/lib/a b/flows.db")

    assert db.address(Place(Path("/here"))) == "sqlite:////var/lib/a%20b/flows.db"
    assert db.address(Place(Path("/scratch"), is_scratch=True)) == "sqlite:////scratch/flows.db"


def test_a_url_that_is_none_of_postgres_is_refused():
    """An empty one too: it may come from a variable that is not set."""
    for url in ("mysql://localhost/flows", "flows.db", ""):
        with pytest.raises(UsageError, match=r"no URL of PostgreSQL.*postgresql://"):
            AppHost("a").postgres(url)


def test_a_password_is_in_the_environment_and_not_in_what_is_shown():
    """The address goes to the process whole."""
    db = AppHost("a").postgres("postgresql://alice:secret@db.local:5432/flows?sslmode=require")

    assert "secret" in db.address(Place(Path()))
    assert db.shown(Place(Path())) == "postgresql://db.local:5432/flows"


def test_resources_that_wait_for_each_other_are_refused():
    """Also over several others, and one for itself."""
    app = AppHost("circle")
    first = app.process("first", "true")
    second = app.process("second", "true").after(first)
    third = app.process("third", "true").after(second)

    with pytest.raises(UsageError, match="'first' and 'third' would wait for each other"):
        first.after(third)
    with pytest.raises(UsageError, match="wait for each other"):
        first.uses(first)


def test_two_databases_for_one_resource_are_refused():
    """One variable names one."""
    app = AppHost("two")
    worker = app.worker("worker", "module").uses(app.sqlite("a.db"))

    with pytest.raises(UsageError, match="two databases"):
        worker.uses(app.sqlite("b.db"))


@pytest.mark.parametrize(
    "describe",
    [
        lambda app: app.asgi("api", "module"),
        lambda app: app.asgi("api", "module:app; rm"),
        lambda app: app.asgi("api", "--help"),
        lambda app: app.asgi("api", "module:app", health="health"),
        lambda app: app.asgi("api", "module:app", port=70_000),
        lambda app: app.asgi("a b", "module:app"),
        lambda app: app.worker("worker", "module", replicas=0),
        lambda app: app.process("empty"),
        lambda app: app.process("taken", "true"),
        lambda app: app.process("p", "true").url("docs", "Docs"),
        lambda app: app.process("p", "true").after("taken"),
    ],
)
def test_what_makes_no_sense_is_refused(describe):
    """When it is written, not when it is started."""
    app = AppHost("refused")
    app.process("taken", "true")

    with pytest.raises(UsageError):
        describe(app)


def test_a_worker_without_a_database_is_refused():
    """Before anything is started."""
    app = AppHost("workless")
    worker = app.worker("worker", "module")
    wiring = Wiring(place=Place(Path()), ports={}, otlp="http://127.0.0.1:1", key="k")

    with pytest.raises(UsageError, match="no database"):
        plans_of(app, worker, wiring)


def test_the_variable_of_a_service_is_its_name_in_capitals():
    """A dash is no part of a variable's name."""
    assert service_variable("mail-relay") == "PERSISTASAURUS_SERVICE_MAIL_RELAY_URL"


def test_a_package_is_imported_from_above_it(tmp_path):
    """A plain folder is imported from as it is."""
    package = tmp_path / "shop" / "parts"
    package.mkdir(parents=True)
    assert import_folder(package) == package

    (package / "__init__.py").touch()
    (package.parent / "__init__.py").touch()
    assert import_folder(package) == tmp_path


def test_a_file_with_one_apphost_is_a_target(tmp_path, monkeypatch):
    """Under any name."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "apphost.py"
    file.write_text("from persistasaurus.dev import AppHost\nthing = AppHost('found')\nalso = thing\n")

    app = apphost_of(str(file))

    assert (app.name, app.folder) == ("found", tmp_path.resolve())


def test_a_target_finds_the_words_that_follow_it(tmp_path, monkeypatch):
    """As if it had been started by itself; whoever imports it keeps its own."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = [*sys.argv]
    file = tmp_path / "apphost.py"
    file.write_text(
        "import sys\nfrom persistasaurus.dev import AppHost\n"
        "thing = AppHost('-'.join(sys.argv[1:]) or 'none')\n"
    )

    assert apphost_of(str(file), arguments=["on", "postgres"]).name == "on-postgres"
    assert apphost_of(str(file)).name == "none"
    assert sys.argv == before


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "holds no AppHost"),
        ("a, b = AppHost('a'), AppHost('b')", "holds 2 AppHosts"),
    ],
)
def test_a_file_with_another_number_of_them_is_refused(tmp_path, monkeypatch, content, message):
    """None to choose from, or no way to choose."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "apphost.py"
    file.write_text(f"from persistasaurus.dev import AppHost\n{content}\n")

    with pytest.raises(UsageError, match=message):
        apphost_of(str(file))


def test_an_asgi_app_is_a_target(tmp_path, monkeypatch):
    """A default AppHost is made around it, with a database."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "dev_bare_app.py").write_text("async def app(scope, receive, send): ...\nnumber = 3\n")

    app = apphost_of("dev_bare_app", folder=tmp_path)

    assert [(r.kind, r.name) for r in app.resources.values()] == [("sqlite", "flows"), ("asgi", "api")]
    assert apphost_of("dev_bare_app:app", folder=tmp_path).folder == tmp_path
    for target in ("dev_bare_app:number", "dev_bare_app:missing", "dev_no_such_module:app"):
        with pytest.raises(UsageError):
            apphost_of(target, folder=tmp_path)


def test_describing_an_application_loads_no_server():
    """A process that the AppHost starts imports this module too, and should be there quickly."""
    program = (
        "import sys, persistasaurus.dev; "
        "sys.exit(any(m.split('.')[0] in ('uvicorn', 'starlette', 'google', 'httpx2') for m in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
