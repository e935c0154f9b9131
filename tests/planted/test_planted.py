"""The tests are tested: with a mistake planted in minidl a test must fail, and name what is broken."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from faults import FAULTS, REPOSITORY, Fault, contract
from mutate import excuses
from runner import Outcome, Trial

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the runner forks, which is safe on Linux only")

RELU = "minidl/ops/relu.py"
RELU_FAULTS = {
    "survived": Fault("none", "relu", RELU, (), contract("ReLU and gradients")),
    "broken": Fault("without tests", "relu", RELU, (), contract("no such layer")),
    "crashed": Fault(
        "it dies", "relu", RELU, (("    dx: A", "    __import__('os').abort()\n    dx: A"),), contract("ReLU")
    ),
    "timeout": Fault(
        "it never ends", "relu", RELU, (("    dx: A", "    while dy is dy: pass\n    dx: A"),), contract("ReLU")
    ),
}


def tried(trials: list[Trial]) -> dict[str, Outcome]:
    """The outcomes of trials by name, from a process of their own: the runner forks, and so must have no threads."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("runner.py")],
        input=json.dumps([asdict(trial) for trial in trials]),
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return {outcome["name"]: Outcome(**outcome) for outcome in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="session")
def outcomes() -> dict[str, Outcome]:
    trials = [Trial(fault.id, fault.file, fault.source(), fault.tests) for fault in FAULTS if fault.fits]
    trials += [Trial(verdict, RELU, fault.source(), fault.tests, seconds=5) for verdict, fault in RELU_FAULTS.items()]
    assert len({trial.name for trial in trials}) == len(trials)
    return tried(trials)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.id for fault in FAULTS])
def test_a_fault_is_caught_by_a_test_that_names_it(fault: Fault, outcomes: dict[str, Outcome]):
    assert fault.fits, f"the text to change does not stand in {fault.file} exactly once"
    outcome = outcomes[fault.id]
    assert outcome.verdict == "caught", f"{outcome.verdict}\n{outcome.says}"
    assert fault.named_by(outcome.node), f"caught by {outcome.node}, which does not name {fault.names}"


def test_the_tests_that_catch_pass_without_the_faults(outcomes: dict[str, Outcome]):
    nodes = {outcome.node for outcome in outcomes.values() if outcome.verdict == "caught"}
    unchanged = (REPOSITORY / RELU).read_text(encoding="utf-8")
    outcome = tried([Trial("unchanged", RELU, unchanged, sorted(nodes), seconds=300)])["unchanged"]
    assert outcome.verdict == "survived", f"{outcome.verdict} by {outcome.node}\n{outcome.says}"


@pytest.mark.parametrize("verdict", RELU_FAULTS)
def test_the_runner_tells_what_happened(verdict: str, outcomes: dict[str, Outcome]):
    assert outcomes[verdict].verdict == verdict


@pytest.mark.parametrize("correct", ["no such text", "dx"])
def test_the_text_to_change_must_stand_there_exactly_once(correct: str):
    assert not Fault("it does not fit", "relu", RELU, ((correct, ""),), ()).fits


@pytest.mark.parametrize("excuse", excuses(), ids=lambda excuse: excuse["before"])
def test_excused_mutants_still_stand_in_their_files(excuse: dict[str, str]):
    lines = (REPOSITORY / excuse["file"]).read_text(encoding="utf-8").splitlines()
    assert excuse["before"] in map(str.strip, lines)
