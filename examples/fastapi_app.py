"""A web service that streams answers; the request of a client who goes away ends with the connection.

python examples/fastapi_app.py [MODEL] [PORT]          needs fastapi and uvicorn
curl --no-buffer http://127.0.0.1:8000/answers --json '{"prompt": "def read_lines(path):"}'
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

import pio

router = APIRouter()


class Question(BaseModel):
    """What a client asks."""

    prompt: str = Field(max_length=20_000)
    max_new_tokens: int = Field(default=200, ge=1, le=2_000)
    seed: int | None = None
    ignore_eos: bool = False


async def pieces(handle: pio.Handle) -> AsyncGenerator[str]:
    """Yield an answer as it comes; where the server stops reading, because nobody is there, the request ends."""
    async with aclosing(handle.__aiter__()) as stream:
        async for piece in stream:
            yield piece


@router.post("/answers")
async def answer(question: Question, request: Request) -> StreamingResponse:
    """Stream the answer to a prompt."""
    model: pio.TextModelPlugin = request.app.state.model
    try:
        handle = model.submit(**question.model_dump())
    except (pio.ConfigError, pio.CapacityError) as error:  # nothing was sent yet, so the client hears of it
        raise HTTPException(422, str(error)) from error
    return StreamingResponse(pieces(handle), media_type="text/plain; charset=utf-8")


@router.get("/stats")
async def stats(request: Request) -> dict[str, Any]:
    """Return what the model does."""
    model: pio.TextModelPlugin = request.app.state.model
    return asdict(model.stats())


def make_app(path: str) -> FastAPI:
    """Return the service; it loads its model when it starts, and gives it back when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with await asyncio.to_thread(pio.load, path) as app.state.model:
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    return app


if __name__ == "__main__":
    path, port = [*sys.argv[1:], *("demo", "8000")[len(sys.argv) - 1 :]]
    uvicorn.run(make_app(path), host="127.0.0.1", port=int(port))
