"""What a run leaves behind: written by the server and the host, read by the host.

A run's folder: `experiment.json`, `profile.json`, `run.json` (the host's facts for the server),
`events.jsonl`, `rounds.jsonl`, `summary.json`.
"""

from fedbench.records.files import Record, replace_bytes, replace_text
from fedbench.records.lines import read_lines
from fedbench.records.rounds import (
    ClientRound,
    EpochRecord,
    RoundParts,
    RoundRecord,
    by_client,
    read_rounds,
    total,
)
from fedbench.records.summary import ENDINGS, Summary, summarise, write_summary

__all__ = [
    "ENDINGS",
    "ClientRound",
    "EpochRecord",
    "Record",
    "RoundParts",
    "RoundRecord",
    "Summary",
    "by_client",
    "read_lines",
    "read_rounds",
    "replace_bytes",
    "replace_text",
    "summarise",
    "total",
    "write_summary",
]
