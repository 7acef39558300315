"""Flows over HTTP: a router for your own FastAPI app, an app of its own, and what guards them.

Needs the extra `web`: pip install persistasaurus[web].
"""

from persistasaurus.web._dashboard import dashboard_router
from persistasaurus.web._flows import flow_router
from persistasaurus.web._problem import problems
from persistasaurus.web._scalar import scalar_router
from persistasaurus.web._security import LOOPBACK_HOSTS, Policy, SecurityMiddleware
from persistasaurus.web._serve import add_problem_handlers, create_app
from persistasaurus.web._shell import NavEntry, Shell

__all__ = [
    "LOOPBACK_HOSTS",
    "NavEntry",
    "Policy",
    "SecurityMiddleware",
    "Shell",
    "add_problem_handlers",
    "create_app",
    "dashboard_router",
    "flow_router",
    "problems",
    "scalar_router",
]
