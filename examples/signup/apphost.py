"""The sign-up demo as an application: a database, the API, and a worker beside it.

persistasaurus dev examples/signup/apphost.py             on a SQLite file
persistasaurus dev examples/signup/apphost.py postgres    on a PostgreSQL server, with two workers
"""

import sys

from persistasaurus.dev import AppHost

on_postgres = sys.argv[1:] == ["postgres"]

app = AppHost("signup-demo")
db = app.postgres() if on_postgres else app.sqlite("signup.db")
api = app.asgi("api", "signup.api:app").uses(db).url("/scalar", "API reference")
worker = app.worker("worker", "signup.flows:register", replicas=2 if on_postgres else 1).uses(db).after(api)
