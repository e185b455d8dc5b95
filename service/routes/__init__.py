"""The one list of routes."""

from typing import Final

from fastapi import APIRouter, Depends

from service.routes import health, models, transcriptions, translations
from service.routes.access import require_api_key

V1: Final = (transcriptions.router, translations.router, models.router)
"""OpenAI's API, behind the API key."""

OPEN: Final = (health.router,)
"""What needs no key."""


def all_routes() -> APIRouter:
    """Everything that the service answers to."""
    root = APIRouter()
    for router in V1:
        root.include_router(router, prefix="/v1", dependencies=[Depends(require_api_key)])
    for router in OPEN:
        root.include_router(router)
    return root
