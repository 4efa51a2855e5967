"""Tells the server, every few seconds, who this client is and where its metrics are.

The server answers when the next announcement is due, and takes a client that hangs up for dead.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from fedbench.client.settings import Settings
from fedbench.records.pacing import Pacing
from fedbench.wire import (
    CLIENTS_PATH,
    LONGEST_ROUND_TRIP,
    ROUND_TRIPS,
    Announcement,
    NameTakenError,
)

INTERVAL_SECONDS = 5.0
RETRY_SECONDS = 1.0
TIMEOUT_SECONDS = 5.0  # beyond the time for which an answer is held back, and its round trips
UNKNOWN_SECONDS = 10.0  # what a round trip may take before the first was seen
TAKEN_SECONDS = 40.0  # the server believes in a client that lost its network for a while

log = logging.getLogger("fedbench.announce")


class Announcer:
    """One client's announcements to one server, over the same TLS as its model.

    `node_id` is what the server knows its node by; the stock node keeps that to itself.
    `pacing()` is how it keeps its device's pace; None where nothing can be said of it.
    `wait(seconds)` is true as soon as this client is to end; `connected` is told, after each
    announcement, whether the server took it; `gone()` is called once if the server has given up
    this client, which then has to start anew.
    """

    def __init__(
        self,
        settings: Settings,
        node_id: int | None,
        wait: Callable[[float], bool],
        connected: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
        pacing: Callable[[], Pacing | None] = lambda: None,
        gone: Callable[[], object] = lambda: None,
    ) -> None:
        self._pacing = pacing
        self._gone = gone
        self._wait = wait
        self._connected = connected
        self._clock = clock
        self._announcement = Announcement(
            client=settings.client,
            device=settings.device,
            instance=settings.instance,
            metrics_port=settings.metrics_port,
            node_id=node_id,
        )
        self._http = httpx.Client(
            base_url=f"https://{settings.server}",
            verify=ssl.create_default_context(cafile=str(settings.certificate)),
        )
        self._round_trip = UNKNOWN_SECONDS

    @contextmanager
    def running(self) -> Iterator[None]:
        """Announce now and then until the block ends; say goodbye at its end.

        Where the name is taken, it may be by a client that was killed, which the server has yet
        to miss: for `TAKEN_SECONDS` it is asked for again, and so is a server that is late.

        Raises:
            NameTakenError: another live client has this name.
            httpx.HTTPError: the server cannot be reached, or refuses.
        """
        with self._http:
            self._enter()
            stop = threading.Event()
            thread = threading.Thread(
                target=self._repeat, args=(stop,), name="announce", daemon=True
            )
            thread.start()
            try:
                yield
            finally:
                stop.set()
                self._leave()  # which the server answers, and what it held back as well
                thread.join()

    def _enter(self) -> None:
        deadline = self._clock() + TAKEN_SECONDS
        said = False
        while True:
            try:
                return self._announce()
            except httpx.TimeoutException as error:
                # It asks again: else all that it imported would be for nothing.
                if self._clock() >= deadline:
                    raise
                log.warning("could not announce: %s", error)
            except NameTakenError as error:
                if not said:
                    log.warning("%s: waiting %g s for its end", error, TAKEN_SECONDS)
                    said = True
                if self._clock() >= deadline or self._wait(INTERVAL_SECONDS):
                    raise

    def _announce(self, wait: float = 0) -> None:
        update = {"pacing": self._pacing(), "wait": wait, "round_trip": self._round_trip}
        told = self._announcement.model_copy(update=update)
        patience = TIMEOUT_SECONDS + ROUND_TRIPS * self._round_trip
        timeout = httpx.Timeout(patience, read=wait + patience)
        began = time.monotonic()
        answer = self._http.post(CLIENTS_PATH, content=told.model_dump_json(), timeout=timeout)
        took = time.monotonic() - began - wait
        self._round_trip = min(max(took, 0.0), LONGEST_ROUND_TRIP)
        if answer.status_code == httpx.codes.CONFLICT:
            name = self._announcement.client
            raise NameTakenError(f"a client named {name} is already connected")
        answer.raise_for_status()
        self._connected(True)

    def _repeat(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._announce(wait=INTERVAL_SECONDS)
            except (httpx.HTTPError, NameTakenError) as error:
                if stop.is_set():
                    return
                self._connected(False)
                if _says_gone(error):
                    log.warning("the server has given this client up: it starts anew")
                    self._gone()
                    return
                log.warning("could not announce: %s", error)
                stop.wait(RETRY_SECONDS)

    def _leave(self) -> None:
        said = self._announcement
        try:
            self._http.delete(f"{CLIENTS_PATH}/{said.client}/{said.instance}")
        except httpx.HTTPError as error:
            log.info("left without a goodbye: %s", error)


def _says_gone(error: Exception) -> bool:
    status = isinstance(error, httpx.HTTPStatusError) and error.response.status_code
    return status == httpx.codes.GONE
