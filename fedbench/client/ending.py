"""What a client's process died of, told to the server by who outlived it."""

from __future__ import annotations

import ssl
from http.client import HTTPException, HTTPSConnection

from fedbench.client.settings import Settings
from fedbench.wire import CLIENTS_PATH, Ending

TIMEOUT_SECONDS = 10.0


def report(settings: Settings, ending: Ending) -> str:
    """Tell the server what became of this instance, and return what came of telling it."""
    context = ssl.create_default_context(cafile=str(settings.certificate))
    connection = HTTPSConnection(settings.server, timeout=TIMEOUT_SECONDS, context=context)
    path = f"{CLIENTS_PATH}/{settings.client}/{settings.instance}/ending"
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, ending.model_dump_json(), headers)
        return f"the server answers {connection.getresponse().status}"
    except (OSError, HTTPException) as error:
        return f"could not tell the server: {error}"
    finally:
        connection.close()
