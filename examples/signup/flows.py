"""The flows of the demo: saying hello, and a sign-up with a mail after a delay and a person who confirms."""

from __future__ import annotations

import logging
import os
import secrets
from datetime import datetime, timedelta

from persistasaurus import Persistasaurus, flow, step, wait_for

EMAIL_DELAY = timedelta(seconds=float(os.environ.get("SIGNUP_EMAIL_DELAY", "10")))

log = logging.getLogger("signup")


class Mailer:
    async def send(self, to: str, text: str) -> None:
        log.info("mail to %s: %s", to, text)


class SignupFlow:
    def __init__(self, mailer: Mailer) -> None:
        self.mailer = mailer

    @flow
    async def sign_up(self, user_name: str, email: str) -> int:
        """Creates a user, mails a welcome after a while, and waits until the address is confirmed."""
        user_id = await self.create_user_record(user_name, email)
        await self.send_welcome_email(user_id, email)
        confirmed_at = await wait_for(self.confirm_email_address)
        await self.finalize_signup(user_id, confirmed_at)
        return user_id

    @step
    async def create_user_record(self, user_name: str, email: str) -> int:
        user_id = 1 + secrets.randbelow(2**31 - 1)
        log.info("user %d created", user_id)
        return user_id

    @step(delay=EMAIL_DELAY)
    async def send_welcome_email(self, user_id: int, email: str) -> None:
        await self.mailer.send(email, f"Welcome, user {user_id}. Please confirm your address.")

    @step
    async def confirm_email_address(self, confirmed_at: datetime) -> datetime:
        return confirmed_at

    @step
    async def finalize_signup(self, user_id: int, confirmed_at: datetime) -> None:
        log.info("user %d is signed up since %s", user_id, confirmed_at)


@step
def say(name: str, count: int) -> int:
    log.info("Hello, %s (%d)", name, count)
    return count


@flow
def hello_world() -> int:
    """Says hello five times."""
    return sum(say("World", i) for i in range(5))


def register(app: Persistasaurus) -> None:
    """Tell an app how the class is made."""
    app.register(SignupFlow, lambda: SignupFlow(Mailer()))
