"""Short runs of two long benchmarks: thousands of damaged uploads, and half an hour of use."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import serve_fuzz
import serve_soak


def test_mutated_uploads_and_bombs_get_an_answer_and_no_5xx(run):
    figures = serve_fuzz.fuzz(run, 90, seed=1)
    assert sum(figures["statuses"].values()) == figures["uploads"] == 90
    assert figures["server_errors"] == 0
    assert {status.split()[0] for status in figures["statuses"]} <= {"200", "400", "413", "415"}
    assert figures["statuses"].get("413 too_large", 0) > 0  # the bombs were among them
    assert figures["peak_megabytes"] < 1500


def test_memory_stays_within_five_per_cent(run):
    figures = serve_soak.soak(run, seconds=16, rate=10)
    assert set(figures["statuses"]) <= {200, 204, 400, "expired"}  # only a machine that stalls lets images expire
    assert figures["requests"] > 150
    assert abs(figures["growth"]) <= 0.05
