"""Five steps, the third of which fails; started again under the same id, the flow goes on at the third.

python examples/hello_world.py
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from persistasaurus import Persistasaurus, flow, step

weather = {"bad": True}


@step
def say(name: str, count: int) -> int:
    if count == 2 and weather["bad"]:
        raise RuntimeError("Uh oh")
    print(f"Hello, {name} ({count})")
    return count


@flow
def say_hello(name: str = "World") -> int:
    return sum(say(name, count) for count in range(5))


def main(database: Path) -> None:
    with Persistasaurus(database) as app:
        try:
            app.run(say_hello.options(flow_id="hello-1"), "World")
        except RuntimeError as error:
            print(f"failed: {error}")

    weather["bad"] = False
    print("-- the same id again, as after a restart --")
    with Persistasaurus(database) as app:
        # A failed flow stays failed until someone runs it again in so many words.
        total = app.get_flow(say_hello, "hello-1").run(lambda f: f("World"))
        print(f"sum: {total}")

        print("-- execution log --")
        for row in app.handle("hello-1").steps():
            print(row.step, row.method_name, row.parameters, row.status, row.return_value, end=" ")
            print(f"attempts={row.attempts}")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        main(Path(folder, "flows.db"))
