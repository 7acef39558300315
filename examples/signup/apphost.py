"""The sign-up demo as an application: a database, the API, and a worker beside it.

persistasaurus dev examples/signup/apphost.py
"""

from persistasaurus.dev import AppHost

app = AppHost("signup-demo")
db = app.sqlite("signup.db")
api = app.asgi("api", "signup.api:app").uses(db).url("/scalar", "API reference")
worker = app.worker("worker", "signup.flows:register").uses(db).after(api)
