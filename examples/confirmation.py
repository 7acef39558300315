"""A sign-up: a welcome mail after a delay, and a person who confirms the address.

The delay is short here; set SIGNUP_DELAY to a number of seconds for another one. The app is left while the
delay runs and entered again: what is left of the delay is waited, no more.

    python examples/confirmation.py
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from persistasaurus import FlowStatus, Persistasaurus, flow, step, wait_for

DELAY = timedelta(seconds=float(os.environ.get("SIGNUP_DELAY", "0.3")))


class Mailer:
    async def send(self, to: str, text: str) -> None:
        print(f"mail to {to}: {text}")


class SignupFlow:
    def __init__(self, mailer: Mailer) -> None:
        self.mailer = mailer

    @flow
    async def sign_up(self, user_name: str, email: str) -> int:
        user_id = await self.create_user_record(user_name, email)
        await self.send_welcome_email(user_id, email)
        confirmed_at = await wait_for(self.confirm_email_address)
        await self.finalize_signup(user_id, confirmed_at)
        return user_id

    @step
    async def create_user_record(self, user_name: str, email: str) -> int:
        print(f"user {user_name} <{email}> created")
        return 42

    @step(delay=DELAY)
    async def send_welcome_email(self, user_id: int, email: str) -> None:
        await self.mailer.send(email, f"Welcome, user {user_id}. Please confirm your address.")

    @step
    async def confirm_email_address(self, confirmed_at: datetime) -> datetime:
        print(f"address confirmed in {confirmed_at.year}")
        return confirmed_at

    @step
    async def finalize_signup(self, user_id: int, confirmed_at: datetime) -> None:
        print(f"user {user_id} is signed up since {confirmed_at.year}")


def new_app(database: Path) -> Persistasaurus:
    app = Persistasaurus(database)
    app.register(SignupFlow, lambda: SignupFlow(Mailer()))
    return app


async def main(database: Path) -> None:
    sign_up = SignupFlow.sign_up.options(flow_id="signup-alice")

    async with new_app(database) as app:
        handle = await app.start_async(sign_up, "alice", "alice@example.com")
        while len(await handle.steps_async()) < 2:  # noqa: ASYNC110 - another process might drive it
            await asyncio.sleep(0.01)
    print("-- the app was left, and is entered again --")

    async with new_app(database) as app:
        # The same id, flow and input again is the same flow instance.
        handle = await app.start_async(sign_up, "alice", "alice@example.com")
        while await handle.status_async() != FlowStatus.WAITING_FOR_SIGNAL:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        print("-- the flow waits for a person --")
        await handle.resume_async(SignupFlow.confirm_email_address, datetime(2026, 2, 3, 4, 5, tzinfo=UTC))
        print(f"result: {await handle}")

        print("-- execution log --")
        for row in await handle.steps_async():
            delayed = f"delay={row.delay.total_seconds()}s" if row.delay else ""
            print(row.step, row.method_name, row.status, row.return_value, delayed)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "flows.db")))
