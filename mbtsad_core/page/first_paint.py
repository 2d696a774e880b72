"""What a visitor sees first: the page is sent compressed, and says what it is for before its scripts have built it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE = "/"
LEVEL = 5  # of 9; the levels above take twice the time for a hundredth less
OPENING = b"""<style>
body:not(:has(gradio-app *))::before {
  content: "MBTSAD finds a text classifier's backdoor, and cures it from clean texts alone. The page is opening.";
  position: fixed; inset: 20vh 16px auto; text-align: center;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
}
</style>"""


class Compressed:
    """Middleware that compresses the page itself: its description of all steps is half a megabyte of repeating text.
    What one takes home goes as it is: weights gain nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.compressing = app, GZipMiddleware(app, compresslevel=LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.compressing if is_the_page(scope) else self.app)(scope, receive, send)


class Opening:
    """Middleware that puts a sentence into the page's HTML, which has none of its own. It goes once a script has
    built anything, be it a form to log in."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_the_page(scope):
            await self.app(scope, receive, send)
            return
        start, body = list[Message](), bytearray()

        async def hold(message: Message) -> None:
            """Keep the answer until all of it is there."""
            if message["type"] == "http.response.start":
                start.append(message)
                return
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                whole = bytes(body).replace(b"</head>", OPENING + b"</head>", 1)
                headers = MutableHeaders(raw=start[0]["headers"])
                if "content-length" in headers and scope["method"] == "GET":
                    headers["content-length"] = str(len(whole))
                await send(start[0])
                await send({"type": "http.response.body", "body": whole})

        await self.app(scope, receive, hold)


def is_the_page(scope: Scope) -> bool:
    return bool(scope["type"] == "http" and scope["path"] == PAGE)


FIRST_PAINT = [Middleware(Compressed), Middleware(Opening)]
