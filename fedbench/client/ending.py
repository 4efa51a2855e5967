"""What a client's process died of, told to the server by who outlived it.

It imports no more than it needs: until then, the process that tells has to stay small.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPSConnection

from fedbench.client.settings import Settings

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Ending:
    """`exit_code` is negative for a signal; `memory_limit` in bytes, None where there is none."""

    exit_code: int
    killed_for_memory: bool
    memory_limit: int | None


def report(settings: Settings, ending: Ending) -> str:
    """Tells the server what became of this instance; what came of telling it."""
    context = ssl.create_default_context(cafile=str(settings.certificate))
    connection = HTTPSConnection(settings.server, timeout=TIMEOUT_SECONDS, context=context)
    path = f"/fedbench/v1/clients/{settings.client}/{settings.instance}/ending"
    try:
        connection.request(
            "POST", path, json.dumps(asdict(ending)), {"Content-Type": "application/json"}
        )
        return f"the server answers {connection.getresponse().status}"
    except (OSError, HTTPException) as error:
        return f"could not tell the server: {error}"
    finally:
        connection.close()
