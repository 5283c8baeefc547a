"""Tests the way from measurements to the pages, and that paced.c counts waiting requests.

python3 -B -m unittest discover --start-directory compare
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

import load
import machines
import report
import scenarios

EPYC = (
    "vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\nstepping\t: 1\n\nprocessor: 1\n"
)
XEON = EPYC.replace("AuthenticAMD", "GenuineIntel").replace("26", "6").replace(": 2\n", ": 143\n")


def rounds(*cpu: float) -> dict:
    return {"rounds": [{"requests": 10, "per_second": 100 / each, "errors": 0, "cpu_us": each} for each in cpu]}


def a_run(**scenarios_found: dict) -> dict:
    return {
        "machine": {"cpu": "A (family 1)", "cores": 2, "kernel": "6"},
        "date": "2026-01-01",
        "commit": "c0ffee",
        "build": {"corsgate": "1"},
        "settings": {"rounds": 3, "seconds": 1},
        "versions": {"corsgate": "corsgate 1", "nginx": "nginx/1"},
        "scenarios": scenarios_found,
        **{name: {} for name in machines.MEASURED if name != "scenarios"},
    }


class Machines(unittest.TestCase):
    def test_family_and_model_tell_processors_of_one_name_apart(self) -> None:
        other = machines.cpu(EPYC.replace("26", "25"))
        self.assertEqual(machines.cpu(EPYC), "AMD EPYC (family 26, model 2, stepping 1)")
        self.assertEqual(machines.slug(machines.cpu(EPYC)), "amd-epyc-26-2-1")
        self.assertNotEqual(machines.slug(other), machines.slug(machines.cpu(EPYC)))

    def test_a_run_on_sapphire_rapids_replaces_the_reported_file(self) -> None:
        file = machines.RESULTS / f"{machines.slug(machines.cpu(XEON))}.json"
        self.assertEqual(file.name, "intel-xeon-sapphire-rapids.json")

    def test_ratios_are_taken_in_each_round(self) -> None:
        kept = machines.trimmed(a_run(get={"corsgate": rounds(10, 30, 22), "nginx": rounds(10, 10, 20)}))
        nginx = kept["scenarios"]["get"]["nginx"]
        self.assertEqual((nginx["cpu_us"], nginx["ratio"]["cpu_us"]), (10, [1.1, 1, 3]))  # not 22 / 10

    def test_a_peer_that_failed_stays_visible_and_has_no_ratio(self) -> None:
        kept = machines.trimmed(a_run(get={"corsgate": rounds(10), "nginx": {"failed": "3 errors\n"}}))
        self.assertEqual(kept["scenarios"]["get"]["nginx"], {"failed": "3 errors"})
        self.assertIn("| failed |", report.details([kept]))

    def test_a_part_of_a_run_replaces_only_itself_and_only_with_the_same_binaries(self) -> None:
        old = machines.trimmed(a_run(get={"nginx": rounds(1)}, preflight={"nginx": rounds(1)}))
        new = machines.trimmed(a_run(get={"nginx": rounds(2)}))
        joined = machines.joined(old, new)["scenarios"]
        self.assertEqual([joined[name]["nginx"]["cpu_us"] for name in ("get", "preflight")], [2, 1])
        for build in ({"corsgate": "2"}, {"bare": "1"}):
            with self.assertRaises(SystemExit):
                machines.joined(old, new | {"build": build})


class Pages(unittest.TestCase):
    def results(self) -> dict:
        quiet = {"machine": {"cpu": "B"}, "versions": {}, "scenarios": {}}
        quiet["scenarios"]["get"] = {"corsgate": {"cpu_us": 21.8}, "nginx": {"cpu_us": 12.7}, "envoy": {"cpu_us": 43}}
        quiet["scenarios"]["get"]["haproxy"] = {"cpu_us": 13.8, "ratio": {"cpu_us": [1.61]}}
        run = machines.trimmed(a_run(get={"corsgate": rounds(12), "nginx": rounds(10), "envoy": rounds(48)}))
        return {"a": run, "b": quiet}

    def test_the_worse_machine_leads(self) -> None:
        ratios = report.BLOCKS["ratios"](self.results())
        self.assertIn("| **1.72** (A 1.20, B 1.72) | **1.61** (B) | **0.51** (A 0.25, B 0.51) |", ratios)

    def test_what_is_not_ahead_is_listed_for_each_machine(self) -> None:
        self.assertIn(
            "| nginx **1.20** | nginx **1.72**, HAProxy **1.61** |", report.BLOCKS["not-ahead"](self.results())
        )

    def test_a_changed_figure_changes_the_page(self) -> None:
        before = report.pages()
        changed = {name: dict(result) for name, result in machines.read_all().items()}
        scenario = {"corsgate": {"cpu_us": 1}, "nginx": {"cpu_us": 1000}}
        for result in changed.values():
            result["scenarios"] = result["scenarios"] | {"get": scenario}
        with mock.patch.object(machines, "read_all", lambda: changed):
            after = report.pages()
        self.assertTrue(all(before[page] != after[page] for page in before))


@unittest.skipIf((os.cpu_count() or 1) < 2, "the load generator takes the second core")
class Paced(unittest.TestCase):
    """Uses one connection, and a server that sleeps once. The requests that are due during the sleep wait."""

    def test_requests_that_wait_for_a_connection_count_their_wait(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryDirectory() as folder:
            threading.Thread(target=self.serve, args=(listener,), daemon=True).start()
            measures = load.paced(listener.getsockname()[1], scenarios.GET, 400, 1, Path(folder), connections=1)
        self.assertEqual(measures["errors"], 0)
        self.assertGreater(measures["requests"], 200)
        # Half of the requests are due during the sleep. If latency counted from the sending, only one would be slow.
        self.assertGreater(measures["p99_us"], 300_000)

    def serve(self, listener: socket.socket) -> None:
        connection, served = listener.accept()[0], 0
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                assert data.endswith(b"\r\n\r\n")
                served += 1
                if served == 100:
                    time.sleep(0.5)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


if __name__ == "__main__":
    unittest.main()
